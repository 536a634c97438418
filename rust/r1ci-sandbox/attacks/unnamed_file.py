# Attack: a file without a name, made or given a name elsewhere.
# Verdict: ok
# Open without: landlock landlock_tcp landlock_scope namespaces private_uid
# Safe: refused.
folder = os.path.dirname(facts["secret_path"])
attempt("in another folder", lambda: os.open(folder, os.O_TMPFILE | os.O_RDWR))
handle = os.open(".", os.O_TMPFILE | os.O_RDWR)
LINKAT, EMPTY_PATH = 265, 0x1000
name = f"{folder}/r1ci-attack".encode()
attempt("link by handle", lambda: syscall(LINKAT, handle, b"\0", -100, name, EMPTY_PATH))
attempt("link by path", lambda: os.link(f"/proc/self/fd/{handle}", name, follow_symlinks=True))
