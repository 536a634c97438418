# Attack: interfaces with a long record of kernel bugs.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
doors = {
    "io_uring_setup": (425, 8, bytes(120)),
    "userfaultfd": (323, 1),
    "bpf": (321, 0, bytes(72), 72),
    "perf_event_open": (298, bytes([1, 0, 0, 0, 112]) + bytes(107), 0, -1, -1, 0),
    "keyctl": (250, 0, -3, 1),
    "add_key": (248, b"user\0", b"planted\0", b"x", 1, -3),
    "request_key": (249, b"user\0", b"planted\0", 0, -3),
    "personality": (135, 0x0040000),
    "modify_ldt": (154, 0, bytes(16), 16),
    "kcmp": (312, os.getpid(), os.getpid(), 0, 0, 1),
    "ptrace_traceme": (101, 0, 0, 0, 0),
}
for name, arguments in doors.items():
    attempt(name, lambda arguments=arguments: syscall(*arguments))
