# Attack: stop and kill the interpreter and the supervisor in earnest, then every number there is.
# Verdict: ok
# Safe: nobody is reached.
import signal

for pid in {os.getppid(), facts["supervisor"], -os.getppid(), -facts["supervisor"]} - {0}:
    for number in (signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
        attempt(f"{number.name} {pid}", lambda pid=pid, number=number: os.kill(pid, number))
reached = 0
for pid in range(1, 40_000):
    try:
        if pid != os.getpid():
            os.kill(pid, 0)
            reached += 1
    except OSError:
        continue
if reached:
    print("ESCAPED to", reached)
