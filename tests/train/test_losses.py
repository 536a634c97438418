"""The losses on flat vectors, in fp64 against formulas written out, and their gradients."""

import math

import pytest
import torch
from torch import Tensor

from r1ci_engine.config import GrpoSection
from r1ci_engine.train.losses import (
    LOSSES,
    MAX_LOG_RATIO,
    MAX_REFERENCE_GAP,
    Normaliser,
    TokenTerms,
    policy_ratio,
    reference_divergence,
    token_loss,
    token_metrics,
)

LENGTHS = (10, 1000, 3, 57)
TOKENS = sum(LENGTHS)
NORM = Normaliser(sequences=len(LENGTHS), tokens=TOKENS, budget=2000)
VARIANTS = tuple(LOSSES)


def vectors(*, reference: bool = True, seed: int = 0) -> TokenTerms:
    """Four sequences of uneven lengths with ratios on both sides of the clip, fp64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale: float) -> Tensor:
        return scale * torch.randn(TOKENS, generator=generator, dtype=torch.float64)

    length_N = torch.tensor(LENGTHS, dtype=torch.float64).repeat_interleave(torch.tensor(LENGTHS))
    advantage_B = torch.tensor([1.5, -0.5, -0.5, 0.7], dtype=torch.float64)
    old_N = -normal(1.0).abs() - 0.1
    return TokenTerms(
        logprob_N=(old_N + normal(0.3)).requires_grad_(),
        old_logprob_N=old_N,
        reference_N=old_N + normal(0.3) if reference else None,
        advantage_N=advantage_B.repeat_interleave(torch.tensor(LENGTHS)),
        length_N=length_N,
    )


def part(terms: TokenTerms, index: Tensor) -> TokenTerms:
    reference_N = terms.reference_N
    return TokenTerms(
        terms.logprob_N[index],
        terms.old_logprob_N[index],
        None if reference_N is None else reference_N[index],
        terms.advantage_N[index],
        terms.length_N[index],
    )


def gradient(terms: TokenTerms, variant: str, section: GrpoSection, ways: int = 1) -> Tensor:
    """d loss / d logprob, the loss gathered from `ways` interleaved parts."""
    terms.logprob_N.grad = None
    for way in range(ways):
        index = torch.arange(way, TOKENS, ways)
        LOSSES[variant](part(terms, index), NORM, section).backward()
    assert terms.logprob_N.grad is not None
    return terms.logprob_N.grad


def by_hand(terms: TokenTerms, variant: str, section: GrpoSection) -> Tensor:
    """The same gradient, token by token, from the derivative on paper."""
    slopes = []
    reference_N = terms.reference_N
    for n in range(TOKENS):
        ratio = math.exp(float(terms.logprob_N.detach()[n]) - float(terms.old_logprob_N[n]))
        advantage = float(terms.advantage_N[n])
        clipped = ratio > 1 + section.clip_high if advantage > 0 else ratio < 1 - section.clip_low
        slope = 0.0 if clipped else -ratio * advantage
        if reference_N is not None:
            d = float(reference_N[n]) - float(terms.logprob_N.detach()[n])
            slope += section.kl_coef * -ratio * d
        divisor = {
            "grpo": len(LENGTHS) * float(terms.length_N[n]),
            "dr_grpo": len(LENGTHS) * 2000,
            "dapo": TOKENS,
        }[variant]
        slopes.append(slope / divisor)
    return torch.tensor(slopes, dtype=torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_is_the_one_on_paper(variant: str) -> None:
    """Equal to the hand-made one, not zero, and each term can be missed."""
    section = GrpoSection(kl_coef=0.5)
    terms = vectors()
    right = by_hand(terms, variant, section)
    assert (right != 0).all()
    torch.testing.assert_close(gradient(terms, variant, section), right, rtol=1e-12, atol=0)
    for broken in ({"kl_coef": 0.25}, {"clip_low": 0.0}, {"clip_high": 1.0}):
        wrong = gradient(terms, variant, section.model_copy(update=broken))
        assert (wrong - right).norm() > 0.01 * right.norm(), broken


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("term", ["both", "policy", "divergence"])
@pytest.mark.parametrize("ways", [2, 4, 8])
def test_parts_add_up_whatever_the_split(variant: str, term: str, ways: int) -> None:
    """Micro-batches or ranks, together or each term alone."""
    section = GrpoSection(kl_coef=0.5)
    terms = vectors(reference=term != "policy")
    if term == "divergence":
        terms.advantage_N.zero_()
    whole = gradient(terms, variant, section).clone()
    assert float(whole.norm()) > 0
    torch.testing.assert_close(gradient(terms, variant, section, ways), whole, rtol=1e-14, atol=0)


def test_weight_of_a_token_in_a_long_answer() -> None:
    """Equal under Dr. GRPO and DAPO, a hundredth under plain GRPO."""
    terms = vectors(reference=False)
    terms.advantage_N.fill_(1.0)
    terms.old_logprob_N.copy_(terms.logprob_N.detach())
    short, long = 0, 10
    ratios = {}
    for variant in VARIANTS:
        slope_N = gradient(terms, variant, GrpoSection())
        ratios[variant] = float(slope_N[short] / slope_N[long])
    assert ratios == pytest.approx({"grpo": 100.0, "dr_grpo": 1.0, "dapo": 1.0})


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
    (0.0, 1.0, False),
]


@pytest.mark.parametrize(("advantage", "ratio", "moves"), REGIONS)
def test_clip_acts_on_the_side_that_goes_too_far(
    advantage: float, ratio: float, moves: bool
) -> None:
    """The gradient is exactly -A ratio or exactly 0; bounds 0.8 and 1.28."""
    section = GrpoSection(clip_low=0.2, clip_high=0.28)
    logprob_N = torch.tensor([math.log(ratio)], dtype=torch.float64, requires_grad=True)
    zero_N, one_N = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    terms = TokenTerms(logprob_N, zero_N, None, advantage * one_N, one_N)
    token_loss(terms, section).sum().backward()
    expected = -advantage * ratio if moves else 0.0
    assert logprob_N.grad is not None
    assert float(logprob_N.grad) == pytest.approx(expected, rel=1e-14)
    clipped = float(token_metrics(terms, section)["clip/fraction"])
    assert clipped == float(advantage != 0 and not moves)


@pytest.mark.parametrize("gap", [-200.0, -50.0, 50.0, 200.0])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_any_ratio_stays_finite(gap: float, advantage: float) -> None:
    """The policy term has no inf - inf, no 0 * inf in the backward pass."""
    logprob_N = torch.tensor([gap - 1.0], requires_grad=True)
    terms = TokenTerms(
        logprob_N, torch.tensor([-1.0]), None, torch.tensor([advantage]), torch.ones(1)
    )
    loss = token_loss(terms, GrpoSection()).sum()
    loss.backward()
    assert math.isfinite(float(loss.detach()))
    assert float(policy_ratio(terms).detach()) <= math.exp(MAX_LOG_RATIO) * 1.001
    assert logprob_N.grad is not None and float(logprob_N.grad) == 0.0


# --- the divergence -------------------------------------------------------------------------------

THETA = torch.tensor([0.3, -1.2, 0.8], dtype=torch.float64)
REFERENCE = torch.tensor([-0.5, 0.9, 0.1], dtype=torch.float64).log_softmax(-1)
OLD = torch.tensor([1.0, 0.2, -0.4], dtype=torch.float64).log_softmax(-1)


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
    terms = TokenTerms(logprob, sampled_by, REFERENCE, torch.zeros(3), torch.ones(3))
    values = {
        "ours": reference_divergence(terms),
        "k1": -d,
        "k2": d.square() / 2,
        "k3": d.exp() - d - 1,
    }[estimator]
    (sampled_by.exp() * values).sum().backward()
    assert theta.grad is not None
    return theta.grad


@pytest.mark.parametrize("by", ["policy", "old policy"])
def test_divergence_has_the_exact_gradient(by: str) -> None:
    """On average the gradient of KL(policy || reference), also for old samples."""
    sampled_by = THETA.log_softmax(-1) if by == "policy" else OLD
    assert float(exact_gradient().norm()) > 0.1
    torch.testing.assert_close(expected_gradient("ours", sampled_by), exact_gradient())


def test_other_estimators_do_not() -> None:
    """K1 teaches nothing, plain k3 follows the other divergence."""
    policy = THETA.log_softmax(-1)
    assert float(expected_gradient("k1", policy).norm()) < 1e-12
    torch.testing.assert_close(expected_gradient("k2", policy), exact_gradient())
    assert float((expected_gradient("k3", policy) - exact_gradient()).norm()) > 0.1
    # Without the ratio even a right gradient is wrong for samples of another policy.
    assert float((expected_gradient("k2", OLD) - exact_gradient()).norm()) > 0.01


@pytest.mark.parametrize("by", ["policy", "old policy"])
def test_divergence_has_the_exact_value(by: str) -> None:
    policy = THETA.log_softmax(-1)
    sampled_by = policy if by == "policy" else OLD
    terms = TokenTerms(policy, sampled_by, REFERENCE, torch.zeros(3), torch.ones(3))
    value_N = reference_divergence(terms)
    assert (value_N >= 0).all()
    exact = (policy.exp() * (policy - REFERENCE)).sum()
    torch.testing.assert_close((sampled_by.exp() * value_N).sum(), exact)


@pytest.mark.parametrize("gap", [-200.0, -50.0, 50.0, 200.0])
def test_divergence_stays_finite_and_pulls_back(gap: float) -> None:
    """Far from the reference the gradient is the documented constant, not 0 or inf."""
    logprob_N = torch.tensor([-3.0], requires_grad=True)
    terms = TokenTerms(
        logprob_N, torch.tensor([-3.0]), torch.tensor([-3.0 + gap]), torch.zeros(1), torch.ones(1)
    )
    value = reference_divergence(terms).sum()
    value.backward()
    assert math.isfinite(float(value.detach())) and float(value.detach()) > 0
    assert logprob_N.grad is not None
    # The reference finds the token likelier (gap > 0): descent must raise its probability.
    assert float(logprob_N.grad) == -math.copysign(MAX_REFERENCE_GAP, gap)
