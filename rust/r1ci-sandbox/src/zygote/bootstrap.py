"""The warm interpreter: shut itself in, import what scripts need, then fork one child per script.

Runs as `python -c` with a control socket as standard input; all it is told comes over that socket
from the supervisor (`zygote.rs` has the other half). It is trusted code, it stays single-threaded,
and it never sees a script: the source goes to the child in a memory file. What a child does to
itself once the jail is up is the child's own affair; nothing a child writes is believed here.
"""

import atexit
import builtins
import contextlib
import ctypes
import gc
import importlib
import importlib.machinery
import io
import json
import os
import random
import resource
import select
import shutil
import signal
import site
import socket
import struct
import sys
import threading
import traceback
import types

SCRIPT = "script.py"
NORMAL_END = b"script ended"  # name a child takes when its script ran to its end
MEMORY_SIGNAL = 64  # SIGRTMAX: the death of a child that ended in an unhandled MemoryError
REPORT_BYTES = 16 << 20  # kept back so that a MemoryError can still be reported
REQUEST = struct.Struct("=6Q")  # seed, memory, file size, open files, CPU seconds, threads
FORKED = struct.Struct("=ci")
EXITED = struct.Struct("=ciddQ?")

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 0x1000, 0x4000, 0x40000
MNT_DETACH, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 2, -100, 0x8000, 1, 2
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_CAPBSET_DROP = 1, 4, 15, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 36, 38, 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
CAPABILITY_VERSION_3 = 0x20080522
SECCOMP_SET_MODE_FILTER, MADV_COLLAPSE = 1, 25

# Bound here because a script may put anything in their places before its process ends.
end_process, kill_process, own_number = os._exit, os.kill, os.getpid
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


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


# ---- start: namespaces, user, imports, memory ------------------------------------------------


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
    os.makedirs(scratch, 0o755, exist_ok=True)
    attributes = struct.pack("=4Q", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    number = ctypes.c_long(config["syscalls"]["mount_setattr"])
    sealed = libc.syscall(
        number, AT_FDCWD, base.encode(), AT_RECURSIVE, attributes, ctypes.c_size_t(len(attributes))
    )
    checked(sealed, "mount_setattr")
    owner = (uid, gid) if config["uid"] is None else (config["uid"], config["uid"])
    options = f"mode=700,size={config['scratch_bytes']},nr_inodes={config['scratch_files']}"
    options += f",uid={owner[0]},gid={owner[1]}"
    mount("tmpfs", scratch, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, options)
    os.chdir(base)
    number = ctypes.c_long(config["syscalls"]["pivot_root"])
    checked(libc.syscall(number, b".", b"."), "pivot_root")
    checked(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


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
    header = struct.pack("=Ii", CAPABILITY_VERSION_3, 0)
    number = ctypes.c_long(config["syscalls"]["capset"])
    checked(libc.syscall(number, header, bytes(24)), "capset")


def without_capabilities(proc):
    names = {"CapInh", "CapPrm", "CapEff", "CapAmb"}
    rows = [row.split(":\t") for row in read_at(proc, "self/status").splitlines()]
    return all(int(row[1], 16) == 0 for row in rows if row[0] in names)


def read_at(proc, name):
    handle = os.open(name, os.O_RDONLY, dir_fd=proc)
    with open(handle, encoding="utf-8", errors="replace") as file:
        return file.read()


def import_modules(config):
    for path in config["library_paths"]:
        if os.path.isdir(path):
            os.listdir(path)  # a folder that this user cannot enter must be noticed now
    for name in config["preload"]:
        importlib.import_module(name)


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
        if signal.getsignal(number) == signal.SIG_IGN and number != signal.SIGPIPE:
            signal.signal(number, signal.SIG_DFL)
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
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape"
    )
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
    return {
        "layers": layers,
        "roots": roots,
        "virtual_bytes": int(size) * resource.getpagesize(),
        "resident_bytes": int(resident) * resource.getpagesize(),
        "python": sys.version.split()[0],
        "stdlib": os.path.dirname(os.__file__),
    }


# ---- in the child: the jail, then the script ---------------------------------------------------


def lower(name, soft, hard):
    """Set a limit, or keep the one the caller already lives under if that is lower."""
    ceiling = resource.getrlimit(name)[1]
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(name, (soft, hard))


class Jail:
    """What every child puts on before it reads the script."""

    def __init__(self, settings, ruleset, syscalls, virtual_bytes):
        self.ruleset = ruleset
        self.parent = os.getpid()
        self.virtual_bytes = virtual_bytes
        self.counts_threads = settings["counts_threads"]
        self.landlock_flags = ctypes.c_uint32(settings["landlock_flags"])
        self.landlock = ctypes.c_long(syscalls["landlock_restrict_self"])
        self.seccomp = ctypes.c_long(syscalls["seccomp"])
        self.programs = []
        for text in settings["filters"]:
            code = bytes.fromhex(text)
            address = ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p).value
            self.programs.append((code, struct.pack("@HP", len(code) // 8, address)))

    def put_on(self, memory, file_bytes, open_files, cpu_seconds, threads):
        os.setsid()
        checked(prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "pdeathsig")
        if os.getppid() != self.parent:
            os._exit(1)
        limits = [
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MEMLOCK, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
            (resource.RLIMIT_FSIZE, file_bytes),
            (resource.RLIMIT_NOFILE, open_files),
            (resource.RLIMIT_CPU, cpu_seconds),
        ]
        if self.counts_threads:
            limits.append((resource.RLIMIT_NPROC, threads + 1))  # the zygote itself is one
        for name, value in limits:
            lower(name, value, value)
        space = self.virtual_bytes + memory
        lower(resource.RLIMIT_AS, space, space + REPORT_BYTES)
        if self.ruleset is not None:
            checked(
                libc.syscall(self.landlock, ctypes.c_int(self.ruleset), self.landlock_flags),
                "landlock_restrict_self",
            )
            os.close(self.ruleset)
        for _, program in self.programs:
            checked(libc.syscall(self.seccomp, SECCOMP_SET_MODE_FILTER, 0, program), "seccomp")


class ScriptLoader:
    """Lets tracebacks show the lines of a script that is in no file."""

    def __init__(self, source):
        self.source = source

    def get_source(self, _name):
        return self.source.decode("utf-8", "replace")


class NumpySeeder:
    """Seeds numpy's global generator when a script imports it for the first time."""

    def __init__(self, seed):
        self.seed = seed

    def find_spec(self, name, path=None, target=None):
        if name != "numpy.random":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                module.seed(self.seed)

            spec.loader.exec_module = exec_module
        return spec


def seed_generators(seed):
    random.seed(seed)
    numpy_seed = seed % 2**32
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed(numpy_seed)
    else:
        sys.meta_path.insert(0, NumpySeeder(numpy_seed))


def report(error):
    """Print an unhandled exception as Python would, without the frames of this file."""
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    if sys.excepthook is sys.__excepthook__:
        traceback.print_exception(error)
    else:
        sys.excepthook(type(error), error, error.__traceback__)


def exit_status(code):
    """The status of `sys.exit(code)`, by the interpreter's own rules."""
    if code is None:
        return 0
    if isinstance(code, int):
        return int(code) & 0xFF
    sys.stderr.write(f"{code}\n")
    return 1


def quietly(action, *arguments):
    """Run a step of the ending; a script may have broken anything that the step needs."""
    try:
        action(*arguments)
    except BaseException as error:
        try:
            report(error)
        except BaseException:
            return


def clear_names(names):
    """Let go of a script's objects in the interpreter's order, so that files are flushed."""
    for private in (True, False):
        for name in list(names):
            if name != "__builtins__" and (name[:1] == "_" and name[:2] != "__") == private:
                names[name] = None


def run_script(source):
    """Run `source` as `__main__`, end as the interpreter would, and never return."""
    module = types.ModuleType("__main__")
    module.__builtins__ = builtins
    module.__file__ = SCRIPT
    module.__loader__ = ScriptLoader(source)
    sys.modules["__main__"] = module
    status, compiled, out_of_memory = 0, False, False
    try:
        program = compile(source, SCRIPT, "exec", dont_inherit=True)
        compiled = True
        exec(program, module.__dict__)
    except SystemExit as error:
        status = exit_status(error.code)
    except BaseException as error:
        status = 1
        out_of_memory = compiled and isinstance(error, MemoryError)
        if out_of_memory:
            hard = resource.getrlimit(resource.RLIMIT_AS)[1]
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        quietly(report, error)
    quietly(threading._shutdown)
    quietly(atexit._run_exitfuncs)
    quietly(clear_names, module.__dict__)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    if out_of_memory:
        with contextlib.suppress(OSError):
            kill_process(own_number(), MEMORY_SIGNAL)
    libc.prctl(PR_SET_NAME, NORMAL_END, 0, 0, 0)
    end_process(status)


def run_child(message, handles, jail):
    """Take the streams, drop every other descriptor, put on the jail, run the script."""
    status = handles[4]
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for target, handle in enumerate(handles[1:4]):
            os.dup2(handle, target)
        code = handles[0]
        source = os.pread(code, os.fstat(code).st_size, 0)
        kept = sorted({status} if jail.ruleset is None else {status, jail.ruleset})
        for low, high in zip([2, *kept], [*kept, 2**31 - 1], strict=True):
            os.closerange(low + 1, high)
        seed, *limits = REQUEST.unpack(message)
        seed_generators(seed)
        jail.put_on(*limits)
        os.write(status, b"S")
        os.close(status)
    except BaseException as error:
        os.write(status, f"E{type(error).__name__}: {error}".encode()[:2000])
        os._exit(1)
    run_script(source)


# ---- the serving loop ------------------------------------------------------------------------


def sweep(proc, private_uid):
    """Kill and reap whatever an execution left behind; with seccomp in force there is nothing."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if private_uid:
                os.kill(-1, signal.SIGKILL)
            own = os.getpid()
            for child in read_at(proc, f"{own}/task/{own}/children").split():
                os.kill(int(child), signal.SIGKILL)
            os.waitpid(-1, 0)


def leave(config, child):
    """The supervisor is gone: take the running child and the work folder along."""
    if child is not None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if not config["namespaces"]:
        shutil.rmtree(config["scratch"], ignore_errors=True)
    os._exit(0)


def serve(control, config, proc, jail):
    wake, bell = os.pipe2(os.O_NONBLOCK)
    signal.set_wakeup_fd(bell)
    signal.signal(signal.SIGTERM, lambda *_: None)
    idle = select.poll()
    idle.register(control, select.POLLIN)
    idle.register(wake, select.POLLIN)
    while True:
        idle.poll()
        if select.select([wake], [], [], 0)[0]:
            leave(config, None)
        message, handles, _, _ = socket.recv_fds(control, REQUEST.size, 5)
        if len(message) != REQUEST.size or len(handles) != 5:
            leave(config, None)
        pid = os.fork()
        if pid == 0:
            run_child(message, handles, jail)
        pidfd = os.pidfd_open(pid)
        socket.send_fds(control, [FORKED.pack(b"F", pid)], [pidfd])
        for handle in handles:
            os.close(handle)
        busy = select.poll()
        for handle in (pidfd, control.fileno(), wake):
            busy.register(handle, select.POLLIN)
        if any(ready != pidfd for ready, _ in busy.poll()):
            leave(config, pid)
        ended = read_at(proc, f"{pid}/comm").rstrip("\n").encode() == NORMAL_END
        _, status, usage = os.wait4(pid, 0)
        os.close(pidfd)
        sweep(proc, config["uid"] is not None)
        control.send(
            EXITED.pack(b"X", status, usage.ru_utime, usage.ru_stime, usage.ru_maxrss, ended)
        )


def main():
    os.dup2(0, 3, inheritable=False)
    os.closerange(4, 2**31 - 1)  # whatever the caller's libraries let through
    control = socket.socket(fileno=3)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    config = json.loads(control.recv(1 << 20))
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        facts = prepare(config, proc)
        scratch = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    socket.send_fds(control, [json.dumps(facts).encode()], [scratch])
    os.close(scratch)
    message, handles, _, _ = socket.recv_fds(control, 1 << 20, 1)
    ruleset = handles[0] if handles else None
    settings = json.loads(message)
    jail = Jail(settings, ruleset, config["syscalls"], facts["virtual_bytes"])
    os.dup2(null, 2)
    serve(control, config, proc, jail)


main()
