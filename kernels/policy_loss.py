"""The policy losses: one fp32 definition, which the fused and the plain path both call.

Each variant sums one term over the trained tokens and weighs it by what a token counts for:

    loss   = sum_t weight_t term_t
    term_t = -mismatch_t gain_t + kl_coef kl_t - entropy_coef entropy_t
    ratio  = exp(logprob - old)

              gain                                                 weight
    grpo      min(ratio A, clip(ratio, 1 - low, 1 + high) A)       1 / (sequences * own length)
    bnpo      the same                                             1 / (micro-batches *
                                                                   tokens of its own)
    dr_grpo   the same                                             1 / (sequences * token budget)
    dapo      the same                                             1 / tokens
    gspo      the same, with the geometric mean of the             1 / (sequences * own length)
              ratios of the whole sequence
    cispo     stopped(clip(ratio, 1 - low, 1 + high)) A logprob    1 / tokens

`sequences`, `tokens` and the budget are those of the whole step: every micro-batch and rank divides
by the same numbers, so the sum of the parts is the loss whatever the split (`bnpo` is the variant
that gives this up). The divergence is part of the term, so it cannot be scaled differently.

Only tokens of the model come in here; there is no mask but a weight of 0. The loss of a step is 0
at its first update when advantages cancel out, with a gradient that is not: watch the reward.

Shape suffixes: N trained token of a micro-batch, B sequence of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from r1ci_engine.errors import ConfigError, DataError

MAX_LOG_RATIO = 20.0
"""The ratio stops growing (and pushing) here; e^20 is far outside every clip range."""

MAX_REFERENCE_GAP = 10.0
"""log(reference / policy) is cut to +- this in the divergence."""

Variant = Literal["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"]
Divergence = Literal["k1", "k2", "k3"]
Mismatch = Literal["none", "tis", "icepop"]


@dataclass(frozen=True)
class PolicyLoss:
    """Which loss; the defaults are plain GRPO without a divergence.

    Raises ConfigError for a name or a bound that cannot be meant.
    """

    variant: Variant = "grpo"
    clip_low: float = 0.2
    """A ratio below 1 - clip_low stops pushing down."""
    clip_high: float = 0.2
    """A ratio above 1 + clip_high stops pushing up (DAPO: 0.28)."""
    clip_dual: float | None = None
    """Where the advantage is negative the ratio counts as at most this (two-sided clip)."""
    kl: Divergence = "k3"
    """Which estimate the value shows; the gradient is the same one for all (`divergence`)."""
    kl_coef: float = 0.0
    entropy_coef: float = 0.0
    mismatch: Mismatch = "none"
    """What exp(old - sampler) does to the gain: nothing, `tis` cuts it to at most `mismatch_high`,
    `icepop` drops tokens where it leaves [mismatch_low, mismatch_high]."""
    mismatch_low: float = 0.5
    mismatch_high: float = 2.0

    def __post_init__(self) -> None:
        for field, literal in (("variant", Variant), ("kl", Divergence), ("mismatch", Mismatch)):
            _check_name(field, getattr(self, field), literal)
        for field in ("clip_low", "clip_high", "kl_coef", "entropy_coef", "mismatch_low"):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not value >= 0:
                raise ConfigError(f"{field} is `{value!r}`, expected a number, 0 or more")
        for field in ("kl_coef", "entropy_coef"):
            if math.isinf(getattr(self, field)):
                raise ConfigError(f"{field} is infinite")
        if not self.mismatch_high >= self.mismatch_low:
            raise ConfigError(f"mismatch_high is `{self.mismatch_high}`, below mismatch_low")
        if self.clip_dual is not None and not self.clip_dual > 1 + self.clip_high:
            raise ConfigError(
                f"clip_dual is `{self.clip_dual}`",
                hint=f"it bounds ratios beyond the clip, so above {1 + self.clip_high}",
            )
        if self.clip_dual is not None and self.variant == "cispo":
            raise ConfigError(
                f"clip_dual is `{self.clip_dual}`, which does nothing in `cispo`",
                hint="its ratio is cut on both sides already; leave it at None",
            )


@dataclass(frozen=True)
class Tokens:
    """What is known of each trained token before its forward pass; numbers, `[N]` each."""

    advantage_N: Tensor
    """Of the token's trajectory."""
    weight_N: Tensor
    """What it counts for (`token_weights`); 0 leaves it out of a loss altogether."""
    old_N: Tensor | None = None
    """Log-probability that the ratio starts from. None: the present one, so the ratio is 1."""
    reference_N: Tensor | None = None
    """Log-probability under the reference model; needed exactly when `kl_coef` is above 0."""
    sampler_N: Tensor | None = None
    """Log-probability that the sampler stated; needed by `tis` and `icepop`."""
    sequence_N: Tensor | None = None
    """int64, which sequence, by any numbers; needed by `gspo`."""

    def at(self, rows: Tensor | slice) -> "Tokens":
        """These rows only, without gradients of their own."""
        return self._each(lambda values: values[rows])

    def emptied(self, kept_N: Tensor) -> "Tokens":
        """Zeros where a token is not kept, without gradients of their own."""
        return self._each(lambda values: values.where(kept_N, 0))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Tokens":
        def changed(values: Tensor | None) -> Tensor | None:
            return None if values is None else change(values.detach())

        return Tokens(
            change(self.advantage_N.detach()), change(self.weight_N.detach()), changed(self.old_N),
            changed(self.reference_N), changed(self.sampler_N), changed(self.sequence_N),
        )  # fmt: skip


@dataclass(frozen=True)
class Normaliser:
    """Counts over the whole optimizer step: all micro-batches, all ranks."""

    sequences: int
    """Sequences with at least one trained token."""
    tokens: int
    """Trained tokens."""
    budget: int
    """Most model tokens a trajectory may have (Dr. GRPO's constant), not the longest one had."""
    micro_batches: int = 1
    """For `bnpo`, which takes the mean over each and then over all of them."""

    def __post_init__(self) -> None:
        for name, count in vars(self).items():
            if not count >= 0:
                raise DataError(f"`{name}` is `{count}`, expected a count")


def token_weights(variant: Variant, length_N: Tensor, norm: Normaliser) -> Tensor:
    """What each token of one whole micro-batch counts for, `[N]`.

    `length_N` is the number of trained tokens in the token's own sequence, and 0 where the token
    itself is not trained (padding, tool output): its weight is 0 then. The result is fp32 unless
    lengths are of another floating type. Raises ConfigError for a variant that does not exist.
    """
    _check_name("variant", variant, Variant)
    if not length_N.is_floating_point():
        length_N = length_N.float()
    trained_N = length_N > 0
    sequences = max(norm.sequences, 1)  # a step may train nothing
    match variant:
        case "grpo" | "gspo":
            share_N = 1 / (sequences * length_N)
        case "bnpo":
            own = trained_N.sum().double() * max(norm.micro_batches, 1)
            share_N = (1 / own).to(length_N.dtype).expand_as(length_N)
        case "dr_grpo":
            share_N = torch.full_like(length_N, 1 / (sequences * max(norm.budget, 1)))
        case "dapo" | "cispo":
            share_N = torch.full_like(length_N, 1 / max(norm.tokens, 1))
    return share_N.where(trained_N, 0.0)


def policy_loss(logprob_N: Tensor, entropy_N: Tensor, tokens: Tokens, loss: PolicyLoss) -> Tensor:
    """This micro-batch's share of the loss, a scalar to be minimised.

    Raises DataError if the loss needs what the tokens lack, or shapes differ.
    """
    check_tokens(tokens, loss, logprob_N)
    entering_N = tokens.weight_N != 0
    logprob_N, entropy_N = (x_N.where(entering_N, 0.0) for x_N in (logprob_N, entropy_N))
    tokens = tokens.emptied(entering_N)
    return (tokens.weight_N * token_loss(logprob_N, entropy_N, tokens, loss)).sum()


def token_loss(logprob_N: Tensor, entropy_N: Tensor, tokens: Tokens, loss: PolicyLoss) -> Tensor:
    """The term of each token, `[N]`, before its weight.

    Gradients flow by `logprob_N` and, with an entropy bonus, by `entropy_N`. For every variant but
    `gspo` a token's term depends on that token alone. Raises DataError as `policy_loss` does.
    """
    check_tokens(tokens, loss, logprob_N)
    ratio_N, advantage_N = policy_ratio(logprob_N, tokens, loss), tokens.advantage_N
    clipped_N = ratio_N.detach().clamp(1 - loss.clip_low, 1 + loss.clip_high)
    if loss.variant == "cispo":
        gain_N = clipped_N * advantage_N * logprob_N
    else:
        bounded_N = ratio_N.detach().clamp(max=loss.clip_dual or torch.inf)
        stopped_N = _clip_takes_effect(ratio_N, advantage_N, loss)
        # The least of both, but with a slope that does not hang on what torch says of equal ones.
        least_N = torch.minimum(bounded_N * advantage_N, clipped_N * advantage_N)
        gain_N = least_N.where(stopped_N, ratio_N * advantage_N)
    if loss.mismatch != "none":
        gain_N = gain_N * mismatch_weights(logprob_N, tokens, loss)
    cost_N = -gain_N
    if loss.kl_coef > 0:
        cost_N = loss.kl_coef * divergence(logprob_N, tokens, loss.kl) + cost_N
    if loss.entropy_coef > 0:
        cost_N = cost_N - loss.entropy_coef * entropy_N
    return cost_N


def policy_ratio(logprob_N: Tensor, tokens: Tokens, loss: PolicyLoss) -> Tensor:
    """exp(logprob - old), `[N]`; no gradient where the logarithm leaves +-`MAX_LOG_RATIO`.

    Under `gspo` all tokens of a sequence have its geometric mean, over those that have a weight.
    """
    log_ratio_N = (logprob_N - _old(logprob_N, tokens)).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    if loss.variant == "gspo":
        log_ratio_N = _sequence_means(log_ratio_N, tokens)
    return log_ratio_N.exp()


def mismatch_weights(logprob_N: Tensor, tokens: Tokens, loss: PolicyLoss) -> Tensor:
    """What the gain counts for where trainer and sampler disagree, `[N]`, without gradient."""
    ratio_N = _mismatch_ratio(logprob_N, tokens)
    if loss.mismatch == "tis":
        return ratio_N.clamp(max=loss.mismatch_high)
    kept_N = (ratio_N >= loss.mismatch_low) & (ratio_N <= loss.mismatch_high)
    return ratio_N.where(kept_N, 0.0)


def divergence(logprob_N: Tensor, tokens: Tokens, kind: Divergence = "k3") -> Tensor:
    """Estimate of KL(policy || reference) at each token, `[N]`, with that divergence's gradient.

    With d = log(reference / policy), cut to +-`MAX_REFERENCE_GAP`, and the ratio that weighs
    samples of the old policy as the present one would:

        value      ratio (-d)                 k1: unbiased, may be negative
                   ratio d^2 / 2              k2: never negative, biased
                   ratio (exp(d) - d - 1)     k3: never negative, unbiased
        gradient   -ratio d                   by logprob, for all three: unbiased, and finite at
                                              any distance

    Autograd's own slopes would differ: k1 without the ratio's part teaches nothing on average, and
    k3's 1 - exp(d) is on average the gradient of the other divergence, KL(reference || policy),
    and explodes where the policy has all but left the reference. Beyond the cut the gradient is
    constant and still pulls towards the reference.
    """
    assert tokens.reference_N is not None
    present_N = logprob_N.detach()
    log_ratio_N = (present_N - _old(logprob_N, tokens)).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio_N = log_ratio_N.exp()
    d_N = (tokens.reference_N.detach() - present_N).clamp(-MAX_REFERENCE_GAP, MAX_REFERENCE_GAP)
    match kind:
        case "k1":
            value_N = -d_N
        case "k2":
            value_N = d_N.square() / 2
        case "k3":
            value_N = d_N.exp() - d_N - 1
    # A term that is 0 and has the stated slope, because the cut would turn autograd's sign around.
    return ratio_N * value_N - ratio_N * d_N * (logprob_N - present_N)


def may_learn(tokens: Tokens, loss: PolicyLoss) -> Tensor:
    """bool `[N]`: False where the gradient is 0 whatever the log-probability will be.

    Under `gspo` a token moves the terms of its whole sequence, also where its own is dropped.
    """
    counts_N = tokens.weight_N != 0
    if loss.kl_coef > 0 or loss.entropy_coef > 0:
        return counts_N
    counts_N = counts_N & (tokens.advantage_N != 0)
    if loss.mismatch == "icepop" and loss.variant != "gspo" and tokens.old_N is not None:
        counts_N = counts_N & (mismatch_weights(tokens.old_N, tokens, loss) != 0)
    return counts_N


@torch.no_grad()
def token_metrics(logprob_N: Tensor, tokens: Tokens, loss: PolicyLoss) -> dict[str, Tensor]:
    """What to watch, per token `[N]`; 0 where the token's weight is 0.

    `clip/fraction` (the clip takes effect), `ratio/max_deviation`, `kl/reference` with a reference,
    and `mismatch/cut` with `tis` or `icepop` (they take effect).
    """
    check_tokens(tokens, loss, logprob_N)
    entering_N = tokens.weight_N != 0
    logprob_N, tokens = logprob_N.where(entering_N, 0.0), tokens.emptied(entering_N)
    ratio_N, advantage_N = policy_ratio(logprob_N, tokens, loss), tokens.advantage_N
    values = {
        "clip/fraction": _clip_takes_effect(ratio_N, advantage_N, loss).float(),
        "ratio/max_deviation": (ratio_N - 1).abs(),
    }
    if loss.mismatch != "none":
        plain_N = _mismatch_ratio(logprob_N, tokens)
        cut_N = mismatch_weights(logprob_N, tokens, loss) != plain_N
        values["mismatch/cut"] = cut_N.float()
    if tokens.reference_N is not None:
        values["kl/reference"] = divergence(logprob_N, tokens, loss.kl)
    return {name: value_N.where(entering_N, 0.0) for name, value_N in values.items()}


def check_tokens(tokens: Tokens, loss: PolicyLoss, like: Tensor) -> None:
    """Raises DataError unless all is like `like` and nothing that the loss needs lacks."""
    if not isinstance(loss, PolicyLoss):
        raise DataError(f"the loss is `{loss!r}`", hint='such as PolicyLoss("grpo")')
    for field in fields(tokens):
        values = getattr(tokens, field.name)
        if values is None:
            continue
        if values.shape != like.shape:
            found, expected = f"`{tuple(values.shape)}`", f"`{tuple(like.shape)}`"
            raise DataError(f"`{field.name}` has shape {found}, expected {expected}")
        if values.device != like.device:
            raise DataError(f"`{field.name}` is on `{values.device}`, expected `{like.device}`")
        if field.name == "sequence_N" and values.dtype != torch.int64:
            raise DataError(f"`sequence_N` is `{values.dtype}`, expected int64")
    needs = {
        "reference_N": loss.kl_coef > 0,
        "sampler_N": loss.mismatch != "none",
        "sequence_N": loss.variant == "gspo",
    }
    for name, needed in needs.items():
        if needed and getattr(tokens, name) is None:
            raise DataError(f"the loss needs `{name}`, which is missing", hint=f"it is {loss}")


def _clip_takes_effect(ratio_N: Tensor, advantage_N: Tensor, loss: PolicyLoss) -> Tensor:
    """bool `[N]`: beyond a bound, not on it."""
    high_N, low_N = ratio_N > 1 + loss.clip_high, ratio_N < 1 - loss.clip_low
    if loss.variant == "cispo":
        return (high_N | low_N) & (advantage_N != 0)
    clipped_N = (high_N & (advantage_N > 0)) | (low_N & (advantage_N < 0))
    if loss.clip_dual is not None:
        clipped_N |= (ratio_N > loss.clip_dual) & (advantage_N < 0)
    return clipped_N


def _check_name(field: str, value: object, literal: Any) -> None:
    if value not in get_args(literal):
        known = ", ".join(f"`{name}`" for name in get_args(literal))
        raise ConfigError(f"{field} is `{value}`", hint=f"one of {known}")


def _old(logprob_N: Tensor, tokens: Tokens) -> Tensor:
    return (logprob_N if tokens.old_N is None else tokens.old_N).detach()


def _mismatch_ratio(logprob_N: Tensor, tokens: Tokens) -> Tensor:
    assert tokens.sampler_N is not None
    log_ratio_N = _old(logprob_N, tokens) - tokens.sampler_N.detach()
    return log_ratio_N.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def _sequence_means(values_N: Tensor, tokens: Tokens) -> Tensor:
    """Each sequence's mean over its tokens that have a weight, at every token of it."""
    assert tokens.sequence_N is not None
    found_B, sequence_N = tokens.sequence_N.unique(return_inverse=True)
    kept_N = (tokens.weight_N != 0).to(values_N.dtype)
    # Unlike index_add this sums in a fixed order on CUDA too.
    sum_B, count_B = (
        values_N.new_zeros(len(found_B)).index_put((sequence_N,), x_N, accumulate=True)
        for x_N in (values_N * kept_N, kept_N)
    )
    return (sum_B / count_B.clamp(min=1))[sequence_N]
