# Attack: an exponential tree of sessions, each a leader that nobody waits for.
# Verdict: timeout, cpu_limit, ok, pids_limit, killed
# Open beyond: processes
# Limits: processes=12 cpu=1 wall=1
# Safe: the whole tree goes at once.
import time

print("kept", flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
            os.write(1, b"used %d\n" % os.getpid())  # in one piece: others write too
    except OSError:
        time.sleep(0.01)
