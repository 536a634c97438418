"""What this machine offers, and how fast the sandbox is on it."""

import importlib.util
import os
import platform
import statistics
import time
from typing import Any

from r1ci_engine._rust import landlock_abi
from r1ci_engine.config import LAYERS
from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox.pool import Sandbox
from r1ci_engine.sandbox.requests import ExecutionRequest, ExitReason, Limits


def probe() -> dict[str, Any]:
    """What this machine offers, found out by starting one interpreter. JSON-able; never raises.

    `layers` are in force, `missing` are not; `reasons` says for each of the latter why.
    """
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
                "reasons": dict(supervisor.missing),
                "python": supervisor.python,
                "error": None,
            }
    except SandboxError as error:
        facts |= {"layers": [], "missing": list(LAYERS), "reasons": {}, "error": error.message}
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
