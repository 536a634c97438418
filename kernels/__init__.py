"""Kernels: one file per kernel, each with its torch reference beside it.

    row_stats        logits rows -> log-probability of a target, entropy
    linear_logprob   hidden rows and head weight -> the same, in memory that does not grow with T
    kv_cache_write   new key and value rows -> a slot cache
    dispatch         Triton or torch: decided once, with a reason

Usable without the rest of the engine. Losses live with the trainer: nothing here knows a reward.
"""

from .dispatch import Backend, backend_for, force_backend
from .kv_cache_write import kv_cache_write_
from .linear_logprob import linear_logprob, linear_logprob_reference
from .row_stats import row_stats, row_stats_reference

__all__ = [
    "Backend",
    "backend_for",
    "force_backend",
    "kv_cache_write_",
    "linear_logprob",
    "linear_logprob_reference",
    "row_stats",
    "row_stats_reference",
]
