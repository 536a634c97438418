# Attack: open files by number, past every folder above them.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
NAME_TO_HANDLE_AT, OPEN_BY_HANDLE_AT = 303, 304
handle = bytearray(136)
handle[0] = 128
attempt(
    "name_to_handle_at", lambda: syscall(NAME_TO_HANDLE_AT, -100, b".", bytes(handle), bytes(4), 0)
)
attempt("open_by_handle_at", lambda: syscall(OPEN_BY_HANDLE_AT, 0, bytes(handle), 0))
