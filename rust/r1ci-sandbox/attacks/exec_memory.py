# Attack: run a program that lies in memory or in the work folder.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
EXECVEAT, EMPTY_PATH = 322, 0x1000
with open("program", "wb") as file:
    file.write(b"#!/bin/sh\necho ESCAPED\n")
handle = os.open("program", os.O_RDONLY)
attempt("memory file", lambda: os.memfd_create("program"))
attempt("file", lambda: os.execv("program", ["program"]))
attempt("handle", lambda: syscall(EXECVEAT, handle, b"\0", 0, 0, EMPTY_PATH))
attempt("itself", lambda: os.execv("/proc/self/exe", ["python", "-c", "print('ESCAPED')"]))
attempt("input", lambda: syscall(EXECVEAT, 0, b"\0", 0, 0, EMPTY_PATH))
