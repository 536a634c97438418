"""Times one peer that is a Python library, from inside an interpreter that has it.

    PYTHON sandbox_peer_worker.py {sandlock|pydantic-monty} PYTHON_FOR_SCRIPTS

Started by `sandbox_peers.py`, several at once for throughput. First line out: `{"version": …}`.
Then a line in, `{"code", "right", "count", "seconds"}`, for a line out, `{"walls": […]}` in seconds
or `{"failure": text}`: at least `count` runs and at least `seconds` of them, every output checked.
Standard library only, besides the peer.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata


@contextmanager
def sandlock(python: str) -> Iterator[Callable[[str], str]]:
    """Landlock, seccomp and its own supervisor around one `python -c` per script."""
    library = import_module("sandlock")
    prefixes = [
        os.path.dirname(os.path.dirname(path)) for path in (python, os.path.realpath(python))
    ]
    readable = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/dev", "/proc", *prefixes]
    with tempfile.TemporaryDirectory() as folder:
        sandbox = library.Sandbox(
            fs_readable=[path for path in dict.fromkeys(readable) if os.path.exists(path)],
            fs_writable=[folder],
            cwd=folder,
            clean_env=True,
            env={"OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"},
            max_memory="2G",
            max_processes=16,
        )

        def run(code: str) -> str:
            result = sandbox.run([python, "-c", code], timeout=60)
            if not result.success:
                raise RuntimeError(f"{result.error} {result.stderr.decode()[-200:]}")
            return result.stdout.decode()

        yield run


@contextmanager
def monty(_python: str) -> Iterator[Callable[[str], str]]:
    """A fresh session of a warm worker per script."""
    library = import_module("pydantic_monty")
    with library.Monty(min_processes=1, max_processes=1) as pool:

        def run(code: str) -> str:
            printed = library.CollectString()
            with pool.checkout() as session:
                session.feed_run(code, print_callback=printed)
            return printed.output

        yield run


PEERS = {"sandlock": sandlock, "pydantic-monty": monty}


def timed(
    run: Callable[[str], str], code: str, right: str, count: int, seconds: float
) -> list[float]:
    """Seconds of each run. Raises ValueError when a run prints anything but `right`."""
    walls: list[float] = []
    stop = time.perf_counter() + seconds
    while len(walls) < count or time.perf_counter() < stop:
        begun = time.perf_counter()
        printed = run(code)
        walls.append(time.perf_counter() - begun)
        if printed != right:
            raise ValueError(f"printed {printed[:100]!r}, not {right!r}")
    return walls


def main() -> None:
    name, python = sys.argv[1:]
    with PEERS[name](python) as run:
        print(json.dumps({"version": metadata.version(name)}), flush=True)
        for line in sys.stdin:
            order = json.loads(line)
            try:
                answer = {"walls": timed(run, **order)}
            except Exception as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                answer = {"failure": lines[-1][:200]}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
