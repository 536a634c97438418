"""The policy losses: `grpo_loss`, `dr_grpo_loss`, `dapo_loss`, one fp32 function each.

All three weigh the same per-token term and differ only in what a token counts for:

    term_t = -min(ratio_t A, clip(ratio_t, 1 - low, 1 + high) A) + beta k3_t
    ratio_t = exp(logprob_t - old_t),   k3_t = exp(d) - d - 1,   d = reference_t - logprob_t

    grpo      term / (sequences * length of its own sequence)      paper, section 3.1
    dr_grpo   term / (sequences * token budget)                    no bias towards short answers
    dapo      term / tokens                                        every token counts the same

`sequences`, `tokens` and the budget are those of the whole step: every micro-batch and rank divides
by the same numbers, so the sum of the parts is the loss whatever the split. Only model tokens come
in here; there is no mask to forget.

Shape suffix: N trained token of a micro-batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from r1ci_engine.config import GrpoSection

MAX_LOG_RATIO = 20.0
"""The ratio stops growing (and pushing) here; e^20 is far outside every clip range."""

K3_LINEAR_FROM = 10.0
"""k3 continues along its tangent above this d: finite, and still pulling towards the reference."""


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
    tokens: int
    """Trained tokens."""
    budget: int
    """Most model tokens a trajectory may have (Dr. GRPO's constant)."""


def grpo_loss(terms: TokenTerms, norm: Normaliser, section: GrpoSection) -> Tensor:
    """Mean over sequences of the mean over their tokens; a scalar, this micro-batch's share."""
    return (token_loss(terms, section) / (terms.length_N * norm.sequences)).sum()


def dr_grpo_loss(terms: TokenTerms, norm: Normaliser, section: GrpoSection) -> Tensor:
    """Sum over tokens by a constant: a long answer's tokens weigh as much as a short one's."""
    return (token_loss(terms, section) / (norm.budget * norm.sequences)).sum()


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
    return section.kl_coef * k3_divergence(terms.logprob_N, terms.reference_N) - gain_N


def policy_ratio(terms: TokenTerms) -> Tensor:
    """exp(logprob - old), `[N]`; no gradient where the logarithm leaves +-`MAX_LOG_RATIO`."""
    return (terms.logprob_N - terms.old_logprob_N).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def k3_divergence(logprob_N: Tensor, reference_N: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) from the policy's samples, `[N]`.

    Never negative. Its gradient by logprob is 1 - exp(d), which on average over the policy's
    samples is the gradient of KL(reference || policy) and vanishes where the two agree.
    """
    d_N = reference_N - logprob_N
    near_N = d_N.clamp(max=K3_LINEAR_FROM)
    beyond_N = (d_N - near_N) * (math.exp(K3_LINEAR_FROM) - 1)
    return near_N.exp() - near_N - 1 + beyond_N


def token_metrics(terms: TokenTerms, section: GrpoSection) -> dict[str, Tensor]:
    """Sums over the tokens of a micro-batch (divide by the step's tokens), and one maximum."""
    ratio_N = policy_ratio(terms).detach()
    cut_N = torch.where(
        terms.advantage_N > 0, ratio_N > 1 + section.clip_high, ratio_N < 1 - section.clip_low
    ) & (terms.advantage_N != 0)
    sums = {
        "clip/fraction": cut_N.sum(),
        "mismatch/mean": (terms.logprob_N.detach() - terms.old_logprob_N).abs().sum(),
        "ratio/max_deviation": (ratio_N - 1).abs().max(),
    }
    if terms.reference_N is not None:
        sums["kl/reference"] = k3_divergence(terms.logprob_N.detach(), terms.reference_N).sum()
    return sums
