"""Correctness on the machine that is to be timed: against fp64, on inputs that no one has seen.

Memory is poisoned with NaN before every call, so an element that nobody writes shows. Each check is
a value and what it may be at most; a check that raises counts as failed, with the reason. The error
of a gradient is taken relative to that of plain torch in the same type, which has no more digits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from gpu_measure import GIB, HEAD_WIDTH, Bench, Model, free, head_inputs, poison
from torch import Tensor

from r1ci_engine.kernels import (
    PolicyLoss,
    Tokens,
    kv_cache_write_,
    linear_grpo_loss,
    linear_grpo_loss_reference,
    linear_logprob,
    linear_logprob_reference,
    policy_loss,
    row_stats,
    row_stats_reference,
)
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

# Against fp64 on the same inputs: the head's fp32 sums, truncated as tensor cores do.
LOGPROB_RMS, LOGPROB_MAX = 1e-4, 1e-3
RATIO = 1.1  # error relative to that of plain torch in the same type
TOKENS = 250
LOSSES = {
    "clipped": PolicyLoss("dapo", clip_high=0.28),  # rows that the clip stopped have no product
    "with every term": PolicyLoss(
        "grpo", kl_coef=0.05, entropy_coef=0.01, mismatch="tis", mismatch_high=1.2
    ),
}


class Checks:
    """What was checked, in order; a limit of None is an observation that cannot fail."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.rows: list[dict[str, Any]] = []

    def at_most(self, name: str, value: float | Tensor, limit: float | None) -> None:
        number = float(value.detach() if isinstance(value, Tensor) else value)
        good = limit is None or number <= limit  # NaN is not
        self._add({"check": name, "value": number, "limit": limit, "good": good})

    def same(self, name: str, found: Tensor, expected: Tensor, limit: int | None = 0) -> None:
        self.at_most(f"{name}: elements that differ", (found != expected).sum(), limit)

    def run(self, name: str, check: Callable[["Checks"], None]) -> None:
        """One group, out of whose failing nothing follows for the others."""
        if not self.bench.clock.allows(f"check of {name}", 0.0):
            return
        try:
            check(self)
        except torch.OutOfMemoryError:
            self.bench.clock.leave_out(f"check of {name}", "out of memory")
        except Exception as error:
            reason = f"{name}: {type(error).__name__}: {error}"[:300]
            self._add({"check": reason, "value": None, "limit": None, "good": False})
        free(self.bench)

    def failed(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if not row["good"]]

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        value = "raised" if row["value"] is None else f"{row['value']:.2e}"
        allowed = "" if row["limit"] is None else f" (allowed {row['limit']:.1e})"
        verdict = "" if row["good"] else "  FAILED"
        print(f"  {row['check']}: {value}{allowed}{verdict}", flush=True)


def check_everything(models: list[Model], bench: Bench) -> Checks:
    checks = Checks(bench)
    for model in models:
        checks.run(f"{model.name} log-prob", lambda c, m=model: head_operator(c, m))
        for name in LOSSES:
            checks.run(f"{model.name} loss, {name}", lambda c, m=model, n=name: whole_loss(c, m, n))
    checks.run("row_stats", row_statistics)
    checks.run("row_stats, many rows", many_rows)
    checks.run("row_stats, many elements", lambda c: many_elements(c, models[-1]))
    checks.run("row kernels", lambda c: row_kernels(c, models[-1]))
    return checks


def full_logits(hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor) -> tuple[Tensor, Tensor]:
    """Product in the operands' type, then fp32 (fp64 stays)."""
    logits_TV = hidden_TD @ weight_VD.T
    wide = torch.promote_types(logits_TV.dtype, torch.float32)
    return row_stats_reference(logits_TV.to(wide), target_T)


def doubled(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x
    return x.detach().double().requires_grad_(x.requires_grad)


def gradients(results: Sequence[Tensor], leaves: Sequence[Tensor]) -> list[Tensor]:
    """Of a sum that weighs the elements of every result differently, alike in every type."""
    total = torch.zeros((), dtype=results[0].dtype, device=results[0].device)
    for at, x in enumerate(results):
        weight = torch.linspace(-1 - at, 1, x.numel(), device=x.device).bfloat16()
        total = total + (weight.to(x.dtype).view(x.shape) * x).sum()
    return list(torch.autograd.grad(total, [x for x in leaves if x.requires_grad]))


def compare(checks: Checks, name: str, ours: Tensor, plain: Tensor, exact: Tensor) -> None:
    if not exact.abs().max() > 0:
        raise ValueError(f"the exact {name} is zero: the check would prove nothing")
    error, usual = ((x.double() - exact).norm() for x in (ours, plain))
    checks.at_most(f"{name}: error / plain torch", error / usual.clamp_min(1e-30), RATIO)


def head_operator(checks: Checks, model: Model) -> None:
    """Log-probabilities and both gradients in few and in many chunks, twice."""
    bench = checks.bench
    hidden_TD, weight_VD, target_T = leaves = head_inputs(model, TOKENS, bench)
    exact_leaves = (doubled(hidden_TD), doubled(weight_VD), target_T)
    exact_results = linear_logprob_reference(*exact_leaves)
    exact = gradients(exact_results, exact_leaves)
    plain = gradients(full_logits(*leaves), leaves)
    rows: dict[str, tuple[Tensor, ...]] = {}
    for label, budget in (("one chunk", None), ("chunks of 64", 64 * 6 * model.V)):
        where = f"{model.name}, {label}"
        poison(bench)
        results = linear_logprob(*leaves, chunk_bytes=budget)
        found = gradients(results, leaves)
        error_T = results[0].detach().double() - exact_results[0].detach()
        checks.at_most(f"{where}: log-prob rms", error_T.square().mean().sqrt(), LOGPROB_RMS)
        checks.at_most(f"{where}: log-prob max", error_T.abs().max(), LOGPROB_MAX)
        for part, *three in zip(("dhidden", "dweight"), found, plain, exact, strict=True):
            compare(checks, f"{where}: {part}", *three)
        poison(bench)
        results_again = linear_logprob(*leaves, chunk_bytes=budget)
        for part, one, two in zip(
            ("log-prob", "dhidden", "dweight"),
            (results[0], *found),
            (results_again[0], *gradients(results_again, leaves)),
            strict=True,
        ):
            checks.same(f"{where}: {part} of a second run", two, one)
        rows[label] = (results[0].detach(), found[0])
    (one_T, one_TD), (many_T, many_TD) = rows.values()
    checks.at_most(f"{model.name}: log-prob by chunking", (one_T - many_T).abs().max(), LOGPROB_MAX)
    # Whether the bits agree as well is up to the library's products: an observation.
    checks.same(f"{model.name}: log-prob by chunking", many_T, one_T, None)
    checks.same(f"{model.name}: dhidden by chunking", many_TD, one_TD, None)


def whole_loss(checks: Checks, model: Model, name: str) -> None:
    """A one-pass loss with masked rows, rows without advantage and rows beyond the clip."""
    bench, T, policy = checks.bench, TOKENS, LOSSES[name]
    where, budget = f"{model.name}, {name}", 64 * 6 * model.V
    hidden_TD, weight_VD, target_T = leaves = head_inputs(model, T, bench)
    exact_leaves = (doubled(hidden_TD), doubled(weight_VD), target_T)
    with torch.no_grad():
        logprob_T = linear_logprob_reference(*exact_leaves)[0].float()
    # Ratios of 1, 0.61 and 1.65: none so near a clip that a rounding could cross it.
    old_T = logprob_T + torch.randint(-1, 2, (T,), device=bench.device) * 0.5
    tokens = Tokens(
        advantage_N=torch.randn(T, device=bench.device),
        weight_N=torch.rand(T, device=bench.device) / T,
        old_N=old_T,
        reference_N=logprob_T + torch.randn(T, device=bench.device) * 0.3,
        sampler_N=old_T + torch.randint(0, 2, (T,), device=bench.device) * 0.5 - 0.3,
    )
    tokens.weight_N[::5] = 0.0
    tokens.advantage_N[1::7] = 0.0
    given = {part: x for part, x in vars(tokens).items() if x is not None}
    exact_tokens = Tokens(**{part: x.double() for part, x in given.items()})
    exact_loss = linear_grpo_loss_reference(*exact_leaves, exact_tokens, policy).loss
    exact = torch.autograd.grad(exact_loss, exact_leaves[:2])
    plain = torch.autograd.grad(policy_loss(*full_logits(*leaves), tokens, policy), leaves[:2])
    poison(bench)
    loss = linear_grpo_loss(*leaves, tokens, policy, chunk_bytes=budget).loss
    found = torch.autograd.grad(loss, leaves[:2])
    # Relative to what its terms could come to: they have both signs and may cancel.
    size = (tokens.weight_N * tokens.advantage_N.abs()).sum()
    gap = (loss.detach().double() - exact_loss.detach()).abs() / size
    checks.at_most(f"{where}: loss, relative error", gap, 1e-3)
    for part, *three in zip(("dhidden", "dweight"), found, plain, exact, strict=True):
        compare(checks, f"{where}: {part} of the loss", *three)
    # Nobody may read a masked row.
    unread_TD = hidden_TD.detach().clone()
    unread_TD[::5] = float("nan")
    unread_TD.requires_grad_()
    poison(bench)
    again = linear_grpo_loss(
        unread_TD, weight_VD, target_T, tokens, policy, chunk_bytes=budget
    ).loss
    for part, one, two in zip(
        ("dhidden", "dweight"),
        found,
        torch.autograd.grad(again, (unread_TD, weight_VD)),
        strict=True,
    ):
        checks.same(f"{where}: {part} with NaN in masked rows", two, one)
    checks.at_most(f"{where}: gradient of masked rows", found[0][::5].abs().max(), 0.0)


def row_statistics(checks: Checks) -> None:
    """All logits negative, a tail after whole blocks, targets in it; and a single row."""
    bench, V = checks.bench, 4096 + 37
    for T in (33, 1):
        logits_TV = torch.randn(T, V, device=bench.device) * 5 - 50
        target_T = torch.randint(4096, V, (T,), device=bench.device)
        _against_exact(checks, f"row_stats, {T} rows", logits_TV, target_T, 0.7)


def many_rows(checks: Checks) -> None:
    """More rows than a grid's second axis may count."""
    T, V = 70_000 if checks.bench.on_gpu else 300, 131
    logits_TV = torch.randn(T, V, device=checks.bench.device) * 5
    target_T = torch.randint(V, (T,), device=checks.bench.device)
    _against_exact(checks, f"row_stats, {T} rows", logits_TV, target_T, 0.7)


def _against_exact(
    checks: Checks, name: str, logits_TV: Tensor, target_T: Tensor, temperature: float
) -> None:
    leaf_TV, exact_TV = logits_TV.requires_grad_(), doubled(logits_TV).requires_grad_()
    poison(checks.bench)
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
        bench.clock.leave_out("check of 2^31 elements", f"needs {needed / GIB:.0f} GiB")
        return
    poison(bench)
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


def row_kernels(checks: Checks, model: Model) -> None:
    """Each against its reference in fp64, at real widths, rows no multiple of anything."""
    bench, T = checks.bench, 1003 if checks.bench.on_gpu else 37

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
        "swiglu": ([leaf(T, model.W), leaf(T, model.W)], swiglu, swiglu_reference),
    }
    for name, (leaves, ours, plain) in cases.items():
        poison(bench)
        found, usual, exact = (
            _results_and_gradients(call, values)
            for call, values in (
                (ours, leaves),
                (plain, leaves),
                (plain, [doubled(x) for x in leaves]),
            )
        )
        for at, three in enumerate(zip(found, usual, exact, strict=True)):
            compare(checks, f"{name}, result or gradient {at}", *three)
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
        checks.same(f"kv_cache_write, {part}", one, two)
