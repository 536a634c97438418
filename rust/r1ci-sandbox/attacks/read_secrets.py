# Attack: read what is not ours: the caller's files, accounts, the test's own secret.
# Verdict: ok
# Open without: landlock landlock_tcp landlock_scope namespaces private_uid
# Safe: refused, each.
attempt("secret", lambda: read(facts["secret_path"]))
for path in ("/etc/shadow", "/etc/passwd", "/etc/hostname", "/root/.bashrc", "/proc/1/environ"):
    attempt(path, lambda path=path: read(path))
for path in ("/", "/root", "/home", "/tmp", "/var", "/proc", "/sys", "/etc", ".."):
    attempt(f"list {path}", lambda path=path: os.listdir(path))
attempt("up and over", lambda: read("../../../../.." + facts["secret_path"]))
