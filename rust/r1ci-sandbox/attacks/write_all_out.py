# Attack: make the machine write out what everybody has not written yet, and wait for it unkillably.
# Verdict: ok
# Open without: seccomp
# Safe: refused, or nothing done.
SYNC, SYNCFS = 162, 306
with open(os.__file__) as library:
    attempt("its file system", lambda: syscall(SYNCFS, library.fileno()))
attempt("everything", lambda: syscall(SYNC))
