"""The row kernels against a copy: bytes that they must move, over what a copy moves in that time.

Each beside its own reference in plain torch, and that reference compiled. Bytes are the least
there is: every input read once, every result written once.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch._functorch.config
from gpu_ceilings import bandwidth, copy_call, text
from gpu_measure import HEAD_WIDTH, Bench, Call, Model, guarded, measure
from torch import Tensor

from r1ci_engine.kernels import kv_cache_write_
from r1ci_engine.kernels.kv_cache_write import kv_cache_write_reference_
from r1ci_engine.kernels.rms_norm import (
    add_rms_norm,
    add_rms_norm_reference,
    rms_norm,
    rms_norm_reference,
)
from r1ci_engine.kernels.rope import rope, rope_reference
from r1ci_engine.kernels.row_stats import row_stats, row_stats_reference
from r1ci_engine.kernels.swiglu import swiglu, swiglu_reference

EPS = 1e-6
CHUNK_ROWS = 2304  # of logits, about as many as the operator has at a time

Function = Callable[..., Any]
"""Tensors -> a tensor or several."""


def row_kernels(model: Model, T: int, bench: Bench) -> list[dict[str, Any]]:
    """Every kernel, forward and backward, at the widths of `model`."""
    # A backward that is timed many times keeps what a compiled one would otherwise write over.
    torch._functorch.config.donated_buffer = False
    found = []
    for name, make in _CASES.items():
        if not bench.clock.allows(f"row kernel {name}", 15.0 if bench.on_gpu else 0.0):
            continue
        with guarded(f"row kernel {name}", bench):
            found += _measure_both(name, *make(model, T, bench), bench)
    return found


def _measure_both(
    name: str,
    leaves: list[Tensor],
    ours: Function,
    plain: Function,
    sizes: tuple[int, int],
    bench: Bench,
) -> list[dict[str, Any]]:
    """Forward without gradients, then backward alone, of three ways in the same rounds."""
    ways = {"ours": ours, "plain torch": plain}
    if name != "kv_cache_write":  # it writes to its inputs, which a compiler would copy
        backend = "inductor" if bench.on_gpu else "aot_eager"
        ways["torch.compile"] = torch.compile(plain, dynamic=False, backend=backend)
    rows = [
        _measured(
            name, "forward", {n: _forward(f, leaves) for n, f in ways.items()}, sizes[0], bench
        )
    ]
    if sizes[1]:
        calls = {n: _backward(f, leaves) for n, f in ways.items()}
        rows.append(_measured(name, "backward", calls, sizes[1], bench))
    return rows


def _measured(
    name: str, half: str, calls: dict[str, Call], size: int, bench: Bench
) -> dict[str, Any]:
    copy, copied = copy_call(bench)
    results = measure({**calls, "copy": copy}, bench)
    ceiling = bandwidth(copied, results["copy"])
    reached = {way: bandwidth(size, results[way]) for way in calls}
    shares = {w: None if r is None or ceiling is None else r / ceiling for w, r in reached.items()}
    shown = ", ".join(f"{way} {text(share, 2)}" for way, share in shares.items())
    print(
        f"  {name:<22} {half:<8} {text(size / 1e6, 0):>7} MB, share of a copy: {shown}", flush=True
    )
    return {
        "kernel": name,
        "half": half,
        "bytes": size,
        "copy_tb_s": ceiling,
        "tb_s": reached,
        "share_of_copy": shares,
        "results": {way: results[way] for way in calls},
    }


def _forward(function: Function, leaves: list[Tensor]) -> Call:
    def call() -> object:
        with torch.no_grad():
            return function(*leaves)

    return call


def _backward(function: Function, leaves: list[Tensor]) -> Call:
    """Gradients of results that were made once, at the first call."""
    made: list[Any] = []

    def call() -> object:
        if not made:
            results = function(*leaves)
            results = results if isinstance(results, tuple) else (results,)
            made.extend((results, [torch.randn_like(x) for x in results]))
        wanted = [x for x in leaves if x.requires_grad]
        return torch.autograd.grad(made[0], wanted, made[1], retain_graph=True)

    return call


Case = tuple[list[Tensor], Function, Function, tuple[int, int]]
"""Leaves, ours, plain torch, bytes (forward, backward; 0 where there is none)."""


def _leaf(bench: Bench, *shape: int) -> Tensor:
    return torch.randn(shape, device=bench.device).to(bench.dtype).requires_grad_()


def _row_stats(model: Model, T: int, bench: Bench) -> Case:
    V, rows = model.V, min(CHUNK_ROWS, T)
    logits_TV = torch.randn(rows, V, device=bench.device).mul_(3).requires_grad_()
    target_T = torch.randint(V, (rows,), device=bench.device)
    return [logits_TV, target_T], row_stats, row_stats_reference, (rows * V * 4, rows * V * 8)


def _rms_norm(model: Model, T: int, bench: Bench) -> Case:
    size = T * model.D * 2
    return (
        [_leaf(bench, T, model.D), _leaf(bench, model.D)],
        lambda x, w: rms_norm(x, w, EPS),
        lambda x, w: rms_norm_reference(x, w, EPS),
        (2 * size, 3 * size),
    )


def _add_rms_norm(model: Model, T: int, bench: Bench) -> Case:
    size = T * model.D * 2
    return (
        [_leaf(bench, T, model.D), _leaf(bench, T, model.D), _leaf(bench, model.D)],
        lambda x, r, w: add_rms_norm(x, r, w, EPS),
        lambda x, r, w: add_rms_norm_reference(x, r, w, EPS),
        (4 * size, 4 * size),
    )


def _rope(model: Model, T: int, bench: Bench) -> Case:
    q_THD, k_TKD = (_leaf(bench, T, heads, HEAD_WIDTH) for heads in (model.H, model.K))
    angle_TF = torch.rand(T, HEAD_WIDTH // 2, device=bench.device) * 6
    size = 2 * (q_THD.numel() + k_TKD.numel()) * 2 + 2 * angle_TF.numel() * 4
    return [q_THD, k_TKD, angle_TF.cos(), angle_TF.sin()], rope, rope_reference, (size, size)


def _swiglu(model: Model, T: int, bench: Bench) -> Case:
    size = T * model.W * 2
    leaves = [_leaf(bench, T, model.W) for _ in range(2)]
    return leaves, swiglu, swiglu_reference, (3 * size, 5 * size)


def _kv_cache_write(model: Model, T: int, bench: Bench) -> Case:
    new = [_leaf(bench, T, model.K, HEAD_WIDTH).detach() for _ in "kv"]
    caches = [torch.zeros_like(x).repeat(2, 1, 1) for x in new]
    row_T = torch.randperm(2 * T, device=bench.device)[:T]
    size = 4 * new[0].numel() * 2
    return [*new, row_T, *caches], kv_cache_write_, kv_cache_write_reference_, (size, 0)


_CASES: dict[str, Callable[[Model, int, Bench], Case]] = {
    "row_stats": _row_stats,
    "rms_norm": _rms_norm,
    "add_rms_norm": _add_rms_norm,
    "rope": _rope,
    "swiglu": _swiglu,
    "kv_cache_write": _kv_cache_write,
}
