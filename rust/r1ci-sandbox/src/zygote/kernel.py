"""What the warm interpreter asks of the kernel by number: constants and thin wrappers.

Nothing here decides anything. Numbers of system calls differ between machines and come from the
supervisor (`settle`), all other constants are the same everywhere.
"""

import ctypes
import os

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 2, -100, 0x8000, 1, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_CAPBSET_DROP = 1, 4, 15, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_GET_TID_ADDRESS, PR_CAP_AMBIENT = 36, 38, 40, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
SECCOMP_SET_MODE_FILTER, MADV_COLLAPSE = 1, 25

# Calls keep the interpreter's lock: the zygote has one thread, and a child must be born with it.
libc = ctypes.PyDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

numbers = {}
"""System call numbers by name, as the supervisor gave them."""


def syscall(name, *arguments):
    """The result of a system call, or OSError naming it."""
    return checked(libc.syscall(ctypes.c_long(numbers[name]), *arguments), name)


def checked(result, what):
    """`result` of a C call, or OSError naming `what` when it is negative."""
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result


def prctl(option, *arguments):
    words = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return libc.prctl(ctypes.c_int(option), *words)


def mount(source, target, kind, flags, options=None):
    encoded = [None if part is None else part.encode() for part in (source, target, kind, options)]
    made = libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    checked(made, f"mount `{target}`")


def read_at(folder, name):
    handle = os.open(name, os.O_RDONLY, dir_fd=folder)
    with open(handle, encoding="utf-8", errors="replace") as file:
        return file.read()
