# Attack: families that firewalls forget.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
for family in (*range(1, 46), 0x7FFF):
    for kind in (1, 2, 3, 5):
        attempt(f"family {family} kind {kind}", lambda f=family, k=kind: syscall(41, f, k, 0))
