"""Runs untrusted Python behind the kernel's own fences: the face of the Rust crate `r1ci-sandbox`.

Every script gets a fresh child of a warm interpreter, with Landlock, a system-call filter, resource
limits, an own user and an own file tree as far as the machine allows; `Sandbox.layers` says which,
`required` refuses to start below a level. Scripts see the packages of this environment and nothing
else of the machine. They keep no state, start no processes and reach no network; sessions are not
offered. Invariant: a verdict comes from the kernel, never from what a script printed. No torch.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from r1ci_engine._rust import Supervisor, landlock_abi
from r1ci_engine.config import LAYERS
from r1ci_engine.errors import SandboxError


class ExitReason(StrEnum):
    """Why an execution ended."""

    OK = "ok"
    """Exit status 0."""
    ERROR = "error"
    """Any other exit status, such as 1 for an unhandled exception."""
    TIMEOUT = "timeout"
    """Stopped at the wall limit."""
    CPU_LIMIT = "cpu_limit"
    """Stopped at the CPU limit."""
    MEMORY_LIMIT = "memory_limit"
    """Ended for want of memory: an unhandled MemoryError, or a death at the limit."""
    OUTPUT_LIMIT = "output_limit"
    """Stopped after a flood of output (256 MiB), far beyond what is kept."""
    KILLED = "killed"
    """Died of a signal."""
    REFUSED = "refused"
    """Killed by the system-call filter, or not started because the request is too large."""
    INFRASTRUCTURE = "infrastructure"
    """The sandbox failed, not the script: no verdict on the code."""


@dataclass(frozen=True)
class Limits:
    """Bounds of one execution. All must be above zero; SandboxError otherwise."""

    cpu_s: float = 10.0
    """CPU seconds of all threads together; the limit that counts, as a busy machine cannot use it
    up."""
    wall_s: float = 20.0
    """Wall seconds, behind the CPU limit."""
    memory_mb: int = 512
    """Memory beyond the warm interpreter's own, in MiB."""
    output_bytes: int = 65536
    """Bytes kept of each stream: its first half and its last half."""
    file_mb: int = 16
    """Largest file the script may write, in MiB."""
    threads: int = 16
    """Threads at once, the main one included."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise SandboxError(
                    f"limit `{limit.name}` is `{value}`", hint="limits must be above zero"
                )


@dataclass(frozen=True)
class ExecutionRequest:
    """One script to run."""

    code: str
    stdin: str = ""
    """What the script reads from standard input, then end of file."""
    seed: int = 0
    """Seeds `random` and numpy's global generator; any integer, taken modulo 2**64."""
    limits: Limits | None = None
    """None: the sandbox's own."""


@dataclass(frozen=True)
class ExecutionResult:
    """What came of a script. Output is data; everything else is the kernel's word."""

    stdout: str
    """Invalid UTF-8 replaced. If bytes were dropped, they are missing at `stdout_cut`."""
    stderr: str
    """The same; paths of this machine's libraries are shortened to their last part."""
    exit_reason: ExitReason
    exit_code: int | None
    """None unless the process exited by itself."""
    signal: int | None
    """The signal it died of, unless the sandbox sent it."""
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    """Largest resident memory in MiB, the warm interpreter's share included."""
    stdout_dropped: int
    """Bytes cut out of the middle."""
    stderr_dropped: int
    layers: tuple[str, ...]
    """Protections that were in force."""
    detail: str
    """A remark for people; empty when there is nothing to say."""
    stdout_cut: int
    """Where in `stdout` (in characters) the dropped bytes are missing; its length if none are."""
    stderr_cut: int


class Sandbox:
    """Warm interpreters ready for scripts. A context manager; threads may share it.

    A fork of the process cannot use it and gets SandboxError; it may start its own.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        limits: Limits | None = None,
        required: Sequence[str] = (),
        preload: Sequence[str] = (),
        read_only: Sequence[str] = (),
    ) -> None:
        """Start `workers` interpreters (None: one per core), with `preload` imported once.

        `limits` is for requests that bring none (None: `Limits()`); `read_only` names further files
        and folders that scripts may read. Raises SandboxError when a layer in `required` is not in
        force here, or no interpreter comes up.
        """
        if not sys.executable:
            raise SandboxError(
                "this process does not know its Python interpreter",
                hint="run under an ordinary `python`, not embedded in another program",
            )
        self._supervisor = Supervisor(
            python=sys.executable,
            library_paths=_library_paths(),
            read_only=[os.path.realpath(path) for path in read_only],
            preload=list(preload),
            workers=0 if workers is None else workers,
            limits=limits or Limits(),
            required=list(required),
        )
        self.layers: tuple[str, ...] = tuple(self._supervisor.layers)

    def run(
        self, code: str, *, stdin: str = "", seed: int = 0, limits: Limits | None = None
    ) -> ExecutionResult:
        """Run one script and wait for it. A failing script is a result, not an exception."""
        return self.run_many([ExecutionRequest(code, stdin, seed, limits)])[0]

    def run_many(self, requests: Sequence[ExecutionRequest]) -> list[ExecutionResult]:
        """Run scripts side by side; results in the order of the requests."""
        return [_result(raw) for raw in self._supervisor.run_many([_raw(r) for r in requests])]

    def submit(self, request: ExecutionRequest) -> int:
        """Queue a script; `collect` returns its result under the ticket given here."""
        return self._supervisor.submit(_raw(request))

    def collect(self, timeout_s: float) -> list[tuple[int, ExecutionResult]]:
        """Submitted scripts that have finished, each once, in the order they finished.

        Waits up to `timeout_s` for the first one, and not at all when none is under way.
        """
        return [(ticket, _result(raw)) for ticket, raw in self._supervisor.collect(timeout_s)]

    def close(self) -> None:
        """Kill what is running and end all interpreters. What was queued is not run."""
        self._supervisor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def probe() -> dict[str, Any]:
    """What this machine offers, found out by starting one interpreter. JSON-able; never raises."""
    facts: dict[str, Any] = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "root": os.geteuid() == 0,
        "landlock_abi": landlock_abi(),
    }
    try:
        with Sandbox(workers=1) as sandbox:
            supervisor = sandbox._supervisor
            facts |= {
                "layers": list(sandbox.layers),
                "missing": [layer for layer in LAYERS if layer not in sandbox.layers],
                "reasons": supervisor.shortfalls,
                "python": supervisor.python,
                "error": None,
            }
    except SandboxError as error:
        facts |= {"layers": [], "missing": list(LAYERS), "reasons": [], "error": error.message}
    return facts


def bench(
    count: int = 300, *, code: str = "print(1 + 1)", workers: int | None = None, **options: Any
) -> dict[str, Any]:
    """Latency of `count` executions one by one, then the rate of `count` side by side.

    `options` go to `Sandbox`. Raises SandboxError as that does, or when the script does not end
    well: the time of a failing script says nothing.
    """
    with Sandbox(workers=workers, **options) as sandbox:
        requests = [ExecutionRequest(code)] * count
        sandbox.run_many(requests[:20])
        walls = []
        for _ in range(count):
            begun = time.perf_counter()
            result = sandbox.run(code)
            walls.append(time.perf_counter() - begun)
            if result.exit_reason != ExitReason.OK:
                raise SandboxError(f"the script ended with `{result.exit_reason}`", result.stderr)
        begun = time.perf_counter()
        sandbox.run_many(requests)
        elapsed = time.perf_counter() - begun
        walls.sort()
        return {
            "code": code,
            "count": count,
            "cores": len(os.sched_getaffinity(0)),
            "workers": workers,
            "p50_ms": 1e3 * statistics.median(walls),
            "p95_ms": 1e3 * walls[int(0.95 * (count - 1))],
            "executions_per_s": count / elapsed,
            "layers": list(sandbox.layers),
        }


def _library_paths() -> list[str]:
    """Folders with installed packages; not the other entries of `sys.path`, such as a checkout."""
    kinds = ("site-packages", "dist-packages")
    return [p for p in sys.path if os.path.basename(p) in kinds and os.path.isdir(p)]


def _raw(request: ExecutionRequest) -> tuple[bytes, bytes, int, Limits | None]:
    # A lone surrogate is the script's mistake: it reaches the compiler, which says so.
    code = request.code.encode("utf-8", "surrogatepass")
    stdin = request.stdin.encode("utf-8", "surrogatepass")
    return code, stdin, request.seed % 2**64, request.limits


def _result(raw: dict[str, Any]) -> ExecutionResult:
    raw["exit_reason"] = ExitReason(raw["exit_reason"])
    return ExecutionResult(**raw)
