"""The policy losses: `grpo_loss`, `dr_grpo_loss`, `dapo_loss`, one fp32 function each.

All three sum the same term over tokens and differ only in what a token counts for:

    term_t  = -min(ratio_t A, clip(ratio_t, 1 - low, 1 + high) A) + beta kl_t
    ratio_t = exp(logprob_t - old_t)

    grpo      term / (sequences * length of its own sequence)      paper, section 3.2
    dr_grpo   term / (sequences * token budget)                    no bias towards short answers
    dapo      term / tokens                                        every token counts the same

`sequences`, `tokens` and the budget are those of the whole step: every micro-batch and rank divides
by the same numbers, so the sum of the parts is the loss whatever the split. The divergence is part
of the term, so it cannot be scaled differently. Only model tokens come in here; there is no mask.

The loss of a GRPO step is 0 at its first update when advantages cancel out, with a gradient that is
not: watch `grad/norm` and the reward, not the loss.

Shape suffix: N trained token of a micro-batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from r1ci_engine.config import GrpoSection

MAX_LOG_RATIO = 20.0
"""The ratio stops growing (and pushing) here; e^20 is far outside every clip range."""

MAX_REFERENCE_GAP = 10.0
"""log(reference / policy) is cut to +- this in the divergence."""


@dataclass(frozen=True)
class TokenTerms:
    """What is known of each trained token; all fp32 `[N]`."""

    logprob_N: Tensor
    """Under the weights being trained; carries the gradient."""
    old_logprob_N: Tensor
    """At sampling time."""
    reference_N: Tensor | None
    """Under the reference model; None without a divergence term."""
    advantage_N: Tensor
    """Of the token's trajectory."""
    length_N: Tensor
    """Trained tokens in the token's own sequence."""


@dataclass(frozen=True)
class Normaliser:
    """Counts over the whole optimizer step: all micro-batches, all ranks."""

    sequences: int
    """Sequences with at least one trained token."""
    tokens: int
    """Trained tokens."""
    budget: int
    """Most model tokens a trajectory may have (Dr. GRPO's constant), not the longest one had."""


def grpo_loss(terms: TokenTerms, norm: Normaliser, section: GrpoSection) -> Tensor:
    """Mean over sequences of the mean over their tokens; a scalar, this micro-batch's share."""
    return (token_loss(terms, section) / (norm.sequences * terms.length_N)).sum()


def dr_grpo_loss(terms: TokenTerms, norm: Normaliser, section: GrpoSection) -> Tensor:
    """Sum over tokens by a constant: a long answer's tokens weigh as much as a short one's."""
    return (token_loss(terms, section) / (norm.sequences * norm.budget)).sum()


def dapo_loss(terms: TokenTerms, norm: Normaliser, section: GrpoSection) -> Tensor:
    """Mean over all tokens of the step."""
    return (token_loss(terms, section) / norm.tokens).sum()


LOSSES: dict[str, Callable[[TokenTerms, Normaliser, GrpoSection], Tensor]] = {
    "grpo": grpo_loss,
    "dr_grpo": dr_grpo_loss,
    "dapo": dapo_loss,
}


def token_loss(terms: TokenTerms, section: GrpoSection) -> Tensor:
    """The clipped surrogate plus divergence of each token, `[N]`, to be minimised."""
    ratio_N = policy_ratio(terms)
    clipped_N = ratio_N.clamp(1 - section.clip_low, 1 + section.clip_high)
    gain_N = torch.minimum(ratio_N * terms.advantage_N, clipped_N * terms.advantage_N)
    if terms.reference_N is None:
        return -gain_N
    return section.kl_coef * reference_divergence(terms) - gain_N


def policy_ratio(terms: TokenTerms) -> Tensor:
    """exp(logprob - old), `[N]`; no gradient where the logarithm leaves +-`MAX_LOG_RATIO`."""
    return (terms.logprob_N - terms.old_logprob_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def reference_divergence(terms: TokenTerms) -> Tensor:
    """Estimate of KL(policy || reference) at each token, `[N]`, with that divergence's gradient.

    With d = log(reference / policy), cut to +-`MAX_REFERENCE_GAP`, and the ratio that weighs
    samples of the old policy as the present one would:

        value      ratio (exp(d) - d - 1)     Schulman's k3: never negative, unbiased
        gradient   -ratio d                   by logprob: unbiased too, and finite at any distance

    The gradient is d value / d logprob, the ratio's own part included. Without that part k3 would
    give 1 - exp(d), which is on average the gradient of the other divergence, KL(reference ||
    policy), and explodes where the policy has all but left the reference. Beyond the cut the
    gradient is constant and still pulls towards the reference.
    """
    assert terms.reference_N is not None
    ratio_N = policy_ratio(terms).detach()
    d_N = terms.reference_N - terms.logprob_N.detach()
    d_N = d_N.clamp(-MAX_REFERENCE_GAP, MAX_REFERENCE_GAP)
    value_N = ratio_N * (d_N.exp() - d_N - 1)
    # A term that is 0 and has the stated slope, because the cut would turn autograd's sign around.
    return value_N - ratio_N * d_N * (terms.logprob_N - terms.logprob_N.detach())


@torch.no_grad()
def token_metrics(terms: TokenTerms, section: GrpoSection) -> dict[str, Tensor]:
    """What to watch, per token `[N]`: `clip/fraction`, `ratio/max_deviation`, `kl/reference`."""
    ratio_N, advantage_N = policy_ratio(terms), terms.advantage_N
    too_high_N = (ratio_N > 1 + section.clip_high) & (advantage_N > 0)
    too_low_N = (ratio_N < 1 - section.clip_low) & (advantage_N < 0)
    values = {
        "clip/fraction": (too_high_N | too_low_N).float(),
        "ratio/max_deviation": (ratio_N - 1).abs(),
    }
    if terms.reference_N is not None:
        values["kl/reference"] = reference_divergence(terms)
    return values
