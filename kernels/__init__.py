"""Kernels: one file per kernel, each with its torch reference beside it.

    row_stats          logits rows -> log-probability of a target, entropy
    linear_logprob     hidden rows and head weight -> the same, in memory that does not grow with T
    linear_grpo_loss   the same and what is known of each token -> a loss, in one pass
    policy_loss        the losses themselves, on flat vectors
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
from .row_stats import row_stats, row_stats_reference

__all__ = [
    "Backend",
    "LinearLoss",
    "Normaliser",
    "PolicyLoss",
    "Tokens",
    "backend_for",
    "force_backend",
    "kv_cache_write_",
    "linear_cross_entropy",
    "linear_grpo_loss",
    "linear_grpo_loss_reference",
    "linear_logprob",
    "linear_logprob_reference",
    "policy_loss",
    "row_stats",
    "row_stats_reference",
    "token_loss",
    "token_metrics",
    "token_weights",
]
