"""Other places to run the sandbox in: as an ordinary user, and as in a container.

`command` gives what runs a program in such a place: a fresh interpreter that turns into the user,
puts on a filter such as container engines use, and then executes the program.
"""

import ctypes
import functools
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = 61_848
"""The ordinary user that root turns into; nobody has that number."""
NAMESPACE_FLAGS = 0x7E02_0000
"""All of clone's flags that ask for a namespace."""
UNSHARE, SETNS, CLONE, CLONE3 = (
    (272, 308, 56, 435) if platform.machine() == "x86_64" else (97, 268, 220, 435)
)
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
CLONE_NEWNS = 0x20000


@dataclass(frozen=True)
class Lane:
    """A place to run the sandbox in."""

    name: str
    as_user: bool
    in_container: bool

    def missing(self) -> str | None:
        """Why it cannot be had here; None if it can."""
        if not self.as_user or os.geteuid() != 0:
            return None
        return _no_way_in()

    @contextmanager
    def command(self, *arguments: str) -> Iterator[tuple[list[str], dict[str, str]]]:
        """Arguments and environment that run Python there, with a temporary folder of its own."""
        folder = Path(tempfile.mkdtemp(prefix="r1ci-lane-"))
        turns = self.as_user and os.geteuid() == 0
        try:
            if turns:
                os.chown(folder, USER, USER)
            environment = {
                **os.environ,
                "HOME": str(folder),
                "TMPDIR": str(folder),
                "USER": "lane",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            place = [__file__, str(int(turns)), str(int(self.in_container))]
            yield [sys.executable, *place, *arguments], environment
        finally:
            shutil.rmtree(folder, ignore_errors=True)


ROOT = Lane("as it is", as_user=False, in_container=False)
CONTAINER = Lane("container", as_user=False, in_container=True)
PLAIN_USER = Lane("ordinary user", as_user=True, in_container=False)
USER_IN_CONTAINER = Lane("ordinary user in a container", as_user=True, in_container=True)


@functools.cache
def _no_way_in() -> str | None:
    """Why an ordinary user could not start this interpreter; None if it could."""
    trial = [sys.executable, __file__, "1", "0", "-c", "pass"]
    done = subprocess.run(trial, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    error = done.stderr.strip().splitlines()[-1:]
    return f"no ordinary user can start `{sys.executable}`: {''.join(error)}"


def _call(name: str, *arguments: bytes | int | None) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_ulong(a) if isinstance(a, int) else a for a in arguments]
    if libc[name](*words) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _become_user() -> None:
    """Turn into the ordinary user; what it needs of folders closed to it is mounted open."""
    needed = {Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[1]}
    closed: dict[Path, list[Path]] = {}
    for path in sorted(path.resolve() for path in needed):
        shut = [folder for folder in reversed(path.parents) if not folder.stat().st_mode & 1]
        if shut:
            closed.setdefault(shut[0], []).append(path)
    if closed:
        _call("unshare", CLONE_NEWNS)
        _call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)
    for folder, paths in closed.items():
        handles = [os.open(path, os.O_PATH) for path in paths]
        _call("mount", b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"mode=755")
        for path, handle in zip(paths, handles, strict=True):
            path.mkdir(parents=True, exist_ok=True)
            source = os.fsencode(f"/proc/self/fd/{handle}")
            _call("mount", source, os.fsencode(path), None, MS_BIND | MS_REC, None)
            os.close(handle)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)


def _refuse_namespaces() -> None:
    """No `unshare`, `setns` or `clone` with namespaces; no `clone3`, whose flags are hidden."""
    load, equal, any_bit, end = 0x20, 0x15, 0x45, 0x06
    allowed, refused, absent = 0x7FFF_0000, 0x5_0000 | 1, 0x5_0000 | 38
    steps = [
        (load, 0, 0, 0),
        (equal, 6, 0, UNSHARE),
        (equal, 5, 0, SETNS),
        (equal, 5, 0, CLONE3),
        (equal, 0, 2, CLONE),
        (load, 0, 0, 16),
        (any_bit, 1, 0, NAMESPACE_FLAGS),
        (end, 0, 0, allowed),
        (end, 0, 0, refused),
        (end, 0, 0, absent),
    ]
    body = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(body))
    _call("prctl", 38, 1, 0, 0, 0)
    _call("prctl", 22, 2, program)


def _enter(as_user: bool, in_container: bool, arguments: Sequence[str]) -> None:
    if as_user:
        _become_user()
    if in_container:
        _refuse_namespaces()
    os.chdir(Path(__file__).resolve().parents[1])
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    _enter(sys.argv[1] == "1", sys.argv[2] == "1", sys.argv[3:])
