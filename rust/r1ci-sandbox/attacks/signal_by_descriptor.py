# Attack: have the kernel signal another process when a descriptor becomes ready, or stall it by a
# lease on a file.
# Verdict: ok
# Open without: landlock landlock_scope seccomp private_uid namespaces
# Safe: refused.
import fcntl

ours, theirs = os.pipe()
F_SETOWN_EX, F_SETLEASE = 15, 1024
attempt("owner", lambda: fcntl.fcntl(ours, fcntl.F_SETOWN, os.getppid()))
attempt("owner record", lambda: fcntl.fcntl(ours, F_SETOWN_EX, bytes([1, 0, 0, 0, 1, 0, 0, 0])))
library = os.open(os.__file__, os.O_RDONLY)
attempt("lease", lambda: fcntl.fcntl(library, F_SETLEASE, fcntl.F_RDLCK))
