# Attack: have the kernel make a huge table for this process's locks, which no limit counts.
# Verdict: ok
# Limits: memory=64
# Open without: seccomp
# Safe: refused.
SET_SLOTS = 1
attempt("64 MB", lambda: syscall(157, 78, SET_SLOTS, 1 << 20, 0, 0))
