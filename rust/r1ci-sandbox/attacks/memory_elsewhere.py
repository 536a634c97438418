# Attack: memory in files without a name, in System V segments, in /dev/shm: no limit counts it and
# some of it outlives its maker.
# Verdict: ok
# Open without: seccomp
# Safe: refused.
from multiprocessing import shared_memory

SHMGET, MSGGET, SEMGET, MEMFD_SECRET, MLOCK, MLOCKALL = 29, 68, 64, 447, 149, 151
attempt("memfd", lambda: os.memfd_create("hoard"))
attempt("memfd_secret", lambda: syscall(MEMFD_SECRET, 0))
attempt("shmget", lambda: syscall(SHMGET, 0, 4096, 0o1600))
attempt("msgget", lambda: syscall(MSGGET, 0, 0o1600))
attempt("semget", lambda: syscall(SEMGET, 0, 1, 0o1600))
attempt("shared_memory", lambda: shared_memory.SharedMemory(create=True, size=4096))
attempt("/dev/shm", lambda: open("/dev/shm/r1ci-attack", "wb"))
attempt("mlock", lambda: syscall(MLOCK, id(facts) & ~4095, 4096))
attempt("mlockall", lambda: syscall(MLOCKALL, 1))
