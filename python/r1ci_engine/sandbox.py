"""Runs untrusted Python behind the kernel's own fences: the face of the Rust crate `r1ci-sandbox`.

Every script gets a fresh child of a warm interpreter, with Landlock, a system-call filter, resource
limits, an own user and an own file tree as far as the machine allows; `Sandbox.layers` says which,
`required` refuses to start below a level. Scripts see the packages of this environment and nothing
else of the machine. They keep no state and reach no network; sessions are not offered. Invariant:
a verdict comes from the kernel, never from what a script printed. No torch.
"""

import importlib.util
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
    CANCELLED = "cancelled"
    """Taken back by the caller."""
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
    processes: int = 0
    """Processes that the script may fork besides its own. Above 0 it runs as process 1 of a process
    namespace, which the layer `own_namespaces` must allow."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            least_is_zero = limit.name == "processes"
            if not (value > 0 or (least_is_zero and value == 0)):
                least = "zero or more" if least_is_zero else "above zero"
                raise SandboxError(
                    f"limit `{limit.name}` is `{value}`", hint=f"this limit must be {least}"
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
    stdout_cut: int | None
    """Where in `stdout` (in characters) the dropped bytes are missing; None if none are."""
    stderr_cut: int | None


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
        """Start; `workers` scripts compute at once (None: one per core and one more).

        Scripts that sleep do not count among them. Interpreters with numpy and with sympy start by
        themselves when a script names these; scripts that name a module of `preload` run in one
        that has imported all of `preload`. `limits` is for requests that bring none (None:
        `Limits()`); `read_only` names further files and folders that scripts may read. Raises
        SandboxError when a layer in `required` is not in force, or no interpreter comes up.
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

    def cancel(self, ticket: int) -> None:
        """Take a submitted script back: it is collected as `cancelled` if it has not ended yet."""
        self._supervisor.cancel(ticket)

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


BENCH_SCRIPTS = {
    "trivial": "print(1 + 1)",
    "numpy": "import numpy as np\nprint(int(np.arange(10).sum()))",
    "sympy": "import sympy\nx = sympy.symbols('x')\nprint(sympy.factor(x**2 - 1))",
}
"""What `bench` times, by name."""


def bench(count: int = 300, *, workers: int | None = None, **options: Any) -> dict[str, Any]:
    """Latency of `count` executions one by one and the rate of `count` side by side, per script.

    Each of `BENCH_SCRIPTS` runs with the default layers and, as `namespaces`, in a process
    namespace of its own on top; a script whose library is not installed is left out. `options` go
    to `Sandbox`. Raises SandboxError as that does, or when a script does not end well: the time of
    a failing script says nothing.
    """
    rows = []
    with Sandbox(workers=workers, **options) as sandbox:
        for name, code in BENCH_SCRIPTS.items():
            if name != "trivial" and importlib.util.find_spec(name) is None:
                continue
            for layers, limits in (("default", Limits()), ("namespaces", Limits(processes=1))):
                if layers == "namespaces" and "own_namespaces" not in sandbox.layers:
                    continue
                rows.append(
                    {"script": name, "layers": layers, **_time(sandbox, code, limits, count)}
                )
        return {
            "rows": rows,
            "count": count,
            "cores": len(os.sched_getaffinity(0)),
            "workers": workers,
            "layers_available": list(sandbox.layers),
        }


def _time(sandbox: Sandbox, code: str, limits: Limits, count: int) -> dict[str, float]:
    request = ExecutionRequest(code, limits=limits)
    walls = []
    for _ in range(count + 20):
        begun = time.perf_counter()
        result = sandbox.run(code, limits=limits)
        walls.append(time.perf_counter() - begun)
        if result.exit_reason != ExitReason.OK:
            raise SandboxError(f"the script ended with `{result.exit_reason}`", result.stderr)
    walls = sorted(walls[20:])
    begun = time.perf_counter()
    sandbox.run_many([request] * count)
    return {
        "p50_ms": 1e3 * statistics.median(walls),
        "p95_ms": 1e3 * walls[int(0.95 * (count - 1))],
        "per_s": count / (time.perf_counter() - begun),
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
    for stream in ("stdout", "stderr"):  # there is no place where nothing is missing
        if not raw[f"{stream}_dropped"]:
            raw[f"{stream}_cut"] = None
    return ExecutionResult(**raw)
