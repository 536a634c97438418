# Attack: steer a child of one's own by the calls of a debugger.
# Verdict: ok
# Limits: processes=2
# Open without: seccomp
# Safe: refused.
import time

PTRACE, VM_READ, PIDFD_OPEN = 101, 310, 434
SEIZE = 0x4206
attempt("trace me", lambda: syscall(PTRACE, 0, 0, 0, 0))
child = os.getppid()
try:
    child = os.fork()
    if child == 0:
        time.sleep(30)
        os._exit(0)
except OSError as error:
    print(f"refused fork: {error}")
attempt("seize", lambda: syscall(PTRACE, SEIZE, child, 0, 0))
attempt("read memory", lambda: syscall(VM_READ, child, bytes(16), 1, bytes(16), 1, 0))
attempt("handle", lambda: syscall(PIDFD_OPEN, child, 0))
