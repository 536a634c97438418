# Attack: change permissions, owner, times and attributes, which Landlock does not guard, of a file
# that the caller owns.
# Verdict: ok
# Open without: seccomp private_uid namespaces landlock landlock_tcp landlock_scope
# Safe: refused, each.
FCHMODAT2 = 452
secret = facts["secret_path"]
library = os.open(os.__file__, os.O_RDONLY)
attempt("chmod", lambda: os.chmod(secret, 0o644))
attempt("fchmod", lambda: os.fchmod(library, 0o644))
attempt("fchmodat2", lambda: syscall(FCHMODAT2, -100, secret.encode(), 0o644, 0))
attempt("chown", lambda: os.chown(secret, os.getuid(), -1))
attempt("utime", lambda: os.utime(secret))
attempt("setxattr", lambda: os.setxattr(secret, "user.planted", b"1"))
