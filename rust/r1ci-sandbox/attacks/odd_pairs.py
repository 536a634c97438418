# Attack: connected pairs of every family and kind.
# Verdict: ok
# Open without: seccomp
# Safe: refused, all but a pair of unix streams.
SOCKETPAIR = 53
for family in (*range(1, 46), 1 + 2**32):
    for kind in (*range(1, 11), 2 | 0x800, 5 | 0x80000):
        if (family & 0xFFFFFFFF, kind) != (1, 1):
            attempt(
                f"{family} {kind}", lambda f=family, k=kind: syscall(SOCKETPAIR, f, k, 0, bytes(8))
            )
