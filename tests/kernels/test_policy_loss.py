"""The losses on flat vectors, in fp64 against formulas written out, and their gradients."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1ci_engine.errors import ConfigError, DataError
from r1ci_engine.kernels import (
    Normaliser,
    PolicyLoss,
    Tokens,
    policy_loss,
    token_loss,
    token_metrics,
    token_weights,
)
from r1ci_engine.kernels.policy_loss import (
    MAX_LOG_RATIO,
    MAX_REFERENCE_GAP,
    divergence,
    may_learn,
    policy_ratio,
)

LENGTHS = (10, 1000, 3, 57)
TOKENS = sum(LENGTHS)
NORM = Normaliser(sequences=len(LENGTHS), tokens=TOKENS, budget=2000)
LENGTH_N = torch.tensor(LENGTHS, dtype=torch.float64).repeat_interleave(torch.tensor(LENGTHS))
SEQUENCE_N = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
VARIANTS = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo")
GLOBAL = ("grpo", "dr_grpo", "dapo", "cispo")
"""Variants whose parts add up whatever the split."""

EVERYTHING: dict[str, Any] = {
    "clip_dual": 1.5, "kl_coef": 0.5, "entropy_coef": 0.1,
    "mismatch": "tis", "mismatch_high": 1.2,
}  # fmt: skip
Leaves = tuple[Tensor, Tensor, Tokens]


def leaves(variant: str, seed: int = 0) -> Leaves:
    """Four sequences of uneven lengths with ratios on both sides of every bound, fp64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale: float) -> Tensor:
        return scale * torch.randn(TOKENS, generator=generator, dtype=torch.float64)

    advantage_B = torch.tensor([1.5, -0.5, -0.5, 0.7], dtype=torch.float64)
    old_N = -normal(1.0).abs() - 0.1
    # One shift a sequence, so that its mean ratio leaves the clip as well.
    shift_N = torch.tensor([-0.3, 0.6, -0.5, 0.28], dtype=torch.float64)[SEQUENCE_N]
    tokens = Tokens(
        advantage_N=advantage_B[SEQUENCE_N],
        weight_N=token_weights(variant, LENGTH_N, NORM),  # pyright: ignore[reportArgumentType]
        old_N=old_N,
        reference_N=old_N + normal(0.3),
        sampler_N=old_N + normal(0.3),
        sequence_N=SEQUENCE_N,
    )
    logprob_N = (old_N + shift_N + normal(0.3)).requires_grad_()
    return logprob_N, normal(1.0).abs().requires_grad_(), tokens


def slopes(made: Leaves, loss: PolicyLoss) -> tuple[Tensor, Tensor]:
    """(d loss / d logprob, d loss / d entropy)."""
    logprob_N, entropy_N, tokens = made
    value = policy_loss(logprob_N, entropy_N, tokens, loss)
    found = torch.autograd.grad(value, (logprob_N, entropy_N), allow_unused=True)
    g_N, h_N = (torch.zeros_like(logprob_N) if slope is None else slope for slope in found)
    return g_N, h_N


def by_hand(made: Leaves, loss: PolicyLoss) -> tuple[Tensor, Tensor]:
    """The same, token by token, from the derivative on paper."""
    logprobs, _, tokens = made
    assert tokens.old_N is not None and tokens.reference_N is not None
    assert tokens.sampler_N is not None
    logs = [float(a) - float(b) for a, b in zip(logprobs.detach(), tokens.old_N, strict=True)]
    means = [
        sum(logs[n] for n in range(TOKENS) if SEQUENCE_N[n] == b) / LENGTHS[b]
        for b in range(len(LENGTHS))
    ]
    g, h = [], []
    for n in range(TOKENS):
        sequence, advantage = int(SEQUENCE_N[n]), float(tokens.advantage_N[n])
        own = math.exp(logs[n])
        ratio = math.exp(means[sequence]) if loss.variant == "gspo" else own
        if loss.variant == "cispo":
            slope = min(max(ratio, 1 - loss.clip_low), 1 + loss.clip_high) * advantage
        else:
            stopped = (
                ratio > 1 + loss.clip_high
                if advantage > 0
                else ratio < 1 - loss.clip_low
                or (loss.clip_dual is not None and ratio > loss.clip_dual)
            )
            slope = 0.0 if stopped else ratio * advantage
        if loss.mismatch != "none":
            factor = math.exp(float(tokens.old_N[n]) - float(tokens.sampler_N[n]))
            if loss.mismatch == "tis":
                slope *= min(factor, loss.mismatch_high)
            elif not loss.mismatch_low <= factor <= loss.mismatch_high:
                slope = 0.0
            else:
                slope *= factor
        d = float(tokens.reference_N[n]) - float(logprobs.detach()[n])
        length = LENGTHS[sequence]
        weight = {
            "grpo": 1 / (len(LENGTHS) * length),
            "bnpo": 1 / TOKENS,
            "dr_grpo": 1 / (len(LENGTHS) * 2000),
            "dapo": 1 / TOKENS,
            "gspo": 1 / (len(LENGTHS) * length),
            "cispo": 1 / TOKENS,
        }[loss.variant]
        g.append((weight * slope, -weight * loss.kl_coef * own * d))
        h.append(-weight * loss.entropy_coef)
    policy_N = torch.tensor([part for part, _ in g], dtype=torch.float64)
    if loss.variant == "gspo":  # each token moves the ratio of all tokens of its sequence
        length_B = torch.tensor(LENGTHS, dtype=torch.float64)
        sum_B = torch.zeros(len(LENGTHS), dtype=torch.float64).index_add(0, SEQUENCE_N, policy_N)
        policy_N = (sum_B / length_B)[SEQUENCE_N]
    held_N = torch.tensor([part for _, part in g], dtype=torch.float64)
    return held_N - policy_N, torch.tensor(h, dtype=torch.float64)


@pytest.mark.parametrize("mismatch", ["none", "tis", "icepop"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_is_the_one_on_paper(variant: str, mismatch: str) -> None:
    """Equal to the hand-made one, not zero, and each term can be missed."""
    options: dict[str, Any] = {**EVERYTHING, "mismatch": mismatch, "variant": variant}
    if variant == "cispo":
        options["clip_dual"] = None
    loss = PolicyLoss(**options)
    made = leaves(variant)
    right_g, right_h = by_hand(made, loss)
    assert (right_g != 0).all() and (right_h != 0).all()
    found_g, found_h = slopes(made, loss)
    torch.testing.assert_close(found_g, right_g, rtol=1e-10, atol=1e-18)
    torch.testing.assert_close(found_h, right_h, rtol=1e-12, atol=0)
    broken: list[dict[str, Any]] = [{"kl_coef": 0.25}, {"clip_low": 0.9}, {"clip_high": 0.45}]
    broken += [{"clip_dual": None}] if variant != "cispo" else []
    broken += [{"mismatch": "none"}, {"mismatch_high": 1.05}] if mismatch != "none" else []
    broken += [{"variant": "dapo" if variant != "dapo" else "cispo", "clip_dual": None}]
    for change in broken:
        wrong = replace(loss, **change)
        weighted = replace(made[2], weight_N=token_weights(wrong.variant, LENGTH_N, NORM))
        wrong_g, _ = slopes((made[0], made[1], weighted), wrong)
        if variant == "bnpo" and change.get("variant") == "dapo":
            continue  # of one micro-batch they are the same
        assert (wrong_g - right_g).norm() > 1e-3 * right_g.norm(), change


@pytest.mark.parametrize("variant", GLOBAL)
@pytest.mark.parametrize("term", ["both", "policy", "divergence"])
@pytest.mark.parametrize("ways", [2, 4, 8])
def test_parts_add_up_whatever_the_split(variant: str, term: str, ways: int) -> None:
    """Micro-batches or ranks, together or each term alone."""
    loss = PolicyLoss(variant=variant, kl_coef=0.0 if term == "policy" else 0.5)  # pyright: ignore
    logprob_N, entropy_N, tokens = leaves(variant)
    if term == "divergence":
        tokens.advantage_N.zero_()
    whole, _ = slopes((logprob_N, entropy_N, tokens), loss)
    assert float(whole.norm()) > 0
    total = torch.zeros_like(whole)
    for way in range(ways):
        index = torch.arange(way, TOKENS, ways)
        value = policy_loss(logprob_N[index], entropy_N[index], tokens.at(index), loss)
        total += torch.autograd.grad(value, logprob_N)[0]
    torch.testing.assert_close(total, whole, rtol=1e-14, atol=0)


def test_a_mean_of_micro_batches_is_what_bnpo_takes() -> None:
    """Each of two unequal parts counts for half, whatever its tokens."""
    norm = replace(NORM, micro_batches=2)
    for length_N in (LENGTH_N[:10], LENGTH_N[10:]):
        weight_N = token_weights("bnpo", length_N, norm)
        assert float(weight_N.sum()) == pytest.approx(0.5)
        assert weight_N.unique().numel() == 1


def test_weight_of_a_token_in_a_long_answer() -> None:
    """A hundredth under plain GRPO and GSPO, equal under the others."""
    ratios = {}
    for variant in VARIANTS:
        weight_N = token_weights(variant, LENGTH_N, NORM)  # pyright: ignore[reportArgumentType]
        ratios[variant] = float(weight_N[0] / weight_N[10])
    expected = dict.fromkeys(VARIANTS, 1.0) | {"grpo": 100.0, "gspo": 100.0}
    assert ratios == pytest.approx(expected)


REGIONS = [
    # advantage, ratio, moves
    (+1.0, 0.5, True),
    (+1.0, 1.0, True),
    (+1.0, 1.25, True),
    (+1.0, 1.4, False),
    (-1.0, 0.7, False),
    (-1.0, 0.85, True),
    (-1.0, 1.0, True),
    (-1.0, 1.4, True),
    (-1.0, 2.9, True),
    (-1.0, 3.1, False),
    (0.0, 1.0, False),
]


def one_token(advantage: float, **others: float) -> Tokens:
    values = {name: torch.tensor([value]).double() for name, value in others.items()}
    return Tokens(torch.tensor([advantage]).double(), torch.ones(1).double(), **values)


@pytest.mark.parametrize(("advantage", "ratio", "moves"), REGIONS)
def test_clip_acts_on_the_side_that_goes_too_far(
    advantage: float, ratio: float, moves: bool
) -> None:
    """The gradient is exactly -A ratio or exactly 0; bounds 0.8, 1.28 and 3."""
    loss = PolicyLoss(clip_low=0.2, clip_high=0.28, clip_dual=3.0)
    logprob_N = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    tokens = one_token(advantage, old_N=0.0)
    token_loss(logprob_N, torch.zeros(1), tokens, loss).sum().backward()
    expected = -advantage * ratio if moves else 0.0
    assert logprob_N.grad is not None
    assert float(logprob_N.grad) == pytest.approx(expected, rel=1e-14)
    clipped = float(token_metrics(logprob_N, tokens, loss)["clip/fraction"])
    assert clipped == float(advantage != 0 and not moves)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("gap", [-200.0, -50.0, 50.0, 200.0])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_any_ratio_stays_finite(variant: str, gap: float, advantage: float) -> None:
    """The policy term has no inf - inf, no 0 * inf in the backward pass."""
    loss = PolicyLoss(variant=variant, mismatch="tis")  # pyright: ignore[reportArgumentType]
    logprob_N = torch.tensor([gap - 1.0], requires_grad=True)
    tokens = replace(
        one_token(advantage, old_N=-1.0, sampler_N=-300.0), sequence_N=torch.zeros(1).long()
    )
    value = token_loss(logprob_N, torch.zeros(1), tokens, loss).sum()
    value.backward()
    assert math.isfinite(float(value.detach()))
    assert float(policy_ratio(logprob_N, tokens, loss).detach()) <= math.exp(MAX_LOG_RATIO) * 1.001
    assert logprob_N.grad is not None and math.isfinite(float(logprob_N.grad))
    if variant != "cispo":
        assert float(logprob_N.grad) == 0.0


@pytest.mark.parametrize("gap", [-19.0, 19.0, -21.0, 21.0])
def test_a_ratio_grows_up_to_its_bound(gap: float) -> None:
    """e^20: what is below moves still."""
    logprob_N = torch.tensor([gap], dtype=torch.float64, requires_grad=True)
    ratio_N = policy_ratio(logprob_N, one_token(1.0, old_N=0.0), PolicyLoss())
    assert float(ratio_N.detach()) == pytest.approx(math.exp(max(-20.0, min(gap, 20.0))))
    (slope_N,) = torch.autograd.grad(ratio_N.sum(), logprob_N)
    assert float(slope_N) == (float(ratio_N.detach()) if abs(gap) < 20 else 0.0)


@pytest.mark.parametrize(("low", "high"), [(1.0, 2.0), (0.5, 1.0), (1.0, 1.0)])
def test_the_bounds_of_icepop_belong_to_what_it_keeps(low: float, high: float) -> None:
    loss = PolicyLoss(mismatch="icepop", mismatch_low=low, mismatch_high=high)
    tokens = one_token(1.0, old_N=-2.0, sampler_N=-2.0)  # a ratio of exactly 1
    logprob_N = torch.tensor([-2.0], dtype=torch.float64)
    assert token_loss(logprob_N, torch.zeros(1), tokens, loss).tolist() == [-1.0]
    assert token_metrics(logprob_N, tokens, loss)["mismatch/cut"].tolist() == [0.0]
    assert may_learn(tokens, loss).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_weight_below_zero_counts(variant: str) -> None:
    """All of them: the loss the other way round. Some: still tokens of their sequence."""
    loss = PolicyLoss(variant=variant)  # pyright: ignore[reportArgumentType]
    logprob_N, entropy_N, tokens = leaves(variant)
    value = policy_loss(logprob_N, entropy_N, tokens, loss)
    (slope_N,) = torch.autograd.grad(value, logprob_N)
    opposite = replace(tokens, weight_N=-tokens.weight_N)
    turned = policy_loss(logprob_N, entropy_N, opposite, loss)
    (turned_N,) = torch.autograd.grad(turned, logprob_N)
    assert value != 0 and (slope_N != 0).any()
    assert torch.equal(turned, -value) and torch.equal(turned_N, -slope_N)
    signs_N = torch.where(torch.arange(TOKENS) % 3 == 0, -1.0, 1.0).double()
    terms_N = token_loss(logprob_N, entropy_N, tokens, loss)
    mixed = replace(tokens, weight_N=signs_N * tokens.weight_N)
    torch.testing.assert_close(
        policy_loss(logprob_N, entropy_N, mixed, loss), (mixed.weight_N * terms_N).sum()
    )


@pytest.mark.parametrize("mismatch", ["tis", "icepop"])
@pytest.mark.parametrize("gap", [-300.0, 300.0])
def test_any_disagreement_stays_finite(mismatch: str, gap: float) -> None:
    """Weights of the mismatch and ratios of the divergence are cut as the ratio is."""
    loss = PolicyLoss(mismatch=mismatch, mismatch_high=1e30, kl_coef=1.0)  # pyright: ignore
    logprob_N = torch.tensor([-1.0], requires_grad=True)
    tokens = one_token(1.0, old_N=-1.0 - gap, sampler_N=-1.0, reference_N=-2.0)
    value = token_loss(logprob_N, torch.zeros(1), tokens, loss).sum()
    value.backward()
    assert logprob_N.grad is not None
    assert math.isfinite(float(value.detach())) and math.isfinite(float(logprob_N.grad))


def test_metrics_say_what_took_effect() -> None:
    """Token by token: the clip, how far the ratio went, the divergence, the mismatch."""
    loss = PolicyLoss(
        clip_low=0.2, clip_high=0.2, clip_dual=3.0, kl="k1", kl_coef=1.0,
        mismatch="icepop", mismatch_low=0.5, mismatch_high=2.0,
    )  # fmt: skip
    ratio_N = torch.tensor([0.5, 0.5, 1.5, 1.5, 4.0, 1.0])
    tokens = Tokens(
        advantage_N=torch.tensor([1.0, -1.0, 1.0, -1.0, -1.0, 1.0]),
        weight_N=torch.ones(6),
        old_N=torch.full((6,), -2.0),
        reference_N=torch.full((6,), -2.0),
        sampler_N=-2.0 - torch.tensor([1.0, 3.0, 0.4, 1.9, 1.0, 1.0]).log(),
        sequence_N=torch.tensor([0, 0, 0, 0, 0, 1]),
    )
    logprob_N = -2.0 + ratio_N.log()
    found = token_metrics(logprob_N, tokens, loss)
    assert found["clip/fraction"].tolist() == [0, 1, 1, 0, 1, 0]
    assert found["ratio/max_deviation"].tolist() == pytest.approx([0.5, 0.5, 0.5, 0.5, 3.0, 0.0])
    assert found["kl/reference"].tolist() == pytest.approx((ratio_N * ratio_N.log()).tolist())
    assert found["mismatch/cut"].tolist() == [0, 1, 1, 0, 0, 0]
    both = PolicyLoss("cispo", clip_low=0.2, clip_high=0.2)
    assert token_metrics(logprob_N, tokens, both)["clip/fraction"].tolist() == [1, 1, 1, 1, 1, 0]
    means = token_metrics(logprob_N, tokens, PolicyLoss("gspo"))["ratio/max_deviation"]
    assert means[:5].unique().numel() == 1 and float(means[5]) == 0.0


@pytest.mark.parametrize(
    ("loss", "missing"),
    [
        (PolicyLoss(kl_coef=0.1), "reference_N"),
        (PolicyLoss(mismatch="tis"), "sampler_N"),
        (PolicyLoss("gspo"), "sequence_N"),
    ],
)
def test_what_a_loss_needs_is_named(loss: PolicyLoss, missing: str) -> None:
    tokens = Tokens(torch.ones(2), torch.ones(2))
    for fn in (policy_loss, token_loss):
        with pytest.raises(DataError, match=f"needs `{missing}`"):
            fn(torch.zeros(2), torch.zeros(2), tokens, loss)
    with pytest.raises(DataError, match=f"needs `{missing}`"):
        token_metrics(torch.zeros(2), tokens, loss)


def test_a_weight_of_zero_leaves_a_token_out() -> None:
    """Whatever stands there, also as a neighbour in its sequence."""
    for variant in VARIANTS:
        loss = PolicyLoss(variant)  # pyright: ignore[reportArgumentType]
        logprob_N, entropy_N, tokens = leaves(variant)
        kept_N = torch.arange(TOKENS) % 3 > 0
        without = policy_loss(logprob_N[kept_N], entropy_N[kept_N], tokens.at(kept_N), loss)
        tokens.weight_N[~kept_N] = 0.0
        assert tokens.old_N is not None
        tokens.old_N[~kept_N] = float("inf")
        spoilt_N = logprob_N.detach().masked_fill(~kept_N, float("nan")).requires_grad_()
        value = policy_loss(spoilt_N, entropy_N, tokens, loss)
        torch.testing.assert_close(value, without)
        (slope_N,) = torch.autograd.grad(value, spoilt_N)
        assert (slope_N[~kept_N] == 0).all() and slope_N.isfinite().all()


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "gspo"])
def test_a_compiler_takes_it_whole(variant: str) -> None:
    """But for gspo, whose number of sequences is data; the fused operator takes that too."""
    torch.compiler.reset()
    logprob_N, entropy_N, tokens = leaves(variant)
    loss = PolicyLoss(variant, kl_coef=0.1)  # pyright: ignore[reportArgumentType]
    compiled = torch.compile(policy_loss, backend="aot_eager", fullgraph=True)
    value = compiled(logprob_N, entropy_N, tokens, loss)
    assert value != 0 and value == policy_loss(logprob_N, entropy_N, tokens, loss)


@pytest.mark.parametrize("variant", VARIANTS)
def test_lengths_may_be_whole_numbers(variant: str) -> None:
    found = token_weights(variant, LENGTH_N.long(), NORM)  # pyright: ignore[reportArgumentType]
    expected = token_weights(variant, LENGTH_N.float(), NORM)  # pyright: ignore
    assert torch.equal(found, expected) and found.dtype == torch.float32 and (found > 0).all()


def test_without_old_log_probabilities_the_ratio_is_one() -> None:
    """On-policy: the gradient is that of the advantage times the log-probability."""
    logprob_N = torch.tensor([-3.0, -0.5], dtype=torch.float64, requires_grad=True)
    tokens = Tokens(torch.tensor([2.0, -1.0]).double(), torch.ones(2).double())
    value = token_loss(logprob_N, torch.zeros(2), tokens, PolicyLoss())
    assert value.tolist() == [-2.0, 1.0]
    (slope_N,) = torch.autograd.grad(value.sum(), logprob_N)
    assert slope_N.tolist() == [-2.0, 1.0]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    "options", [{}, {"kl_coef": 0.1}, {"entropy_coef": 0.1}, {"mismatch": "icepop"}]
)
def test_what_may_not_learn_has_no_slope(variant: str, options: dict[str, Any]) -> None:
    """Exactly zero by both inputs where it says so; and it says so where it can."""
    loss = PolicyLoss(variant=variant, **options)  # pyright: ignore[reportArgumentType]
    logprob_N, entropy_N, tokens = leaves(variant)
    tokens.advantage_N[SEQUENCE_N == 1] = 0.0
    tokens.weight_N[SEQUENCE_N == 2] = 0.0
    g_N, h_N = slopes((logprob_N, entropy_N, tokens), loss)
    learns_N = may_learn(tokens, loss)
    assert (g_N[~learns_N] == 0).all() and (h_N[~learns_N] == 0).all()
    still = {1} if not options or "mismatch" in options else set()
    for sequence in range(4):
        kept = bool(learns_N[sequence == SEQUENCE_N].any())
        assert kept == (sequence != 2 and sequence not in still), sequence
    if "mismatch" in options and variant != "gspo":
        assert 0 < int(learns_N[SEQUENCE_N == 3].sum()) < LENGTHS[3]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"variant": "ppo"}, "variant is `ppo`"),
        ({"kl": "k4"}, "kl is `k4`"),
        ({"mismatch": "mis"}, "mismatch is `mis`"),
        ({"clip_low": -0.1}, "clip_low is `-0.1`"),
        ({"kl_coef": math.nan}, "kl_coef is `nan`"),
        ({"clip_dual": 1.1}, "clip_dual is `1.1`"),
        ({"clip_dual": 3.0, "variant": "cispo"}, "does nothing in `cispo`"),
        ({"mismatch_low": -1.0}, "mismatch_low is `-1.0`"),
        ({"mismatch_low": 3.0}, "mismatch_high is `2.0`"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        PolicyLoss(**options)


# --- the divergence -------------------------------------------------------------------------------

THETA = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)
REFERENCE = torch.tensor([-0.5, 0.9, 0.1], dtype=torch.float64).log_softmax(-1)
OLD = torch.tensor([1.0, 0.2, -0.4], dtype=torch.float64).log_softmax(-1)
KINDS = ("k1", "k2", "k3")


def three_tokens(sampled_by: Tensor) -> Tokens:
    return Tokens(torch.zeros(3), torch.ones(3), old_N=sampled_by, reference_N=REFERENCE)


def exact_gradient() -> Tensor:
    """Of KL(policy || reference) over three tokens, by enumeration."""
    theta = THETA.clone().requires_grad_()
    logprob = theta.log_softmax(-1)
    (logprob.exp() * (logprob - REFERENCE)).sum().backward()
    assert theta.grad is not None
    return theta.grad


def expected_gradient(estimator: str, sampled_by: Tensor) -> Tensor:
    """Mean over tokens drawn from `sampled_by` of the estimator's gradient."""
    theta = THETA.clone().requires_grad_()
    logprob = theta.log_softmax(-1)
    d = REFERENCE - logprob
    if estimator in KINDS:
        values = divergence(logprob, three_tokens(sampled_by), estimator)  # pyright: ignore
    else:
        values = {"plain k1": -d, "plain k2": d.square() / 2, "plain k3": d.exp() - d - 1}[
            estimator
        ]
    (sampled_by.exp() * values).sum().backward()
    assert theta.grad is not None
    return theta.grad


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["policy", "old policy"])
def test_divergence_has_the_exact_gradient(kind: str, by: str) -> None:
    """On average the gradient of KL(policy || reference), also for old samples."""
    sampled_by = THETA.log_softmax(-1) if by == "policy" else OLD
    assert float(exact_gradient().norm()) > 0.1
    torch.testing.assert_close(expected_gradient(kind, sampled_by), exact_gradient())


def test_other_estimators_do_not() -> None:
    """Plain k1 teaches nothing, plain k3 follows the other divergence."""
    policy = THETA.log_softmax(-1)
    assert float(expected_gradient("plain k1", policy).norm()) < 1e-12
    torch.testing.assert_close(expected_gradient("plain k2", policy), exact_gradient())
    assert float((expected_gradient("plain k3", policy) - exact_gradient()).norm()) > 0.1
    # Without the ratio even a right gradient is wrong for samples of another policy.
    assert float((expected_gradient("plain k2", OLD) - exact_gradient()).norm()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["policy", "old policy"])
def test_divergence_has_the_stated_value(kind: str, by: str) -> None:
    """k1 and k3 show the exact divergence on average, k2 does not; k2 and k3 are never negative."""
    policy = THETA.log_softmax(-1)
    sampled_by = policy if by == "policy" else OLD
    value_N = divergence(policy, three_tokens(sampled_by), kind)  # pyright: ignore
    exact = (policy.exp() * (policy - REFERENCE)).sum()
    shown = (sampled_by.exp() * value_N).sum()
    assert bool((value_N >= 0).all()) == (kind != "k1")
    assert (abs(float(shown - exact)) < 1e-12) == (kind != "k2")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gap", [-200.0, -50.0, 50.0, 200.0])
def test_divergence_stays_finite_and_pulls_back(kind: str, gap: float) -> None:
    """Far from the reference the gradient is the documented constant, not 0 or inf."""
    logprob_N = torch.tensor([-3.0], requires_grad=True)
    tokens = one_token(0.0, old_N=-3.0, reference_N=-3.0 + gap)
    value = divergence(logprob_N, tokens, kind).sum()  # pyright: ignore
    value.backward()
    assert math.isfinite(float(value.detach())) and float(value.detach()) != 0
    assert logprob_N.grad is not None
    # The reference finds the token likelier (gap > 0): descent must raise its probability.
    assert float(logprob_N.grad) == -math.copysign(MAX_REFERENCE_GAP, gap)
