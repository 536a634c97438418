# Attack: a double-forked daemon that holds the output pipe and sleeps for an hour.
# Verdict: ok
# Open without: seccomp
# Safe: refused; even with the filter off the result comes at once and the daemon is gone.
import time


def start():
    child = os.fork()
    if child == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(3600)
        os._exit(0)
    os.waitpid(child, 0)
    return child


attempt("daemon", start)
