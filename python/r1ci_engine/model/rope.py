"""Rotary position embedding: tables of cosines and sines. The rotation itself is a kernel.

The half-split form of Hugging Face checkpoints: element i of a head turns together with element
i + D/2.

The tables are built once for every position of the context instead of per call. A vectorised cosine
may round a value differently when a *neighbour* in its vector is large, so a per-call table would
let one sequence touch another's bits.

Shape suffixes: C position in context, F frequency, half as many as a head is wide.
"""

import math

import torch
from torch import Tensor

from r1ci_engine.model.config import RopeConfig


def rope_tables(config: RopeConfig, head_dim: int, context: int) -> tuple[Tensor, Tensor]:
    """Return `(cos_CF, sin_CF)` in fp32 on the CPU, yarn's attention factor multiplied in.

    Angles are formed in fp32 from fp32 frequencies, as the published models were trained: at
    position 30,000 the rounding of that product is about 1e-3 rad, so a more exact angle would be a
    different model.
    """
    frequency_F, attention_factor = _frequencies(config, head_dim)
    position_C = torch.arange(context, dtype=torch.float32, device="cpu")
    angle_CF = position_C[:, None] * frequency_F[None, :]
    return angle_CF.cos() * attention_factor, angle_CF.sin() * attention_factor


def _frequencies(config: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """Return radians per position for each pair, and the factor on cosine and sine."""
    exponent_F = torch.arange(0, head_dim, 2, dtype=torch.float32, device="cpu") / head_dim
    plain_F = 1.0 / (config.theta**exponent_F)
    if config.kind == "linear":
        return plain_F / config.factor, 1.0
    if config.kind == "llama3":
        return _llama3(plain_F, config), 1.0
    if config.kind == "yarn":
        return _yarn(plain_F, config, head_dim)
    return plain_F, 1.0


def _llama3(plain_F: Tensor, config: RopeConfig) -> Tensor:
    """Llama 3.1: stretch slow pairs by `factor`, keep fast ones, blend those between by turns."""
    turns_F = config.original_context * plain_F / (2 * math.pi)
    span = config.high_freq_factor - config.low_freq_factor
    keep_F = ((turns_F - config.low_freq_factor) / span).clamp(0.0, 1.0)
    return keep_F * plain_F + (1.0 - keep_F) * plain_F / config.factor


def _yarn(plain_F: Tensor, config: RopeConfig, head_dim: int) -> tuple[Tensor, float]:
    """YaRN (arXiv 2309.00071): blend by pair index between two turn counts.

    Attention is sharpened by 0.1 ln(factor) + 1 unless the config says otherwise.
    """

    def pair_turning(turns: float) -> float:
        """The (fractional) pair that makes `turns` full turns over the original context."""
        wavelength = config.original_context / (2 * math.pi * turns)
        return head_dim * math.log(wavelength) / (2 * math.log(config.theta))

    low, high = pair_turning(config.beta_fast), pair_turning(config.beta_slow)
    if config.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    span = high - low if high != low else 1e-3
    pair_F = torch.arange(head_dim // 2, dtype=torch.float32, device="cpu")
    stretch_F = ((pair_F - low) / span).clamp(0.0, 1.0)
    blended_F = stretch_F * plain_F / config.factor + (1.0 - stretch_F) * plain_F
    if config.attention_factor is not None:
        return blended_F, config.attention_factor
    return blended_F, 0.1 * math.log(config.factor) + 1.0 if config.factor > 1 else 1.0
