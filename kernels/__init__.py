"""Kernels: one file per kernel, each with its torch reference beside it.

    row_stats          logits rows -> log-probability of a target, entropy
    linear_logprob     hidden rows and head weight -> the same, in memory that does not grow with T
    linear_grpo_loss   the same and what is known of each token -> a loss, in one pass
    policy_loss        the losses themselves, on flat vectors
    rms_norm           rows -> rows of unit mean square, with the residual addition in front
    rope               query and key heads -> the same, turned by their position
    swiglu             gate and up projections -> silu(gate) up
    kv_cache_write     new key and value rows -> a slot cache
    head               the products of the head, chunk by chunk
    dispatch           Triton or torch: decided once, with a reason

Usable without the rest of the engine, in anybody's trainer: nothing here knows a model or a reward.
"""

from .dispatch import Backend, backend_for, force_backend
from .kv_cache_write import kv_cache_write_
from .linear_grpo_loss import (
    LinearLoss,
    linear_cross_entropy,
    linear_grpo_loss,
    linear_grpo_loss_reference,
)
from .linear_logprob import linear_logprob, linear_logprob_reference
from .policy_loss import (
    Normaliser,
    PolicyLoss,
    Tokens,
    policy_loss,
    token_loss,
    token_metrics,
    token_weights,
)
from .rms_norm import add_rms_norm, add_rms_norm_reference, rms_norm, rms_norm_reference
from .rope import rope, rope_reference
from .row_stats import row_stats, row_stats_reference
from .swiglu import swiglu, swiglu_reference

__all__ = [
    "Backend",
    "LinearLoss",
    "Normaliser",
    "PolicyLoss",
    "Tokens",
    "add_rms_norm",
    "add_rms_norm_reference",
    "backend_for",
    "force_backend",
    "kv_cache_write_",
    "linear_cross_entropy",
    "linear_grpo_loss",
    "linear_grpo_loss_reference",
    "linear_logprob",
    "linear_logprob_reference",
    "policy_loss",
    "rms_norm",
    "rms_norm_reference",
    "rope",
    "rope_reference",
    "row_stats",
    "row_stats_reference",
    "swiglu",
    "swiglu_reference",
    "token_loss",
    "token_metrics",
    "token_weights",
]
