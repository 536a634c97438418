"""Become a zygote: namespaces, user, imports, memory. Everything before the first child.

Trusted code. What the machine refuses raises OSError, and the supervisor tries a weaker
arrangement; what is in force in the end goes back to the supervisor, which judges it.
"""

import contextlib
import ctypes
import gc
import importlib
import io
import os
import resource
import signal
import site
import struct
import sys

from r1ci_zygote.kernel import (
    AT_FDCWD,
    AT_RECURSIVE,
    CAPABILITY_VERSION_3,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MADV_COLLAPSE,
    MNT_DETACH,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAPBSET_DROP,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    checked,
    libc,
    mount,
    prctl,
    read_at,
    syscall,
)

SCRIPT = "script.py"
WORK = "work"  # name of the work folder below the scratch folder, where each child has its own
ARENAS, ARENA_BYTES = 16, 1 << 20  # the interpreter takes memory from the kernel in arenas
IGNORED = {signal.SIGPIPE, signal.SIGXFSZ}  # as in any Python: the failing call raises

anchors = []
"""One block per arena, kept for ever."""


def outermost(paths):
    """`paths` that exist, without those that lie below another one."""
    kept = []
    for path in sorted(set(paths)):
        inside = any(path == root or path.startswith(root + "/") for root in kept)
        if not inside and os.path.exists(path):
            kept.append(path)
    return kept


def enter_namespaces(config, roots):
    """Leave the host's tree for one of our own: `roots` read-only, a capped work folder, no more.

    An ordinary user does it inside a user namespace in which it keeps its own number.
    """
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET
    if uid != 0:
        flags |= CLONE_NEWUSER
    checked(libc.unshare(flags), "unshare")
    if uid != 0:
        maps = ("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")
        for name, text in maps:
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # The new tree grows on top of /proc: every machine has that folder and no root lies below it.
    base = "/proc"
    mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
    for path in (*roots, *config["devices"]):
        if os.path.isdir(path):
            os.makedirs(base + path, 0o755, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(base + path), 0o755, exist_ok=True)
            os.close(os.open(base + path, os.O_CREAT | os.O_RDONLY, 0o644))
        mount(path, base + path, None, MS_BIND | MS_REC)
    scratch = base + config["scratch"]
    os.makedirs(f"{scratch}/{WORK}", 0o755)
    os.chmod(scratch, 0o111)  # to pass through, not to look at
    attributes = struct.pack("=4Q", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    size = ctypes.c_size_t(len(attributes))
    syscall("mount_setattr", AT_FDCWD, base.encode(), AT_RECURSIVE, attributes, size)
    # Children put folders of their own on top; imports may need one to write to before.
    folder = f"{scratch}/{WORK}" if config["own_namespaces"] else scratch
    owner = (uid, gid) if config["uid"] is None else (config["uid"], config["uid"])
    options = work_options(config) + f",uid={owner[0]},gid={owner[1]}"
    mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chdir(base)
    syscall("pivot_root", b".", b".")
    checked(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def work_options(config):
    """Mount options of a work folder: what caps its size and its number of files."""
    return f"mode=700,size={config['scratch_bytes']},nr_inodes={config['scratch_files']}"


def drop_privileges(config):
    """Give up the user, every capability and the way back to them."""
    checked(prctl(PR_SET_NO_NEW_PRIVS, 1), "no_new_privs")
    if os.getuid() == 0:
        for capability in range(64):
            prctl(PR_CAPBSET_DROP, capability)
    if config["uid"] is not None:
        os.setgroups([])
        os.setresgid(*[config["uid"]] * 3)
        os.setresuid(*[config["uid"]] * 3)
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    drop_capabilities()


def drop_capabilities():
    """Empty every capability set that a thread holds."""
    syscall("capset", struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))


def without_capabilities(proc):
    names = {"CapInh", "CapPrm", "CapEff", "CapAmb"}
    rows = [row.split(":\t") for row in read_at(proc, "self/status").splitlines()]
    return all(int(row[1], 16) == 0 for row in rows if row[0] in names)


def new_stdin():
    """Standard input, nothing of it read yet."""
    reader = io.BufferedReader(io.FileIO(0, closefd=False))
    return io.TextIOWrapper(reader, "utf-8", "surrogateescape")


def import_modules(config):
    for path in config["library_paths"]:
        if os.path.isdir(path):
            os.listdir(path)  # a folder that this user cannot enter must be noticed now
    for name in config["preload"]:
        importlib.import_module(name)
    with contextlib.suppress(Exception):  # another version of the library may lack a name
        exec(config["warm_up"], {"__name__": "warm_up"})


def spread_arenas():
    """Have the interpreter map a row of memory arenas now, side by side.

    Mapped one by one between the libraries that come later, they would lie scattered, and only
    whole 2 MiB stretches can be folded. One block stays in each, or it would be unmapped again.
    """
    blocks = [bytes(440) for _ in range(ARENAS * ARENA_BYTES // 512)]
    return blocks[:: ARENA_BYTES // 512]


def fold_heap(proc):
    """Freeze the heap and fold it into huge pages where the kernel can: a fork then copies less."""
    gc.collect()
    gc.freeze()
    for row in read_at(proc, "self/maps").splitlines():
        fields = row.split(maxsplit=5)
        if fields[1] == "rw-p" and (len(fields) == 5 or fields[5] == "[heap]"):
            start, end = (int(part, 16) for part in fields[0].split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), MADV_COLLAPSE)


def prepare(config, proc):
    """Everything before the first fork. Returns what is in force, for the supervisor to judge."""
    os.setsid()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) == signal.SIG_IGN and number not in IGNORED:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the caller may ignore it
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # or block what it likes
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # one for each living child
    os.umask(0o022)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # if the machine runs dry, scripts go first
    interpreter = [path for path in sys.path if os.path.exists(path)]
    roots = [*config["roots"], *config["library_paths"], *interpreter, sys.base_prefix + "/lib"]
    roots = outermost([*roots, *map(os.path.realpath, roots)])
    if config["namespaces"]:
        enter_namespaces(config, roots)
    os.umask(0o077)
    drop_privileges(config)
    checked(prctl(PR_SET_CHILD_SUBREAPER, 1), "subreaper")
    checked(prctl(PR_SET_DUMPABLE, 0), "dumpable")
    checked(prctl(PR_SET_PDEATHSIG, signal.SIGTERM), "pdeathsig")
    if os.getppid() != config["parent"]:
        os._exit(0)
    sys.path[:] = [*interpreter, *config["library_paths"]]
    sys.dont_write_bytecode = True
    sys.argv = [SCRIPT]
    site.setquit()
    site.sethelper()
    sys.stdin = sys.__stdin__ = new_stdin()
    anchors.extend(spread_arenas())
    import_modules(config)
    if len(os.listdir(os.open("self/task", os.O_RDONLY, dir_fd=proc))) != 1:
        raise RuntimeError("a preloaded module started a thread, and forking would lose it")
    os.chdir(config["scratch"])
    fold_heap(proc)
    size, resident = read_at(proc, "self/statm").split()[:2]
    layers = ["no_new_privs", "rlimits"]
    layers += ["no_capabilities"] * without_capabilities(proc)
    layers += ["private_uid"] * (config["uid"] is not None)
    layers += ["namespaces"] * config["namespaces"]
    layers += ["own_namespaces"] * config["own_namespaces"]
    return {
        "layers": layers,
        "roots": roots,
        "virtual_bytes": int(size) * resource.getpagesize(),
        "resident_bytes": int(resident) * resource.getpagesize(),
        "python": sys.version.split()[0],
        "stdlib": os.path.dirname(os.__file__),
    }
