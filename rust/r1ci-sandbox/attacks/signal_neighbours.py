# Attack: stop or kill the interpreter that forked us and the supervisor, by every call.
# Verdict: ok
# Open without: landlock landlock_scope seccomp private_uid namespaces
# Safe: refused, each.
PIDFD_OPEN, PIDFD_SEND_SIGNAL, TGKILL, SIGQUEUE = 434, 424, 234, 129
PROBE = 0
for pid in (os.getppid(), facts["supervisor"]):
    attempt(f"kill {pid}", lambda pid=pid: os.kill(pid, PROBE))
    attempt(f"tgkill {pid}", lambda pid=pid: syscall(TGKILL, pid, pid, PROBE))
    attempt(f"sigqueue {pid}", lambda pid=pid: syscall(SIGQUEUE, pid, PROBE, bytes(128)))
    attempt(
        f"pidfd {pid}",
        lambda pid=pid: syscall(PIDFD_SEND_SIGNAL, syscall(PIDFD_OPEN, pid, 0), PROBE, 0, 0),
    )
