"""Where the losses end: their bounds, tokens that do not count, and what takes no gradient."""

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from r1ci_engine.errors import ConfigError, DataError
from r1ci_engine.kernels import PolicyLoss, Tokens, policy_loss, token_loss, token_metrics
from r1ci_engine.kernels.policy_loss import (
    MAX_REFERENCE_GAP,
    divergence,
    mismatch_weights,
    policy_ratio,
)

VARIANTS = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo")
KINDS = ("k1", "k2", "k3")


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tokens_of(advantage_N: Tensor, **others: Tensor) -> Tokens:
    return Tokens(advantage_N, **{"weight_N": torch.ones_like(advantage_N), **others})


def leaf(values_N: Tensor) -> Tensor:
    return values_N.clone().requires_grad_()


# --- which losses there are -----------------------------------------------------------------------


@pytest.mark.parametrize("field", ["clip_low", "clip_high", "kl_coef", "entropy_coef"])
@pytest.mark.parametrize("value", [-1e-9, math.nan])
def test_no_bound_and_no_coefficient_is_below_zero(field: str, value: float) -> None:
    options: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=f"{field} is `{value}`"):
        PolicyLoss(**options)
    PolicyLoss(**{field: 0.0})  # pyright: ignore[reportArgumentType]


def test_a_two_sided_clip_is_beyond_the_clip() -> None:
    """At the same bound it would do what the clip does, to the other sign too."""
    with pytest.raises(ConfigError, match=r"clip_dual is `1\.25`"):
        PolicyLoss(clip_high=0.25, clip_dual=1.25)
    PolicyLoss(clip_high=0.25, clip_dual=math.nextafter(1.25, 2))


@pytest.mark.parametrize("high", [0.4, 0.0, math.nan])
def test_the_upper_bound_of_the_mismatch_is_not_below_the_lower(high: float) -> None:
    with pytest.raises(ConfigError, match=f"mismatch_high is `{high}`, below"):
        PolicyLoss(mismatch="icepop", mismatch_low=0.5, mismatch_high=high)
    PolicyLoss(mismatch="icepop", mismatch_low=0.5, mismatch_high=0.5)


@pytest.mark.parametrize("field", [field.name for field in fields(Tokens)])
@pytest.mark.parametrize("shape", [(2, 2), (4, 1), (1, 4)])
def test_as_many_numbers_in_another_shape_are_refused(field: str, shape: tuple[int, ...]) -> None:
    """They would spread over each other, or be paired with other tokens."""
    four_N = torch.ones(4)
    everything = dict.fromkeys(("old_N", "reference_N", "sampler_N"), four_N)
    tokens = tokens_of(four_N, **everything, sequence_N=torch.zeros(4).long())
    policy_loss(four_N, four_N, tokens, PolicyLoss())
    values = getattr(tokens, field)
    wrong = replace(tokens, **{field: values.view(shape)})
    for fn in (policy_loss, token_loss):
        with pytest.raises(DataError, match=f"`{field}` has shape"):
            fn(four_N, four_N, wrong, PolicyLoss())
    with pytest.raises(DataError, match=f"`{field}` has shape"):
        token_metrics(four_N, wrong, PolicyLoss())


# --- tokens that do not count ---------------------------------------------------------------------


@pytest.mark.parametrize("sequence", [0, 1, 2])
def test_a_sequence_without_weights_is_as_if_it_were_not_there(sequence: int) -> None:
    """Under gspo too, where it has no tokens to take a mean over."""
    sequence_N = torch.tensor([0, 0, 1, 1, 1, 2])
    kept_N = sequence_N != sequence
    tokens = tokens_of(
        column(1, 1, -1, -1, -1, 0.5), weight_N=kept_N * column(0.5), sequence_N=sequence_N,
        old_N=column(-1, -2, -1, -2, -3, -1),
    )  # fmt: skip
    logprob_N, entropy_N = leaf(column(-1.1, -1.9, -0.9, -2.1, -3, -1.05)), torch.zeros(6)
    loss = PolicyLoss("gspo")
    without = policy_loss(logprob_N[kept_N], entropy_N[kept_N], tokens.at(kept_N), loss)
    (expected_N,) = torch.autograd.grad(without, logprob_N)
    value = policy_loss(logprob_N, entropy_N, tokens, loss)
    (slope_N,) = torch.autograd.grad(value, logprob_N)
    torch.testing.assert_close(value, without, rtol=1e-14, atol=0)
    torch.testing.assert_close(slope_N, expected_N, rtol=1e-14, atol=0)
    assert value != 0 and torch.equal(slope_N != 0, kept_N)
    terms_N = token_loss(logprob_N, entropy_N, tokens, loss)
    assert terms_N.isfinite().all(), "nor is there a NaN for its weight to meet"


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("coefficient", [0.0, 0.1])
def test_an_entropy_that_does_not_count_may_be_anything(variant: str, coefficient: float) -> None:
    loss = PolicyLoss(variant, entropy_coef=coefficient)  # pyright: ignore[reportArgumentType]
    sequence_N, kept_N = torch.tensor([0, 0, 1, 1]), torch.tensor([True, False, True, True])
    tokens = tokens_of(
        column(1, 1, -1, -1), weight_N=kept_N * column(0.25), old_N=column(-1, -1, -1, -1),
        sequence_N=sequence_N,
    )  # fmt: skip
    logprob_N, entropy_N = leaf(column(-1.1, -1, -0.9, -1)), column(1, math.nan, 2, 3)
    spoilt_N = leaf(entropy_N)
    value = policy_loss(logprob_N, spoilt_N, tokens, loss)
    without = policy_loss(logprob_N[kept_N], entropy_N[kept_N], tokens.at(kept_N), loss)
    assert value != 0
    torch.testing.assert_close(value, without, rtol=1e-14, atol=0)
    if coefficient:
        (slope_N,) = torch.autograd.grad(value, spoilt_N)
        torch.testing.assert_close(slope_N, kept_N * column(-0.25 * coefficient))


# --- what is on a bound ---------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["grpo", "cispo"])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_a_ratio_on_a_bound_is_not_clipped(variant: str, advantage: float) -> None:
    """Its slope is whole and the metrics say so; the next number beyond is another matter."""
    log_N = column(-0.5, 0.5)
    low, high = (float(ratio) for ratio in log_N.exp())
    loss = PolicyLoss(variant, clip_low=1 - low, clip_high=high - 1)  # pyright: ignore
    assert (1 - loss.clip_low, 1 + loss.clip_high) == (low, high), "exact in fp64"
    tokens = tokens_of(column(advantage, advantage), old_N=torch.zeros_like(log_N))
    logprob_N = leaf(log_N)
    (slope_N,) = torch.autograd.grad(
        token_loss(logprob_N, torch.zeros(2), tokens, loss).sum(), logprob_N
    )
    torch.testing.assert_close(slope_N, -advantage * log_N.exp(), rtol=1e-14, atol=0)
    assert token_metrics(logprob_N, tokens, loss)["clip/fraction"].tolist() == [0, 0]
    beyond_N = log_N + column(-1e-9, 1e-9)
    expected = [1, 1] if variant == "cispo" else [float(advantage < 0), float(advantage > 0)]
    assert token_metrics(beyond_N, tokens, loss)["clip/fraction"].tolist() == expected


def test_the_bound_of_a_two_sided_clip_belongs_to_what_moves() -> None:
    logprob_N = leaf(column(1, 1 + 1e-9))
    bound = float(logprob_N.detach().exp()[0])
    loss = PolicyLoss(clip_dual=bound)
    tokens = tokens_of(column(-1, -1), old_N=column(0, 0))
    (slope_N,) = torch.autograd.grad(
        token_loss(logprob_N, torch.zeros(2), tokens, loss).sum(), logprob_N
    )
    assert slope_N.tolist() == [bound, 0.0]
    assert token_metrics(logprob_N, tokens, loss)["clip/fraction"].tolist() == [0, 1]


def test_each_ratio_of_a_sequence_is_cut_before_their_mean() -> None:
    """At e^20, so a mean may have any value up to it; what is cut no longer pulls."""
    log_N = column(19, 17, 30, 10, -30, -4, 1.6, 2.4, -3)
    sequence_N = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4])
    logprob_N = leaf(log_N)
    tokens = tokens_of(torch.ones_like(log_N), old_N=torch.zeros_like(log_N), sequence_N=sequence_N)
    ratio_N = policy_ratio(logprob_N, tokens, PolicyLoss("gspo"))
    means_N = column(18, 15, -12, 2, -3)[sequence_N]
    torch.testing.assert_close(ratio_N.detach().log(), means_N)
    (slope_N,) = torch.autograd.grad(ratio_N.log().sum(), logprob_N)
    torch.testing.assert_close(slope_N, column(1, 1, 0, 1, 0, 1, 1, 1, 1))


@pytest.mark.parametrize("gap", [-21.0, -19.0, -3.0, 3.0, 19.0, 21.0])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_of_the_old_policy_weighs_up_to_the_bound(kind: str, gap: float) -> None:
    """Value and slope of the divergence at d = 1/2, times a ratio of at most e^20."""
    tokens = tokens_of(column(0), old_N=column(-25), reference_N=column(gap - 24.5))
    logprob_N = leaf(column(gap - 25))
    value_N = divergence(logprob_N, tokens, kind)  # pyright: ignore[reportArgumentType]
    (slope_N,) = torch.autograd.grad(value_N.sum(), logprob_N)
    ratio = math.exp(max(-20.0, min(gap, 20.0)))
    estimate = {"k1": -0.5, "k2": 0.125, "k3": math.exp(0.5) - 1.5}[kind]
    assert float(value_N.detach()) == pytest.approx(ratio * estimate, rel=1e-12)
    assert float(slope_N) == pytest.approx(-0.5 * ratio, rel=1e-12)


@pytest.mark.parametrize("gap", [-21.0, -19.0, 19.0, 21.0])
def test_a_disagreement_counts_up_to_the_bound(gap: float) -> None:
    tokens = tokens_of(column(1), old_N=column(gap - 30), sampler_N=column(-30))
    weight_N = mismatch_weights(column(-1), tokens, PolicyLoss(mismatch="tis", mismatch_high=1e30))
    expected = math.exp(max(-20.0, min(gap, 20.0)))
    assert weight_N.tolist() == pytest.approx([expected], rel=1e-12)


# --- what the metrics say -------------------------------------------------------------------------


def test_nothing_is_clipped_that_has_no_advantage() -> None:
    for variant in VARIANTS:
        loss = PolicyLoss(variant, clip_dual=None if variant == "cispo" else 3.0)  # pyright: ignore
        logprob_N = column(-4, -0.5, 0, 0.5, 4)
        tokens = tokens_of(
            torch.zeros(5).double(), old_N=torch.zeros(5).double(), sequence_N=torch.arange(5)
        )
        assert token_metrics(logprob_N, tokens, loss)["clip/fraction"].tolist() == [0] * 5
        moving = replace(tokens, advantage_N=torch.full((5,), -1.0).double())
        clipped = token_metrics(logprob_N, moving, loss)["clip/fraction"].tolist()
        assert clipped == ([1, 1, 0, 1, 1] if variant == "cispo" else [1, 1, 0, 0, 1])


def test_the_two_sided_clip_takes_effect_below_zero_only() -> None:
    """An advantage above 0 has met the other clip already, wherever that is."""
    loss = PolicyLoss(clip_low=0.2, clip_high=1.0, clip_dual=3.0)
    tokens = tokens_of(column(0, -1, -1, 1, 0), old_N=torch.zeros(5).double())
    logprob_N = column(4, 4, 2.5, 2.5, 2.5).log()
    assert token_metrics(logprob_N, tokens, loss)["clip/fraction"].tolist() == [0, 1, 0, 1, 0]


def test_a_cut_by_tis_is_one_that_takes_effect() -> None:
    """Above its bound, not at it and not below, however little of the token is left."""
    factor_N = column(1e-6, 0.5, 1.0, 2.0, 2.5, 1e9)
    loss = PolicyLoss(mismatch="tis", mismatch_high=2.0)
    tokens = tokens_of(torch.ones(6).double(), old_N=factor_N.log(), sampler_N=0 * factor_N)
    # At the bound the quotient must be the bound to the last bit.
    exact = replace(loss, mismatch_high=float(factor_N.log().exp()[3]))
    cut_N = token_metrics(factor_N.log(), tokens, exact)["mismatch/cut"]
    assert cut_N.tolist() == [0, 0, 0, 0, 1, 1]


# --- what takes no gradient -----------------------------------------------------------------------


def wanting_gradients() -> tuple[Tensor, Tensor, Tokens]:
    """Log-probabilities, entropies and tokens, all of which want a gradient."""
    old_N = column(-1, -2, -3, -0.5)
    tokens = Tokens(
        advantage_N=column(1, -1, 0.5, -2),
        weight_N=torch.full((4,), 0.25).double(),
        old_N=leaf(old_N),
        reference_N=leaf(old_N - 0.3),
        sampler_N=leaf(old_N + 0.1),
        sequence_N=torch.tensor([0, 0, 1, 1]),
    )
    return leaf(old_N + 0.05), leaf(column(1, 2, 3, 4)), tokens


@pytest.mark.parametrize("mismatch", ["none", "tis", "icepop"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_past_takes_no_gradient(variant: str, mismatch: str) -> None:
    """Old policy, reference and sampler may come out of a graph: nothing flows into it."""
    loss = PolicyLoss(variant, kl_coef=0.5, entropy_coef=0.1, mismatch=mismatch)  # pyright: ignore
    logprob_N, entropy_N, tokens = wanting_gradients()
    past = (tokens.old_N, tokens.reference_N, tokens.sampler_N)
    assert all(x_N is not None and x_N.requires_grad for x_N in past)
    for fn in (policy_loss, token_loss):
        value = fn(logprob_N, entropy_N, tokens, loss).sum()
        found = torch.autograd.grad(
            value, (logprob_N, entropy_N, *past), allow_unused=True  # pyright: ignore
        )  # fmt: skip
        assert [x_N is not None and bool((x_N != 0).all()) for x_N in found[:2]] == [True, True]
        assert found[2:] == (None, None, None), fn


@pytest.mark.parametrize("mismatch", ["tis", "icepop"])
def test_a_weight_of_the_mismatch_is_no_way_to_the_policy(mismatch: str) -> None:
    """Without an old policy it is the present one that disagrees, and takes no gradient by it."""
    loss = PolicyLoss(mismatch=mismatch)  # pyright: ignore[reportArgumentType]
    logprob_N, _, tokens = wanting_gradients()
    tokens = replace(tokens, old_N=None)
    weight_N = mismatch_weights(logprob_N, tokens, loss)
    assert not weight_N.requires_grad and (weight_N > 0).all()
    value = token_loss(logprob_N, torch.zeros(4), tokens, loss).sum()
    (slope_N,) = torch.autograd.grad(value, logprob_N)
    torch.testing.assert_close(slope_N, -weight_N * tokens.advantage_N)


def test_metrics_keep_no_graph() -> None:
    """A run adds them up for thousands of steps."""
    logprob_N, _, tokens = wanting_gradients()
    found = token_metrics(logprob_N, tokens, PolicyLoss(kl_coef=0.5, mismatch="tis"))
    assert set(found) == {"clip/fraction", "ratio/max_deviation", "kl/reference", "mismatch/cut"}
    assert not any(values_N.requires_grad for values_N in found.values())
    assert all((found[name] != 0).all() for name in ("ratio/max_deviation", "kl/reference"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_gap_to_the_reference_is_cut_on_both_sides(kind: str) -> None:
    """Just inside the bound the slope still grows, beyond it is that of the bound."""
    logprob_N = leaf(column(-9.5, -11, -30, -20.5, -19, -1))
    tokens = tokens_of(torch.zeros(6).double(), reference_N=column(0, 0, 0, -30, -30, -30))
    value = divergence(logprob_N, tokens, kind).sum()  # pyright: ignore[reportArgumentType]
    (slope_N,) = torch.autograd.grad(value, logprob_N)
    bound = MAX_REFERENCE_GAP
    assert slope_N.tolist() == [-9.5, -bound, -bound, 9.5, bound, bound]
