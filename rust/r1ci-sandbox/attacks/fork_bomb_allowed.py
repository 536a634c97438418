# Attack: fork without end where a few processes are allowed; every child does the same.
# Verdict: timeout, cpu_limit, ok, pids_limit, killed
# Open beyond: processes
# Limits: processes=8 cpu=1 wall=1.5
# Safe: refused above the number, and all of them end together.
ours, theirs = os.pipe()
os.set_blocking(ours, False)
print("kept", flush=True)
for _ in range(2000):
    try:
        if os.fork() == 0:
            os.write(theirs, b"x")
            os.write(1, b"used %d\n" % os.getpid())  # in one piece: others write too
    except OSError:
        continue
if os.getpid() == 1 and len(os.read(ours, 4096)) > 32:
    print("ESCAPED the limit on processes")
