# Attack: read the memory, environment and files of the processes above us.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
for pid in (os.getppid(), facts["supervisor"], 1):
    for name in ("environ", "maps", "mem", "cmdline", "status", "root/etc/hostname"):
        attempt(f"{pid}/{name}", lambda pid=pid, name=name: read(f"/proc/{pid}/{name}"))
    attempt(f"{pid}/fd", lambda pid=pid: os.listdir(f"/proc/{pid}/fd"))
    attempt(f"ptrace {pid}", lambda pid=pid: syscall(101, 16, pid, 0, 0))
    attempt(
        f"process_vm_readv {pid}", lambda pid=pid: syscall(310, pid, bytes(16), 1, bytes(16), 1, 0)
    )
    attempt(f"pidfd_open {pid}", lambda pid=pid: syscall(434, pid, 0))
