"""The zygote's life: prepare, then fork children for ever, with the native half doing the work.

Any number of children live at once. The script itself goes past the zygote, in a memory file that
only the child reads. When the supervisor goes away, the zygote ends and takes its children along.
"""

import _signal
import ctypes
import json
import os
import shutil
import signal
import socket
import struct

from r1ci_zygote import kernel
from r1ci_zygote.kernel import read_at
from r1ci_zygote.load import control, library
from r1ci_zygote.prepare import WORK, prepare
from r1ci_zygote.script import run_script, seed_generators
from r1ci_zygote.settings import complete, find_fork, first_settings

CHILD, LEAVE = 0, 1  # what the native half returns; anything else asks for a sweep
CODE, FILES = 3, 5  # descriptors at which a child finds its source and its archive of files
LENT = 2**63  # numbers of lent work folders are below


def become_script(settings, scratch):
    """In a child, with the jail up: read the source and run it."""
    # The module's own functions, because those of `signal` look every number up in an enumeration.
    _signal.set_wakeup_fd(-1)
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    if settings.slot < LENT:
        folder = f"{scratch}/{WORK}{settings.slot}"
        os.environ["HOME"] = os.environ["TMPDIR"] = folder
        os.chdir(folder)
    source = os.pread(CODE, settings.code_bytes, 0)
    os.close(CODE)
    if settings.files_bytes:
        with open(FILES, "rb") as archive:
            unpack(archive)
    seed_generators(settings.seed)
    run_script(source, settings.remark)


def unpack(archive):
    """Make the files that came with the request: lengths of name and contents, then these."""
    while head := archive.read(12):
        name_bytes, size = struct.unpack("<IQ", head)
        path = archive.read(name_bytes)
        if b"/" in path:
            os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb", buffering=0) as file:
            while size:
                size -= file.write(archive.read(min(size, 1 << 20)))


def sweep(proc, living):
    """Kill and reap what executions left behind; with the filter in force there is nothing."""
    own = os.getpid()
    while True:
        children = map(int, read_at(proc, f"{own}/task/{own}/children").split())
        left = [pid for pid in children if pid not in living]
        if not left:
            return
        for pid in left:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def leave(config, living):
    """The supervisor is gone: take the children and the work folders along."""
    for pid in living:
        os.kill(pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
        os.waitpid(pid, 0)
    if not config["namespaces"]:
        shutil.rmtree(config["scratch"], ignore_errors=True)
    os._exit(0)


def living_children():
    numbers = (ctypes.c_int * 1024)()
    return set(numbers[: library.r1ci_children(numbers, ctypes.c_size_t(len(numbers)))])


def main():
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    config = json.loads(control.recv(1 << 20))
    kernel.numbers.update(config["syscalls"])
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    wake, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(bell)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        facts = prepare(config, proc)
        settings = first_settings(config, control.fileno(), wake, proc)
        find_fork(library, settings)
        only_named = os.O_PATH if config["own_namespaces"] else os.O_RDONLY
        scratch = os.open(".", only_named | os.O_DIRECTORY)
    except Exception as error:
        control.send(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    socket.send_fds(control, [json.dumps(facts).encode()], [scratch])
    os.close(scratch)
    jail = json.loads(control.recv(1 << 20))
    os.dup2(null, 2)
    os.close(null)
    complete(settings, jail, facts["virtual_bytes"])
    address = ctypes.byref(settings)
    while True:
        event = library.r1ci_serve(address)
        if event == CHILD:
            break
        if event == LEAVE:
            leave(config, living_children())
        sweep(proc, living_children())
    become_script(settings, config["scratch"])


main()
