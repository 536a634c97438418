# Attack: change the clock that limits are measured by.
# Verdict: ok
# Safe: refused.
import time

attempt("clock", lambda: time.clock_settime(time.CLOCK_REALTIME, 0))
attempt("adjtimex", lambda: syscall(159, bytes(208)))
