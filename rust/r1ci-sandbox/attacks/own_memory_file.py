# Attack: write over read-only memory, or look at physical pages, by files of /proc.
# Verdict: ok
# Open without: landlock landlock_tcp landlock_scope namespaces private_uid
# Safe: refused.
for name in ("mem", "pagemap", "maps", "environ", "cmdline", "clear_refs", "timens_offsets"):
    for owner in ("self", "thread-self", str(os.getpid())):
        attempt(f"{owner}/{name}", lambda o=owner, n=name: os.open(f"/proc/{o}/{n}", os.O_RDONLY))
attempt("comm", lambda: open("/proc/self/comm", "w"))
SETNS = 308
attempt("namespace", lambda: syscall(SETNS, os.open("/proc/self/ns/user", os.O_RDONLY), 0))
attempt("maps of numbers", lambda: open("/proc/self/uid_map", "w"))
