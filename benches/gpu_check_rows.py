"""Checks of the kernels that work on rows: at real widths, many rows, many elements."""

from collections.abc import Callable
from typing import Any

import torch
from gpu_checks import Checks, NotMade, compare, doubled, gradients
from gpu_measure import GIB, HEAD_WIDTH, Model
from torch import Tensor

from r1ci_engine.kernels import kv_cache_write_, row_stats, row_stats_reference
from r1ci_engine.kernels.kv_cache_write import kv_cache_write_reference_
from r1ci_engine.kernels.rms_norm import (
    add_rms_norm,
    add_rms_norm_reference,
    rms_norm,
    rms_norm_reference,
)
from r1ci_engine.kernels.rope import rope, rope_reference
from r1ci_engine.kernels.row_stats import row_stats_backward, row_stats_forward
from r1ci_engine.kernels.swiglu import swiglu, swiglu_reference

MANY_ROWS = 70_000  # more than a grid's second axis may count


def check_row_stats(checks: Checks, models: list[Model]) -> None:
    checks.run("row_stats", row_statistics)
    checks.run("row_stats, many rows", many_rows)
    checks.run("row_stats, many elements", lambda c: many_elements(c, models[-1]))


def check_row_kernels(checks: Checks, models: list[Model]) -> None:
    on_gpu = checks.bench.on_gpu
    widest = max(models, key=lambda model: model.W)
    checks.run("row kernels", lambda c: row_kernels(c, models[-1], 1003 if on_gpu else 37))
    checks.run("row kernels, many rows", lambda c: row_kernels(c, models[0], _many(on_gpu)))
    checks.run("swiglu, many elements", lambda c: many_gates(c, widest))


def _many(on_gpu: bool) -> int:
    return MANY_ROWS if on_gpu else 300


def row_statistics(checks: Checks) -> None:
    """All logits negative, a tail after whole blocks, targets in it; and a single row."""
    bench, V = checks.bench, 4096 + 37
    for T in (33, 1):
        logits_TV = torch.randn(T, V, device=bench.device) * 5 - 50
        target_T = torch.randint(4096, V, (T,), device=bench.device)
        _against_exact(checks, f"row_stats, {T} rows", logits_TV, target_T, 0.7)


def many_rows(checks: Checks) -> None:
    T, V = _many(checks.bench.on_gpu), 131
    logits_TV = torch.randn(T, V, device=checks.bench.device) * 5
    target_T = torch.randint(V, (T,), device=checks.bench.device)
    _against_exact(checks, f"row_stats, {T} rows", logits_TV, target_T, 0.7)


def _against_exact(
    checks: Checks, name: str, logits_TV: Tensor, target_T: Tensor, temperature: float
) -> None:
    leaf_TV, exact_TV = logits_TV.requires_grad_(), doubled(logits_TV).requires_grad_()
    results = row_stats(leaf_TV, target_T, temperature)
    (found_TV,) = gradients(results, [leaf_TV])
    exact = row_stats_reference(exact_TV, target_T, temperature)
    (true_TV,) = gradients(exact, [exact_TV])
    for part, one_T, true_T in zip(("log-prob", "entropy"), results, exact, strict=True):
        checks.at_most(f"{name}: {part} max", (one_T.double() - true_T).abs().max(), 1e-4)
    gap = (found_TV.double() - true_TV).norm() / true_TV.norm()
    checks.at_most(f"{name}: gradient, relative error", gap, 1e-4)


def many_elements(checks: Checks, model: Model) -> None:
    """Logits beyond 2^31 elements: both halves on the last rows, where offsets are largest."""
    bench, V = checks.bench, model.V
    T = (2**31 // V + 200) if bench.on_gpu else 50
    needed = T * V * (4 + 2) + 2 * GIB
    if bench.memory() < needed:
        raise NotMade(f"needs {needed / GIB:.0f} GiB")
    logits_TV = torch.empty(T, V, device=bench.device).normal_().mul_(3)
    target_T = torch.randint(V, (T,), device=bench.device)
    logprob_T, entropy_T, lse_T = row_stats_forward(logits_TV, target_T, 1.0)
    g_T, h_T = torch.linspace(1, 2, T, device=bench.device), torch.ones(T, device=bench.device)
    dlogits_TV = row_stats_backward(
        logits_TV, target_T, lse_T, entropy_T, g_T, h_T, 1.0, bench.dtype
    )
    for place, C in (("first", slice(0, 8)), ("last", slice(T - 8, T))):
        exact_CV = doubled(logits_TV[C]).requires_grad_()
        exact = row_stats_reference(exact_CV, target_T[C])
        total = (exact[0] * g_T[C].double()).sum() + (exact[1] * h_T[C].double()).sum()
        (true_CV,) = torch.autograd.grad(total, exact_CV)
        where = f"row_stats, {T * V:.2e} elements, {place} rows"
        for part, one_T, true_T in zip(
            ("log-prob", "entropy"), (logprob_T[C], entropy_T[C]), exact, strict=True
        ):
            checks.at_most(f"{where}: {part} max", (one_T.double() - true_T).abs().max(), 1e-4)
        gap = (dlogits_TV[C].double() - true_CV).norm() / true_CV.norm()
        checks.at_most(f"{where}: gradient, relative error", gap, 3e-3)  # rounded to bf16


def row_kernels(checks: Checks, model: Model, T: int) -> None:
    """Each against its reference in fp64, at real widths; swiglu only where rows are few."""
    bench = checks.bench

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, device=bench.device).to(bench.dtype).requires_grad_()

    x_TD, residual_TD, weight_D = leaf(T, model.D), leaf(T, model.D), leaf(model.D)
    q_THD, k_TKD = leaf(T, model.H, HEAD_WIDTH), leaf(T, model.K, HEAD_WIDTH)
    angle_TF = torch.rand(T, HEAD_WIDTH // 2, device=bench.device) * 6
    tables = [angle_TF.cos(), angle_TF.sin()]
    eps = 1e-6
    cases: dict[str, tuple[list[Tensor], Callable[..., Any], Callable[..., Any]]] = {
        "rms_norm": (
            [x_TD, weight_D],
            lambda x, w: rms_norm(x, w, eps),
            lambda x, w: rms_norm_reference(x, w, eps),
        ),
        "add_rms_norm": (
            [x_TD, residual_TD, weight_D],
            lambda x, r, w: add_rms_norm(x, r, w, eps),
            lambda x, r, w: add_rms_norm_reference(x, r, w, eps),
        ),
        "rope": ([q_THD, k_TKD, *tables], rope, rope_reference),
    }
    if T < MANY_ROWS:
        cases["swiglu"] = ([leaf(T, model.W), leaf(T, model.W)], swiglu, swiglu_reference)
    for name, (leaves, ours, plain) in cases.items():
        found, usual, exact = (
            _results_and_gradients(call, values)
            for call, values in (
                (ours, leaves),
                (plain, leaves),
                (plain, [doubled(x) for x in leaves]),
            )
        )
        for at, three in enumerate(zip(found, usual, exact, strict=True)):
            compare(checks, f"{name}, {T} rows, result or gradient {at}", *three)
    _cache(checks, k_TKD.detach())


def _results_and_gradients(call: Callable[..., Any], leaves: list[Tensor]) -> list[Tensor]:
    results = call(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    return [*(x.detach() for x in results), *gradients(results, leaves)]


def _cache(checks: Checks, new_TKD: Tensor) -> None:
    T = new_TKD.shape[0]
    row_T = torch.randperm(2 * T, device=new_TKD.device)[:T]
    row_T[::3] = -1
    caches = [torch.randn_like(new_TKD.repeat(2, 1, 1)) for _ in "kv"]
    expected = [x.clone() for x in caches]
    kv_cache_write_(new_TKD, -new_TKD, row_T, *caches)
    kv_cache_write_reference_(new_TKD, -new_TKD, row_T, *expected)
    for part, one, two in zip(("key", "value"), caches, expected, strict=True):
        checks.same(f"kv_cache_write, {T} rows, {part}", one, two)


def many_gates(checks: Checks, model: Model) -> None:
    """SwiGLU beyond 2^31 elements and 65,535 rows: compared where offsets are least and largest."""
    bench, W = checks.bench, model.W
    T = 2**31 // W + 64 if bench.on_gpu else 50
    needed = 7 * T * W * bench.dtype.itemsize + 2 * GIB
    if bench.memory() < needed:
        raise NotMade(f"needs {needed / GIB:.0f} GiB")
    gate_TW, up_TW, slope_TW = (
        torch.empty(T, W, dtype=bench.dtype, device=bench.device).normal_() for _ in range(3)
    )
    leaves = [gate_TW.requires_grad_(), up_TW.requires_grad_()]
    out_TW = swiglu(*leaves)
    found = (out_TW.detach(), *torch.autograd.grad(out_TW, leaves, slope_TW))
    for place, R in (
        ("first", slice(0, 8)),
        ("middle", slice(T // 2, T // 2 + 8)),
        ("last", slice(T - 8, T)),
    ):
        usual, exact = (
            _with_slope(swiglu_reference, [change(x[R].detach()) for x in leaves], slope_TW[R])
            for change in (Tensor.clone, Tensor.double)
        )
        where = f"swiglu, {T * W:.2e} elements, {place} rows"
        names = ("result", "gradient of gate", "gradient of up")
        for part, one, two, three in zip(names, found, usual, exact, strict=True):
            compare(checks, f"{where}: {part}", one[R], two, three)


def _with_slope(
    call: Callable[..., Tensor], leaves: list[Tensor], slope: Tensor
) -> tuple[Tensor, ...]:
    leaves = [x.requires_grad_() for x in leaves]
    out = call(*leaves)
    return (out.detach(), *torch.autograd.grad(out, leaves, slope.to(out.dtype)))
