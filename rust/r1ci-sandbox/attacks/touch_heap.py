# Attack: many children write to every page that they share with the interpreter.
# Verdict: ok, memory_limit, cpu_limit, timeout, killed
# Held by: copies on write: pages of the warm interpreter are never the child's to change
# Limits: processes=8 memory=64 cpu=3 wall=4
# Safe: the copies are theirs, and end with them.
import gc

for _ in range(8):
    try:
        child = os.fork()
    except BlockingIOError:  # full house: those that run already go on
        break
    if child == 0:
        kept = [(thing, thing) for thing in gc.get_objects()]
        os._exit(len(kept) & 1)
while True:
    try:
        os.wait()
    except ChildProcessError:
        break
