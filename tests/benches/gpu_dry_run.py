"""Runs what benches/gpu.py does on a GPU with tensors that have shapes and types, but no memory.

    python tests/benches/gpu_dry_run.py OUT

Meta tensors pass as CUDA ones at the widths of a 7B model, launches bind their arguments and do no
more, events read the host's clock. So names, arguments, shapes and types of the branches that only
a GPU takes are right; values and times are nothing. A script of its own, for what it replaces.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.fx.experimental._config
from triton import JITFunction

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))

import gpu
from gpu_measure import MODELS, Bench, Clock

from r1ci_engine.kernels import dispatch


class Event:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, end: "Event") -> float:
        return (end.at - self.at) * 1e3


def bind(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kw: Any) -> None:
    kernel.signature.bind(*args, **{name: kw[name] for name in kw if name in kernel.arg_names})
    assert all(count > 0 for count in grid)


def addmm(into: Any, a: Any, b: Any, *, out_dtype: torch.dtype, out: Any) -> Any:
    """Torch's own has no meta form with a longer result."""
    assert out is into and into.shape == (a.shape[0], b.shape[1]) and a.shape[1] == b.shape[0]
    assert into.dtype == out_dtype == torch.float32 and a.dtype == b.dtype == torch.bfloat16
    return out


def pretend() -> None:
    cuda: Any = torch.cuda
    cuda.Event = Event
    cuda.synchronize = cuda.empty_cache = cuda.reset_peak_memory_stats = lambda: None
    cuda.memory_allocated = cuda.memory_reserved = lambda: 0
    cuda.max_memory_allocated = lambda: 8 << 30
    cuda.mem_get_info = lambda: (70 << 30, 80 << 30)
    cuda.get_device_properties = lambda device: SimpleNamespace(multi_processor_count=132)
    tensor: Any = torch.Tensor
    tensor.is_cuda = Bench.on_gpu = property(lambda self: True)  # type: ignore[assignment]
    tensor.item = tensor.__float__ = lambda self: 1.0
    tensor.__bool__ = lambda self: True
    tensor.__int__ = lambda self: 1
    tensor.unique = lambda self, return_inverse: (self, self)
    torch.fx.experimental._config.meta_nonzero_assume_all_nonzero = True
    torch.addmm = addmm
    torch.compile = lambda function, **options: function  # type: ignore[assignment]
    JITFunction.run = bind
    dispatch._choose = lambda device: "triton"  # type: ignore[assignment]


def main() -> None:
    pretend()
    gpu.MODELS = [model for model in MODELS if model.name == "7B"]
    bench = Bench(torch.device("meta"), 1, Clock(1e9))
    about = {"bench": "gpu", "self_check": True, "machine": {}, "seed": 0}
    about |= {"parts": list(gpu.PARTS), "despite_failures": True}
    report = gpu.Report(Path(sys.argv[1]), bench.clock, about)
    report.add(backend="triton", rounds=1, targets=gpu.TARGETS)
    gpu.run(list(gpu.PARTS), bench, report, despite_failures=True)
    gpu.summary(report.facts)


if __name__ == "__main__":
    main()
