"""Draw the next token of every row and take its log-probability, both from one pass of the model.

Gumbel-max: the largest of `logits / temperature + noise` is a draw from their softmax. The noise is
a hash of (sample seed, position, vocabulary id), not the state of a generator, so a row's draw
depends on nothing but its own logits and those three numbers. The log-probability comes from the
operator that training uses (`kernels/row_stats.py`).

Left out: top-p, top-k and penalties. They would make the sampling distribution another one than the
trainer's, and its log-probabilities wrong.

Shape suffixes: N row, V vocabulary.
"""

import torch
from torch import Tensor

from r1ci_engine.kernels import row_stats


def _as_int64(value: int) -> int:
    """The same 64 bits as a signed integer, which is what torch can calculate with."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    return value - (1 << 64) if value >> 63 else value


# Constants of the SplitMix64 generator (Steele, Lea and Flood, 2014): its step is the odd integer
# nearest to 2^64 over the golden ratio, its finaliser is Stafford's thirteenth variant.
_STEP = _as_int64(0x9E37_79B9_7F4A_7C15)
_MULTIPLY_1 = _as_int64(0xBF58_476D_1CE4_E5B9)
_MULTIPLY_2 = _as_int64(0x94D0_49BB_1331_11EB)
_NOISE_BITS = 40
# Keeps the largest uniform below 1, whatever way the conversion to fp32 rounds.
_BELOW_ONE = 1.0 - 2.0**-24


def seeds_tensor(seeds: list[int], device: torch.device | str) -> Tensor:
    """Unsigned 64-bit seeds as an int64 tensor `[N]` with the same bits."""
    return torch.tensor([_as_int64(seed) for seed in seeds], dtype=torch.int64, device=device)


def sample(
    logits_NV: Tensor, temperature_N: Tensor, seeds_N: Tensor, positions_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the drawn ids (int64 `[N]`) and their log-probabilities (fp32 `[N]`).

    `logits_NV` and `temperature_N` are fp32, `seeds_N` comes from `seeds_tensor`, and
    `positions_N` is where in its sequence the drawn token will stand. The log-probability is that
    under softmax(logits / temperature). A row of temperature 0 takes its largest logit and reports
    the log-probability at temperature 1.
    """
    greedy_N = temperature_N == 0.0
    scaled_NV = logits_NV / temperature_N.masked_fill(greedy_N, 1.0)[:, None]
    noise_NV = gumbel_noise(seeds_N, positions_N, logits_NV.shape[1])
    noise_NV.masked_fill_(greedy_N[:, None], 0.0)
    tokens_N = noise_NV.add_(scaled_NV).argmax(-1)
    # A single row is doubled: torch splits a lone sum over threads, which changes its last bits.
    stats_NV, targets_N = scaled_NV, tokens_N
    if len(tokens_N) == 1:
        stats_NV, targets_N = scaled_NV.repeat(2, 1), tokens_N.repeat(2)
    logprobs_N, _ = row_stats(stats_NV, targets_N)
    return tokens_N, logprobs_N[: len(tokens_N)]


def gumbel_noise(seeds_N: Tensor, positions_N: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise, fp32 `[N, V]`.

    One SplitMix64 stream per row, started at a hash of its seed and position and read at the
    vocabulary id. An exponential variate is made from a small uniform, so that its small values,
    which are the large noises that decide a draw, keep full relative precision.
    """
    start_N = _mix(_mix(seeds_N.clone()).add_((positions_N + 1) * _STEP))
    ids_V = torch.arange(1, vocabulary + 1, dtype=torch.int64, device=seeds_N.device)
    bits_NV = _shift_right(_mix(start_N[:, None] + ids_V * _STEP), 64 - _NOISE_BITS)
    uniform_NV = bits_NV.float().add_(0.5).mul_(2.0**-_NOISE_BITS).clamp_(max=_BELOW_ONE)
    return uniform_NV.neg_().log1p_().neg_().log_().neg_()


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser, in place: every bit of the result depends on every bit of x."""
    x.bitwise_xor_(_shift_right(x, 30)).mul_(_MULTIPLY_1)
    x.bitwise_xor_(_shift_right(x, 27)).mul_(_MULTIPLY_2)
    return x.bitwise_xor_(_shift_right(x, 31))


def _shift_right(x: Tensor, count: int) -> Tensor:
    """Shift as unsigned: torch's own shift copies the sign bit."""
    return (x >> count).bitwise_and_((1 << (64 - count)) - 1)
