# Attack: watch what others do with files.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
INOTIFY_INIT1, FANOTIFY_INIT = 294, 300
attempt("inotify", lambda: syscall(INOTIFY_INIT1, 0))
attempt("fanotify", lambda: syscall(FANOTIFY_INIT, 0x200, 0))
