"""What exists on this machine because of this process, counted by name before and after.

Folders of control groups count as files once all is closed; before, they are kept for reuse.
"""

import gc
import os
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path


def descendants() -> dict[int, int]:
    """Living processes below this one and their parents; zombies are nobody's any more."""
    below: dict[int, int] = {}
    todo = [os.getpid()]
    while todo:
        parent = todo.pop()
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                for child in map(int, children.read_text().split()):
                    if _alive(child):
                        below[child] = parent
                        todo.append(child)
    return below


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def _kind(name: str) -> str:
    """A name without the numbers that differ from one thing of its kind to the next."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "#", name)


def rss_mb() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass
class State:
    """What exists, by name where it has one."""

    processes: Counter[str]
    descriptors: Counter[str]
    mounts: Counter[str]
    files: Counter[str]
    shm: Counter[str]

    @classmethod
    def take(cls, folder: Path, *, below: bool) -> "State":
        """With `below`, the descriptors and mounts of all descendants as well."""
        lower = descendants()
        pids = [os.getpid(), *(lower if below else ())]
        descriptors: Counter[str] = Counter()
        mounts: Counter[str] = Counter()
        for pid in pids:
            with suppress(OSError):
                for link in list(Path(f"/proc/{pid}/fd").iterdir()):
                    with suppress(OSError):
                        target = os.readlink(link)
                        if not (below and target.endswith("/cgroup.procs")):  # kept for reuse
                            descriptors[_kind(target)] += 1
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
                    mounts[line.split()[4]] += 1
        files = Counter(_kind(str(path)) for path in folder.rglob("*"))
        files.update(str(path) for path in Path("/tmp").glob("r1ci-attack*"))
        shm: Counter[str] = Counter()
        if not below:
            groups = Path("/sys/fs/cgroup").rglob(f"r1ci-sandbox-{os.getpid()}-*")
            files.update(str(path) for path in groups)
            shm.update(str(path) for path in Path("/dev/shm").iterdir())
            for kind in ("shm", "msg", "sem"):
                with suppress(OSError):
                    rows = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
                    shm.update(f"{kind} {row.split()[1]}" for row in rows)
        processes = Counter({"process": len(lower)})
        return cls(processes, descriptors, mounts, files, shm)

    def since(self, before: "State") -> dict[str, Counter[str]]:
        names = [item.name for item in fields(self)]
        return {name: getattr(self, name) - getattr(before, name) for name in names}


def new_since(before: State, folder: Path, *, below: bool) -> dict[str, Counter[str]]:
    """What is new, once it stops shrinking: the end of a process takes a moment to be seen."""
    for _ in range(100):
        new = State.take(folder, below=below).since(before)
        if not any(new.values()):
            break
        time.sleep(0.05)
    return new
