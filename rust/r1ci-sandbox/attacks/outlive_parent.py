# Attack: take off the tie that ends us when the sandbox dies, or become traceable.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
SET_PDEATHSIG, SET_DUMPABLE, SET_SUBREAPER, PRCTL = 1, 4, 36, 157
attempt("death signal", lambda: syscall(PRCTL, SET_PDEATHSIG, 0, 0, 0, 0))
attempt("dumpable", lambda: syscall(PRCTL, SET_DUMPABLE, 1, 0, 0, 0))
attempt("subreaper", lambda: syscall(PRCTL, SET_SUBREAPER, 1, 0, 0, 0))
