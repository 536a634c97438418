"""What the native half (`native/`) needs to know, gathered once per zygote.

Everything that a child would otherwise compute is computed here: limits are lowered to the caller's
own, texts and filter programs are laid out in memory as the kernel takes them.
"""

import ctypes
import errno
import os
import resource
import struct

from r1ci_zygote.kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    PR_GET_TID_ADDRESS,
    SECCOMP_SET_MODE_FILTER,
    libc,
    syscall,
)
from r1ci_zygote.prepare import WORK, work_options

REPORT_BYTES = 16 << 20  # kept back so that a MemoryError can still be reported
LIMITS = (
    resource.RLIMIT_CORE,
    resource.RLIMIT_MEMLOCK,
    resource.RLIMIT_MSGQUEUE,
    resource.RLIMIT_SIGPENDING,
    resource.RLIMIT_FSIZE,
    resource.RLIMIT_NOFILE,
    resource.RLIMIT_CPU,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_AS,
)


class Settings(ctypes.Structure):
    """`Settings` of `native/`, field by field."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("control", "wake", "proc_folder", "own_namespaces")),
        *((name, ctypes.c_int) for name in ("counts_threads", "sweeps", "has_clone3")),
        ("landlock_flags", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("namespaces", "child_tid")),
        *((name, ctypes.c_uint64) for name in ("virtual_bytes", "report_bytes")),
        ("ceilings", ctypes.c_uint64 * len(LIMITS)),
        *((name, ctypes.c_char_p) for name in ("work", "work_options", "uid_map", "gid_map")),
        ("filters", ctypes.c_void_p * 3),
        *((name, ctypes.c_int) for name in ("code_file", "files_file")),
        *((name, ctypes.c_uint64) for name in ("seeds", "seed", "slot")),
        *((name, ctypes.c_uint64) for name in ("code_bytes", "files_bytes")),
        ("remark", ctypes.c_void_p),
    )


kept = []
"""Memory that settings point to."""


def filter_program(text):
    """Address of the kernel's description of a filter program; it stays where it is."""
    code = ctypes.create_string_buffer(bytes.fromhex(text), len(text) // 2)
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(code))
    program = ctypes.create_string_buffer(head, len(head))
    kept.extend((code, program))
    return ctypes.addressof(program)


def install_filter(text):
    """Put a filter on this process and all its children."""
    program = ctypes.c_void_p(filter_program(text))
    syscall("seccomp", SECCOMP_SET_MODE_FILTER, 0, program)


def ceiling(name):
    """The caller's own hard limit, which no child can exceed."""
    hard = resource.getrlimit(name)[1]
    return 2**64 - 1 if hard == resource.RLIM_INFINITY else hard


def first_settings(config, control, wake, proc):
    """All that is known before the supervisor has sent the jail."""
    address = ctypes.c_ulong(0)
    libc.prctl(PR_GET_TID_ADDRESS, ctypes.byref(address))
    own = config["own_namespaces"]
    return Settings(
        control=control,
        wake=wake,
        proc_folder=proc,
        own_namespaces=own,
        has_clone3=True,
        namespaces=(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC) * own,
        child_tid=address.value,
        report_bytes=REPORT_BYTES,
        ceilings=tuple(map(ceiling, LIMITS)),
        work=f"{config['scratch']}/{WORK}".encode(),
        work_options=work_options(config).encode(),
        uid_map=b"%d %d 1" % (os.getuid(), os.getuid()),
        gid_map=b"%d %d 1" % (os.getgid(), os.getgid()),
    )


def find_fork(library, settings):
    """See which way of forking works. Raises OSError if namespaces are wanted and refused."""
    reason = library.r1ci_try_fork(ctypes.byref(settings))
    if reason in (errno.ENOSYS, errno.EPERM):  # a container's filter may know only the old call
        settings.has_clone3 = False
        reason = library.r1ci_try_fork(ctypes.byref(settings))
    if reason:
        raise OSError(reason, f"fork: {os.strerror(reason)}")


def complete(settings, jail, virtual_bytes):
    """Take in what the supervisor has sent."""
    settings.virtual_bytes = virtual_bytes
    settings.counts_threads = jail["counts_threads"]
    settings.sweeps = jail["sweeps"]
    settings.landlock_flags = jail["landlock_flags"]
    for place, text in enumerate(jail["child_filters"]):
        settings.filters[place] = filter_program(text)
    for text in jail["zygote_filters"]:
        install_filter(text)
