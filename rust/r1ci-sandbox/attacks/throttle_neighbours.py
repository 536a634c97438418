# Attack: take CPU, memory or time from other processes by setting their limits and priorities.
# Verdict: ok
# Open without: landlock landlock_scope seccomp private_uid namespaces
# Safe: refused; a process may only lower its own.
import resource

for pid in (os.getppid(), facts["supervisor"]):
    limit = resource.RLIMIT_CORE
    attempt(f"limits {pid}", lambda pid=pid, limit=limit: resource.prlimit(pid, limit, (0, 0)))
    attempt(f"affinity {pid}", lambda pid=pid: os.sched_setaffinity(pid, os.sched_getaffinity(0)))
    attempt(f"priority {pid}", lambda pid=pid: os.setpriority(os.PRIO_PROCESS, pid, 0))
