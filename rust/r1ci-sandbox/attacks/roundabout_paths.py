# Attack: the same files by other ways: links of /proc, descriptors, odd resolutions, exchanges.
# Verdict: ok
# Open without: landlock landlock_tcp landlock_scope namespaces private_uid seccomp
# Safe: refused.
RENAMEAT2, OPENAT2, EXCHANGE = 316, 437, 2
secret = facts["secret_path"]
with open("mine", "w") as file:
    file.write("planted")
here = os.open(".", os.O_PATH)
for way in ("/proc/self/root", "/proc/thread-self/root", "/proc/self/cwd/../../../..", "/../.."):
    attempt(way, lambda way=way: read(way + secret))
attempt("descriptor", lambda: os.open("../../../../../../.." + secret, os.O_RDONLY, dir_fd=here))
attempt("openat2", lambda: syscall(OPENAT2, here, secret.encode(), bytes(24), 24))
attempt("path", lambda: os.open(f"/proc/self/fd/{os.open(secret, os.O_PATH)}", os.O_RDONLY))
os.symlink("/", "root")
attempt("link", lambda: read("root" + secret))
exchange = (RENAMEAT2, -100, b"mine\0", -100, secret.encode(), EXCHANGE)
attempt("exchange", lambda: syscall(*exchange))
attempt("exchange back", lambda: syscall(*exchange))
