"""What the kernel benches share: widths of real models, inputs, a clock, and how a call is timed.

A call is timed in rounds: each round takes every contender once, in turn, so that clocks and heat
treat them alike; a slow one is left out of the last rounds. Times are medians over rounds, the
spread is the distance between the quartiles. A contender that runs out of memory or fails stays
in the results, with the reason. Peak memory is above what was allocated before the call, so it
contains what the call returns.
"""

import gc
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python"))  # the benches run where nothing is installed

GIB = 2**30
ENOUGH_MS = 5.0  # a timing shorter than this repeats its call
MOST_REPEATS = 20
SLOW_MS, SLOW_ROUNDS = 400.0, 3  # a contender this slow is not timed more often
HEAVY_GIB = 16.0  # the allocator would otherwise be timed, handing blocks to and fro

Call = Callable[[], object]
Result = dict[str, Any]


class Model(NamedTuple):
    """D hidden width, V vocabulary, H query heads, K key heads, W intermediate width."""

    name: str
    D: int
    V: int
    H: int
    K: int
    W: int


HEAD_WIDTH = 128
MODELS = [
    Model("3B", 2048, 151_936, 16, 2, 11_008),
    Model("7B", 3584, 152_064, 28, 4, 18_944),
    Model("14B", 5120, 152_064, 40, 8, 13_824),
]
TINY = Model("tiny", 32, 500, 2, 1, 96)


class Clock:
    """The seconds that a run may take, and what it left out for want of them or otherwise."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.left_out: list[dict[str, Any]] = []
        self._start = time.monotonic()

    def taken(self) -> float:
        return time.monotonic() - self._start

    def left(self) -> float:
        return self.seconds - self.taken()

    def allows(self, what: str, seconds: float) -> bool:
        """Whether there is time for `what`, which needs about so many seconds."""
        if self.left() >= seconds:
            return True
        left = max(self.left(), 0.0)
        self.leave_out(what, f"{left:.0f} s are left and it may need {seconds:.0f}")
        return False

    def leave_out(self, what: str, reason: str, *, failed: bool = False) -> None:
        """Says that `what` is not in the results; `failed` if it was tried and raised."""
        self.left_out.append({"what": what, "reason": reason, "failed": failed})
        print(f"left out: {what}: {reason}", flush=True)


class Bench(NamedTuple):
    device: torch.device
    rounds: int
    clock: Clock
    dtype: torch.dtype = torch.bfloat16

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def memory(self) -> int:
        """Bytes of the device that nobody holds; plenty where there is no limit worth knowing."""
        if not self.on_gpu:
            return 1 << 40
        return torch.cuda.mem_get_info()[0] + idle_bytes()


def idle_bytes() -> int:
    """What torch's allocator keeps for the next tensor."""
    return torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


def head_inputs(model: Model, T: int, bench: Bench) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden rows, a weight that gives logits of a trained model's size, and targets."""
    hidden_TD = torch.randn(T, model.D, device=bench.device).to(bench.dtype)
    weight_VD = torch.randn(model.V, model.D, device=bench.device).mul_(3 / model.D**0.5)
    target_T = torch.randint(model.V, (T,), device=bench.device)
    return hidden_TD.requires_grad_(), weight_VD.to(bench.dtype).requires_grad_(), target_T


@contextmanager
def poisoned() -> Iterator[None]:
    """New tensors without contents are NaN, so that an element that nobody writes shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations that have no deterministic form
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            if not torch.empty(1).isnan().all():
                raise RuntimeError("torch does not fill new tensors: checks would prove less")
            yield
        finally:
            torch.use_deterministic_algorithms(False)


def free(bench: Bench) -> None:
    """Hands the device's memory back, that of dead circles of objects too.

    Never raises: after an error that a device does not recover from, this call would as well, and
    what comes next says so itself.
    """
    if not bench.on_gpu:
        return
    try:
        gc.collect()
        torch.cuda.empty_cache()
    except Exception as error:
        print(f"memory was not handed back: {why(error)}", flush=True)


@contextmanager
def guarded(what: str, bench: Bench) -> Iterator[None]:
    """A block that fails is left out with its reason, and the run goes on."""
    try:
        yield
    except Exception as error:
        bench.clock.leave_out(what, why(error), failed=True)
    free(bench)


def why(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


class _Series:
    def __init__(self) -> None:
        self.times: list[float] = []
        self.peak_gib: float | None = None
        self.repeats = 1
        self.failure: str | None = None

    def enough(self) -> bool:
        return len(self.times) >= SLOW_ROUNDS and self.times[0] > SLOW_MS

    def result(self) -> Result:
        failure = self.failure
        if not self.times:
            failure = failure or "no time left"
            return {"ms": None, "spread_ms": None, "peak_gib": None, "failure": failure}
        spread = 0.0
        if len(self.times) > 1:
            low, _, high = statistics.quantiles(self.times, n=4)
            spread = high - low
        return {
            "ms": statistics.median(self.times),
            "spread_ms": spread,
            "peak_gib": self.peak_gib,
            "failure": failure,
        }


def measure(contenders: dict[str, Call], bench: Bench) -> dict[str, Result]:
    """Milliseconds and peak memory of each: {"ms", "spread_ms", "peak_gib", "failure"}."""
    all_series = {name: _Series() for name in contenders}
    for round_ in range(-1, bench.rounds):  # the first one warms up, compiles and counts
        for name, call in contenders.items():
            series = all_series[name]
            if series.failure is not None or series.enough():
                continue
            if bench.clock.left() < 0:
                break
            try:
                if round_ < 0:
                    _warm_up(call, series, bench)
                else:
                    if (series.peak_gib or 0.0) > HEAVY_GIB:
                        call()
                    series.times.append(_time(call, series.repeats, bench))
            except Exception as error:
                series.failure = why(error)
            if series.failure is not None:
                print(f"  {name}: {series.failure}", flush=True)
                free(bench)
    return {name: series.result() for name, series in all_series.items()}


def _warm_up(call: Call, series: _Series, bench: Bench) -> None:
    call()
    if not bench.on_gpu:
        series.peak_gib = cpu_peak(call) / GIB
        return
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    took = _time(call, 1, bench)
    series.peak_gib = (torch.cuda.max_memory_allocated() - before) / GIB
    series.repeats = max(1, min(MOST_REPEATS, int(ENOUGH_MS / max(took, 1e-3))))


def _time(call: Call, repeats: int, bench: Bench) -> float:
    """Milliseconds per call."""
    if not bench.on_gpu:
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - start) * 1e3 / repeats
    start, end = (torch.cuda.Event(enable_timing=True) for _ in "ab")
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / repeats


def cpu_peak(call: Call) -> int:
    """Most bytes of tensors alive at once during `call` on CPU, above those before it."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True
    ) as recorded:
        call()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    moments = sorted(
        (event["ts"], event["args"]["Bytes"], event["args"]["Total Allocated"])
        for event in events
        if event.get("name") == "[memory]"
    )
    if not moments:
        return 0
    _, first, total = moments[0]
    return max(0, max(total for _, _, total in moments) - (total - first))
