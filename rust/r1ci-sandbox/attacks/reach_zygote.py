# Attack: every call that reads, writes, steals from or steers another process.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
vector = bytes(16)
for pid in (os.getppid(), facts["supervisor"]):
    calls = {
        "process_vm_writev": (311, pid, vector, 1, vector, 1, 0),
        "pidfd_getfd": (438, 0, 3, 0),
        "kcmp": (312, os.getpid(), pid, 0, 0, 0),
        "process_madvise": (440, 0, vector, 1, 4, 0),
        "process_mrelease": (448, 0, 0),
        "move_pages": (279, pid, 1, vector, vector, vector, 0),
        "migrate_pages": (256, pid, 64, vector, vector),
        "get_robust_list": (274, pid, vector, vector),
        "sched_setattr": (314, pid, bytes([48, 0, 0, 0, 5]) + bytes(43), 0),
        "sched_setscheduler": (144, pid, 5, bytes(4)),
        "ioprio_set": (251, 1, pid, 0x6000),
        "ptrace seize": (101, 0x4206, pid, 0, 0),
        "perf": (298, bytes([1, 0, 0, 0, 128]) + bytes(123), pid, -1, -1, 0),
        "rt_tgsigqueueinfo": (297, pid, pid, 0, bytes(128)),
        "setpgid": (109, pid, 0),
    }
    for name, arguments in calls.items():
        attempt(f"{name} {pid}", lambda arguments=arguments: syscall(*arguments))
