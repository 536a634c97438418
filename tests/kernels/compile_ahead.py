"""Compiles every Triton kernel ahead of time, which needs no GPU, and says what each one uses.

    python tests/kernels/compile_ahead.py            what is found, as JSON
    python tests/kernels/compile_ahead.py --write    the same into kernels/budget.json

The public functions are called at the widths of real models, on a few rows on CPU, with the launch
replaced: it compiles what was asked for, with the specialisation that the launch would choose, for
each of `TARGETS`, and runs nothing. So the budget holds what is really launched, and a kernel that
no call reaches is reported. T is 1, a multiple of 16, or neither: a launch tells them apart. bf16
is what the engine trains in; fp16, fp32 and a vocabulary of odd size are compiled at one width.

Registers and spilled bytes are the assembler's; shared memory is Triton's; a tensor-core
instruction, and the bits of the widest access to global memory, are looked for in the PTX: a kernel
that should be held up by memory alone, and moves 16 bits at a time, is not. A script of its own,
because a process that interprets kernels cannot compile them.
"""

import argparse
import importlib
import io
import json
import pkgutil
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import JITFunction, knobs
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import KernelInterface

import r1ci_engine.kernels as kernels
from r1ci_engine.kernels import dispatch, force_backend, kv_cache_write_
from r1ci_engine.kernels.rms_norm import add_rms_norm, rms_norm
from r1ci_engine.kernels.rope import rope
from r1ci_engine.kernels.row_stats import row_stats, row_stats_backward, row_stats_forward
from r1ci_engine.kernels.swiglu import swiglu

BUDGET = Path(__file__).parents[2] / "kernels" / "budget.json"
TARGETS = (80, 90, 100)
TENSOR_CORE = re.compile(r"\b(wgmma\.mma_async|tcgen05\.mma|mma\.sync)\b")
ACCESS = re.compile(r"\b(ld|st)\.global[\w.:]*?(?:\.v(\d+))?\.[bfsu](\d+)\b")
TOKENS = (1, 3, 16)


class Model(NamedTuple):
    """Widths of a Qwen2.5 model; heads are 128 wide."""

    D: int
    V: int
    H: int
    K: int
    W: int


MODELS = (
    Model(D=2048, V=151_936, H=16, K=2, W=11_008),
    Model(D=3584, V=152_064, H=28, K=4, W=18_944),
    Model(D=5120, V=152_064, H=40, K=8, W=13_824),
)
ODD = Model(D=3584, V=151_665, H=28, K=4, W=18_944)
HEAD_WIDTH = 128


def call_everything(model: Model, T: int, dtype: torch.dtype = torch.bfloat16) -> None:
    """Every public function that launches a kernel, forward and backward."""
    logits_TV, target_T = torch.zeros(T, model.V), torch.zeros(T, dtype=torch.int64)
    backward(*row_stats(leaf(T, model.V, dtype=dtype), target_T, 0.9))
    logprob_T, entropy_T, lse_T = row_stats_forward(logits_TV, target_T, 0.9)
    for h_T in (None, entropy_T):
        for rows_N in (None, target_T):
            row_stats_backward(
                logits_TV, target_T, lse_T, entropy_T, logprob_T, h_T, 0.9, dtype, rows_N
            )
    for D in (model.D, HEAD_WIDTH):  # hidden rows, and heads that are normed one by one
        x_TD, residual_TD, weight_D = (
            leaf(*shape, dtype=dtype) for shape in ((T, D), (T, D), (D,))
        )
        backward(rms_norm(x_TD, weight_D, 1e-6))
        backward(*add_rms_norm(x_TD, residual_TD, weight_D, 1e-6))
    q_THD, k_TKD = (leaf(T, heads, HEAD_WIDTH, dtype=dtype) for heads in (model.H, model.K))
    cos_TF, sin_TF = torch.zeros(2, T, HEAD_WIDTH // 2)
    backward(*rope(q_THD, k_TKD, cos_TF, sin_TF))
    backward(swiglu(leaf(T, model.W, dtype=dtype), leaf(T, model.W, dtype=dtype)))
    new_TKD, cache_NKD = k_TKD.detach(), k_TKD.detach().clone()
    kv_cache_write_(new_TKD, new_TKD, torch.arange(T), cache_NKD, cache_NKD)


def leaf(*shape: int, dtype: torch.dtype) -> Tensor:
    return torch.zeros(shape, dtype=dtype, requires_grad=True)


def backward(*results: Tensor) -> None:
    torch.autograd.backward(results, [torch.zeros_like(x) for x in results])


class NoDevice:
    """What the compiler asks a driver for; the device's number stands for its architecture."""

    def __init__(self) -> None:
        self.architecture = TARGETS[0]

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)


@contextmanager
def compiling(
    found: dict[str, Any], launched: set[JITFunction], switches: dict[str, set[bool]]
) -> Iterator[None]:
    """Inside the block a launch compiles for all targets, says what it found, and runs nothing."""
    device, run, require = NoDevice(), JITFunction.run, dispatch._require_triton
    seen: set[str] = set()

    def compile_only(kernel: JITFunction, *args: Any, grid: Any, warmup: bool, **kw: Any) -> None:
        launched.add(kernel)
        for device.architecture in TARGETS:
            with redirect_stdout(io.StringIO()) as log:
                compiled = run(kernel, *args, grid=grid, warmup=True, **kw)
            if compiled.hash in seen:
                continue
            seen.add(compiled.hash)
            by_configuration = found.setdefault(name_of(kernel), {})
            for switch, value in constants(compiled).items():
                if isinstance(value, bool):
                    switches.setdefault(f"{name_of(kernel)} {switch}", set()).add(value)
            by_target = by_configuration.setdefault(configuration(compiled), {})
            target, usage = f"sm_{device.architecture}", usage_of(compiled, log.getvalue())
            known = by_target.setdefault(target, usage)
            # They differ in nothing but which are multiples of 16: the worse figure counts.
            for part in ("registers", "spill_bytes", "shared_bytes"):
                known[part] = max(known[part], usage[part])
            for part in ("load_bits", "store_bits"):
                known[part] = min(known[part], usage[part])

    driver.set_active(device)
    JITFunction.run = compile_only
    dispatch._require_triton = lambda device: None
    try:
        with force_backend("triton"):
            yield
    finally:
        JITFunction.run, dispatch._require_triton = run, require


def name_of(kernel: JITFunction) -> str:
    """`row_stats.forward` of `r1ci_engine.kernels.row_stats._forward_kernel`."""
    name = kernel.__name__.removeprefix("_").removesuffix("_kernel")
    return f"{kernel.__module__.rsplit('.', 1)[-1]}.{name}"


def configuration(compiled: Any) -> str:
    """Types of the tensors, compile-time values, arguments that are multiples of 16, warps."""
    source = compiled.src
    types = [t.removeprefix("*") for t in source.signature.values() if t[0] == "*"]
    settings = (f"{name}={value}" for name, value in constants(compiled).items())
    multiples = sum(["tt.divisibility", 16] in marks for marks in source.attrs.values())
    return " ".join(
        [*types, *settings, f"of16={multiples}", f"warps={compiled.metadata.num_warps}"]
    )


def constants(compiled: Any) -> dict[str, Any]:
    source = compiled.src
    given = ((source.fn.params[at], value) for (at,), value in source.constants.items())
    return {param.name: value for param, value in given if param.is_constexpr}


def usage_of(compiled: Any, log: str) -> dict[str, Any]:
    registers = re.search(r"Used (\d+) registers", log)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", log)
    assert registers and spills, f"no report of the assembler in: {log}"
    ptx = compiled.asm["ptx"]
    instruction = TENSOR_CORE.search(ptx)
    return {
        "registers": int(registers[1]),
        "spill_bytes": int(spills[1]) + int(spills[2]),
        "shared_bytes": compiled.metadata.shared,
        "tensor_core": instruction and instruction[1],
        "load_bits": widest("ld", ptx),
        "store_bits": widest("st", ptx),
    }


def widest(access: str, ptx: str) -> int:
    found = (match for match in ACCESS.finditer(ptx) if match[1] == access)
    return max((int(match[2] or 1) * int(match[3]) for match in found), default=0)


def never_launched(launched: set[JITFunction], modules: Iterable[ModuleType]) -> list[str]:
    """Kernels of the modules that no call reached; what a kernel calls counts as reached."""
    reached = {name for kernel in launched for name in kernel.fn.__code__.co_names}
    missing = set()
    for module in modules:
        for name, value in vars(module).items():
            while isinstance(value, KernelInterface) and not isinstance(value, JITFunction):
                value = value.fn  # below an autotuner or a heuristic
            if isinstance(value, JITFunction) and value not in launched and name not in reached:
                missing.add(name_of(value))
    return sorted(missing)


def modules_of(package: ModuleType) -> Iterator[ModuleType]:
    for module in pkgutil.iter_modules(package.__path__):
        yield importlib.import_module(f"{package.__name__}.{module.name}")


@triton.jit
def _product_kernel(a, b, c, BLOCK: tl.constexpr):
    """Multiplies, so it has a tensor-core instruction."""
    row, column = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    place = row * BLOCK + column
    tl.store(c + place, tl.dot(tl.load(a + place), tl.load(b + place)))


@triton.jit
def _hoarding_kernel(x, y, BLOCK: tl.constexpr, SQUARED: tl.constexpr):
    """Holds more values per thread than there are registers, all needed until the end."""
    place = tl.arange(0, BLOCK)
    held = tl.load(x + place)
    total = tl.sum(held, 0)
    tl.store(y + place, held * total)


@triton.autotune([triton.Config({}, num_warps=4)], key=[])
@triton.jit
def _forgotten_kernel(x, SWITCH: tl.constexpr):
    """No call reaches it, and it hides below an autotuner."""
    tl.store(x, 0.0)


def probe() -> dict[str, Any]:
    """What a product and a hoarder use, what is never launched: the search must find what there is.

    One kernel is launched with one value of its switch.
    """
    found: dict[str, Any] = {}
    launched: set[JITFunction] = set()
    switches: dict[str, set[bool]] = {}
    a, c = torch.zeros(128, 128, dtype=torch.bfloat16), torch.zeros(128, 128)
    with compiling(found, launched, switches):
        _product_kernel[(1,)](a, a, c, BLOCK=128, num_warps=4)
        _hoarding_kernel[(1,)](c, c, BLOCK=16_384, SQUARED=False, num_warps=1)
    usage = {name: next(iter(cases.values())) for name, cases in found.items()}
    missing = never_launched(launched, [sys.modules[__name__]])
    return {"usage": usage, "never_launched": missing, "one_way_only": one_way_only(switches)}


def one_way_only(switches: dict[str, set[bool]]) -> list[str]:
    return [name for name, values in switches.items() if len(values) < 2]


def as_text(budget: dict[str, Any]) -> str:
    """JSON with one line per target, which is what a change of the budget is read by."""
    text = json.dumps(budget, indent=2)
    return re.sub(r"{([^{}]*)}", lambda found: f"{{{' '.join(found[1].split())}}}", text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="what every kernel uses, compiled ahead of time")
    parser.add_argument("--write", action="store_true", help="make it the budget")
    options = parser.parse_args()
    assert not dispatch.interpreting(), "unset TRITON_INTERPRET"
    knobs.compilation.always_compile = True  # a cached kernel has no report
    knobs.nvidia.dump_ptxas_log = True
    found: dict[str, Any] = {}
    launched: set[JITFunction] = set()
    switches: dict[str, set[bool]] = {}
    with compiling(found, launched, switches):
        for model in MODELS:
            for T in TOKENS:
                call_everything(model, T)
        call_everything(ODD, TOKENS[1])
        for dtype in (torch.float16, torch.float32):
            call_everything(ODD, TOKENS[1], dtype)
    budget = {"triton": triton.__version__, "kernels": found}
    if options.write:
        BUDGET.write_text(as_text(budget))
        return
    budget["one_way_only"] = one_way_only(switches)
    budget |= {"never_launched": never_launched(launched, modules_of(kernels)), "probes": probe()}
    sys.stdout.write(as_text(budget))


if __name__ == "__main__":
    main()
