"""Checks of the head's operators at the widths of real models: every result, every gradient.

Log-probabilities and entropies may be as far from fp64 as the library's product alone makes them,
if that is more than the limits of the design: tensor cores cut their sums off.
"""

from typing import NamedTuple

import torch
from gpu_ceilings import fp32_logits
from gpu_checks import Checks, compare, doubled, gradients
from gpu_measure import Model, head_inputs
from torch import Tensor

from r1ci_engine.kernels import (
    LinearLoss,
    PolicyLoss,
    Tokens,
    linear_cross_entropy,
    linear_grpo_loss,
    linear_grpo_loss_reference,
    linear_logprob,
    linear_logprob_reference,
    policy_loss,
    row_stats_reference,
)

RMS, MOST = 1e-4, 1e-3  # of log-probability and entropy, against fp64 on the same inputs
SLOPE = 1 / 3  # of what is differentiated, by the loss: no power of two
SCALED = 1e-3  # how well gradients follow it; rounded to bf16 it would be off by 2e-3
TEMPERATURE = 0.7
TOKENS, SEQUENCE = 250, 10


class Case(NamedTuple):
    policy: PolicyLoss | None
    """None: cross-entropy, which has no temperature."""
    bias: bool = False
    frozen: bool = False


LOSSES = {
    "clipped": Case(PolicyLoss("dapo", clip_high=0.28)),  # of stopped rows there is no product
    "every term, bias": Case(
        PolicyLoss("grpo", kl_coef=0.05, entropy_coef=0.01, mismatch="tis", mismatch_high=1.2),
        bias=True,
    ),
    "gspo": Case(PolicyLoss("gspo")),
    "cross-entropy, frozen head": Case(None, frozen=True),
}
IMITATION = PolicyLoss("cispo")  # with advantages of 1 and without old ones: cross-entropy


def check_head_operators(checks: Checks, models: list[Model]) -> None:
    for model in models:
        checks.run(f"{model.name} log-prob", lambda c, m=model: head_operator(c, m))
        for name in LOSSES:
            checks.run(f"{model.name} loss, {name}", lambda c, m=model, n=name: whole_loss(c, m, n))


class Head(NamedTuple):
    hidden_TD: Tensor
    weight_VD: Tensor
    target_T: Tensor
    bias_V: Tensor | None
    temperature: float

    def leaves(self) -> dict[str, Tensor]:
        named = {"dhidden": self.hidden_TD, "dweight": self.weight_VD, "dbias": self.bias_V}
        return {name: x for name, x in named.items() if x is not None and x.requires_grad}

    def exact(self) -> "Head":
        bias_V = None if self.bias_V is None else doubled(self.bias_V)
        tensors = (doubled(self.hidden_TD), doubled(self.weight_VD), self.target_T, bias_V)
        return Head(*tensors, self.temperature)

    def reference(self) -> tuple[Tensor, Tensor]:
        return linear_logprob_reference(*self[:3], self.temperature, bias_V=self.bias_V)

    def plain(self) -> tuple[Tensor, Tensor]:
        """Product in the operands' type, then fp32."""
        logits_TV = self.hidden_TD @ self.weight_VD.T
        if self.bias_V is not None:
            logits_TV = logits_TV + self.bias_V
        return row_stats_reference(logits_TV.float(), self.target_T, self.temperature)

    @torch.no_grad()
    def library(self) -> tuple[Tensor, Tensor]:
        """The library's product, and all else in fp64."""
        logits_TV = fp32_logits(self.hidden_TD, self.weight_VD).double()
        if self.bias_V is not None:
            logits_TV += self.bias_V
        return row_stats_reference(logits_TV, self.target_T, self.temperature)


Results = tuple[Tensor, Tensor]
"""Log-probabilities and entropies."""


def close(checks: Checks, where: str, found: Results, exact: Results, library: Results) -> None:
    for part, *three in zip(("log-prob", "entropy"), found, exact, library, strict=True):
        one_T, true_T, usual_T = (x.detach().double() for x in three)
        errors = one_T - true_T, usual_T - true_T
        (rms, usual_rms), (most, usual_most) = (
            [size(error_T) for error_T in errors]
            for size in (lambda x: x.square().mean().sqrt(), lambda x: x.abs().max())
        )
        checks.at_most(f"{where}: {part} rms of the library's product alone", usual_rms, None)
        checks.at_most(f"{where}: {part} rms", rms, max(RMS, 1.1 * float(usual_rms)))
        checks.at_most(f"{where}: {part} max", most, max(MOST, 1.1 * float(usual_most)))


def head_operator(checks: Checks, model: Model) -> None:
    """Results and both gradients in few and in many chunks, twice; and of sparse rows."""
    head = Head(*head_inputs(model, TOKENS, checks.bench), None, TEMPERATURE)
    leaves, exact_head, library = head.leaves(), head.exact(), head.library()
    exact_results, plain_results = exact_head.reference(), head.plain()
    kept_T = torch.arange(TOKENS, device=checks.bench.device) % 3 == 1
    rows: dict[str, tuple[Tensor, ...]] = {}
    for label, budget in (("one chunk", None), ("chunks of 64", 64 * 6 * model.V)):
        where = f"{model.name}, {label}"
        results = linear_logprob(*head[:3], TEMPERATURE, chunk_bytes=budget)
        close(checks, where, results, exact_results, library)
        for some_T, which in ((None, ""), (kept_T, " of sparse rows")):
            found = gradients(results, list(leaves.values()), some_T)
            plain = gradients(plain_results, list(leaves.values()), some_T)
            exact = gradients(exact_results, list(exact_head.leaves().values()), some_T)
            for part, *three in zip(leaves, found, plain, exact, strict=True):
                compare(checks, f"{where}: {part}{which}", *three)
            if some_T is not None:
                rest = found[0][~some_T].abs().max()
                checks.at_most(f"{where}: gradient of the other rows", rest, 0.0)
                continue
            results_again = linear_logprob(*head[:3], TEMPERATURE, chunk_bytes=budget)
            again = (*results_again, *gradients(results_again, list(leaves.values())))
            names = ("log-prob", "entropy", *leaves)
            for part, one, two in zip(names, (*results, *found), again, strict=True):
                checks.same(f"{where}: {part} of a second run", two, one)
            rows[label] = (results[0].detach(), found[0])
    (one_T, one_TD), (many_T, many_TD) = rows.values()
    checks.at_most(f"{model.name}: log-prob by chunking", (one_T - many_T).abs().max(), MOST)
    # Whether the bits agree as well is up to the library's products: an observation.
    checks.same(f"{model.name}: log-prob by chunking", many_T, one_T, None)
    checks.same(f"{model.name}: dhidden by chunking", many_TD, one_TD, None)


def whole_loss(checks: Checks, model: Model, name: str) -> None:
    """A loss with masked rows, rows without advantage and rows beyond the clip."""
    bench, case = checks.bench, LOSSES[name]
    where, budget = f"{model.name}, {name}", 64 * 6 * model.V
    hidden_TD, weight_VD, target_T = head_inputs(model, TOKENS, bench)
    weight_VD.requires_grad_(not case.frozen)
    bias_V = None
    if case.bias:
        bias_V = torch.randn(model.V, device=bench.device).to(bench.dtype).requires_grad_()
    temperature = 1.0 if case.policy is None else TEMPERATURE
    head = Head(hidden_TD, weight_VD, target_T, bias_V, temperature)
    exact_head, leaves = head.exact(), head.leaves()
    with torch.no_grad():
        tokens = _tokens(exact_head.reference()[0].float(), case)
    policy = case.policy or IMITATION
    given = {part: x for part, x in vars(tokens).items() if x is not None}
    wide = {part: x.double() if x.is_floating_point() else x for part, x in given.items()}
    exact = linear_grpo_loss_reference(
        *exact_head[:3], Tokens(**wide), policy, temperature, bias_V=exact_head.bias_V
    )
    true = torch.autograd.grad(exact.loss * SLOPE, list(exact_head.leaves().values()))
    plain_loss = policy_loss(*head.plain(), tokens, policy)
    plain = torch.autograd.grad(plain_loss * SLOPE, list(leaves.values()))

    def ours(head: Head, slope: float = SLOPE) -> tuple[LinearLoss, tuple[Tensor, ...]]:
        if case.policy is None:
            result = linear_cross_entropy(*head[:3], tokens.weight_N, chunk_bytes=budget)
        else:
            result = linear_grpo_loss(
                *head[:3], tokens, policy, temperature, bias_V=head.bias_V, chunk_bytes=budget
            )
        return result, torch.autograd.grad(result.loss * slope, list(head.leaves().values()))

    result, found = ours(head)
    # Relative to what its terms could come to: they have both signs and may cancel.
    size = (tokens.weight_N * tokens.advantage_N.abs()).sum()
    gap = (result.loss.detach().double() - exact.loss.detach()).abs() / size
    checks.at_most(f"{where}: loss, relative error", gap, 1e-3)
    enters_T = tokens.weight_N != 0
    library_T = head.library()
    close(
        checks,
        where,
        (result.logprob_T[enters_T], result.entropy_T[enters_T]),
        (exact.logprob_T[enters_T], exact.entropy_T[enters_T]),
        (library_T[0][enters_T], library_T[1][enters_T]),
    )
    for part, *three in zip(leaves, found, plain, true, strict=True):
        compare(checks, f"{where}: {part} of the loss", *three)
    for part, one, unscaled in zip(leaves, found, ours(head, 1.0)[1], strict=True):
        if part != "dbias":  # too few elements for their roundings to cancel out
            unscaled = unscaled.double()
            length = (one.double() * unscaled).sum() / unscaled.square().sum() / SLOPE
            checks.at_most(f"{where}: {part} by the loss's slope", (length - 1).abs(), SCALED)
    # Nobody may read a masked row.
    unread_TD = hidden_TD.detach().clone()
    unread_TD[~enters_T] = float("nan")
    unread, again = ours(head._replace(hidden_TD=unread_TD.requires_grad_()))
    checks.same(f"{where}: log-prob with NaN in masked rows", unread.logprob_T, result.logprob_T)
    for part, one, two in zip(leaves, found, again, strict=True):
        checks.same(f"{where}: {part} with NaN in masked rows", two, one)
    masked = torch.stack((found[0][~enters_T].abs().max(), result.logprob_T[~enters_T].abs().max()))
    checks.at_most(f"{where}: gradient and log-prob of masked rows", masked.max(), 0.0)


def _tokens(logprob_T: Tensor, case: Case) -> Tokens:
    T, device = logprob_T.numel(), logprob_T.device
    weight_T = torch.rand(T, device=device) / T
    weight_T[::5] = 0.0
    if case.policy is None:
        return Tokens(torch.ones_like(weight_T), weight_T)
    # Ratios of 1, 0.61 and 1.65, of whole sequences: none so near a clip that a rounding, or the
    # mean of a sequence, could cross it.
    sequence_T = torch.arange(T, device=device) // SEQUENCE
    shift_B = torch.randint(-1, 2, (T // SEQUENCE + 1,), device=device) * 0.5
    advantage_T = torch.randn(T, device=device)
    advantage_T[1::7] = 0.0
    old_T = logprob_T + shift_B[sequence_T]
    return Tokens(
        advantage_T,
        weight_T,
        old_N=old_T,
        reference_N=logprob_T + torch.randn(T, device=device) * 0.3,
        sampler_N=old_T + torch.randint(0, 2, (T,), device=device) * 0.5 - 0.3,
        sequence_N=sequence_T,
    )
