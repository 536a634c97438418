# Attack: new processes by raw clone, clone3 and vfork, past the standard library.
# Verdict: ok
# Open without: seccomp
# Safe: clone3 does not exist, the others are not permitted.
CLONE, VFORK, CLONE3 = 56, 58, 435
SIGCHLD = 17


def clone(number, *arguments):
    pid = syscall(number, *arguments)
    if pid == 0:
        os._exit(0)
    return pid


attempt("clone", lambda: clone(CLONE, SIGCHLD, 0, 0, 0, 0))
attempt("clone into namespaces", lambda: clone(CLONE, 0x10000000 | SIGCHLD, 0, 0, 0, 0))
record = bytes(32) + SIGCHLD.to_bytes(8, "little") + bytes(48)
attempt("clone3", lambda: clone(CLONE3, record, len(record)))
