"""Rows of logits -> log-probability of a target token and entropy, at a temperature.

Legend: T row, V vocabulary. With z = logits / temperature, m = max z, s = sum exp(z - m):

    lse     = m + log s
    logprob = z[target] - lse
    entropy = log s - sum exp(z - m) (z - m) / s          (shifted: exact under a common offset)
    dlogits = (g (onehot - p) - h p (log p + entropy)) / temperature,   p = exp(z - lse)

with g = dL/dlogprob and h = dL/dentropy. All arithmetic is fp32 whatever the logits are (fp64 stays
fp64 in torch). A logit of -inf is a token that cannot be drawn: p = 0, and it adds nothing.

Left out: the head product (linear_logprob.py) and every loss. `row_stats_forward` and
`row_stats_backward` are the bare halves for the operators of this package; `row_stats` is the
differentiable whole.
"""

import math
from typing import Any

import torch
from torch import Tensor

from r1ci_engine.errors import DataError

from .dispatch import HAS_TRITON, backend_for, launch, refuse_fp64

if HAS_TRITON:
    import triton
    import triton.language as tl

    # Stands in for -inf where it meets a probability of zero: their product must be zero, not nan.
    LOWEST = tl.constexpr(-3.0e38)

    @triton.jit
    def _forward_kernel(
        logits, target, logprob, entropy, lse,  # pointers
        temperature,  # scalars
        V,  # shapes
        stride_t,  # strides
        BLOCK_V: tl.constexpr,
    ):  # fmt: skip
        """One program walks one row once, keeping max, sum and weighted sum up to date."""
        row = tl.program_id(0).to(tl.int64)  # T * V passes 2^31 at 14,000 rows of a real head
        logits += row * stride_t
        m = float("-inf")
        s = 0.0
        w = 0.0  # sum exp(z - m) (z - m)
        for start in range(0, V, BLOCK_V):
            column = start + tl.arange(0, BLOCK_V)
            z = tl.load(logits + column, mask=column < V, other=float("-inf")).to(tl.float32)
            z = z / temperature
            m_new = tl.maximum(m, tl.max(z, 0))
            # Before the first finite logit there is nothing to rescale, and -inf - -inf is nan.
            origin = tl.where(m_new == float("-inf"), 0.0, m_new)
            drop = tl.where(s > 0.0, m - origin, 0.0)
            scale = tl.exp(drop)
            e = tl.exp(z - origin)
            w = scale * (w + drop * s) + tl.sum(e * tl.maximum(z - origin, LOWEST), 0)
            s = scale * s + tl.sum(e, 0)
            m = m_new
        token = tl.load(target + row)
        # A target outside the vocabulary poisons its row instead of reading a neighbour's.
        known = (token >= 0) & (token < V)
        z_target = tl.load(logits + token, mask=known, other=float("nan")).to(tl.float32)
        row_lse = m + tl.log(s)
        tl.store(logprob + row, z_target / temperature - row_lse)
        tl.store(entropy + row, tl.log(s) - w / s)
        tl.store(lse + row, row_lse)

    @triton.jit
    def _backward_kernel(
        logits, target, lse, entropy, g, h, rows, dlogits,  # pointers
        temperature,  # scalars
        V,  # shapes
        stride_t, stride_dt,  # strides
        HAS_H: tl.constexpr, HAS_ROWS: tl.constexpr, BLOCK_V: tl.constexpr,
    ):  # fmt: skip
        """One program writes the gradient of one row, rounded once, to the type of `dlogits`."""
        place = tl.program_id(0).to(tl.int64)
        row = tl.load(rows + place) if HAS_ROWS else place
        logits += row * stride_t
        dlogits += place * stride_dt
        token = tl.load(target + row)
        row_lse = tl.load(lse + row)
        row_g = tl.load(g + row)
        if HAS_H:
            row_h = tl.load(h + row)
            row_entropy = tl.load(entropy + row)
        for start in range(0, V, BLOCK_V):
            column = start + tl.arange(0, BLOCK_V)
            inside = column < V
            z = tl.load(logits + column, mask=inside, other=float("-inf")).to(tl.float32)
            log_p = z / temperature - row_lse
            p = tl.exp(log_p)
            d = tl.where(column == token, row_g, 0.0) - row_g * p
            if HAS_H:
                d -= row_h * p * (tl.maximum(log_p, LOWEST) + row_entropy)
            d = (d / temperature).to(dlogits.dtype.element_ty)
            tl.store(dlogits + column, d, mask=inside)


def row_stats_reference(
    logits_TV: Tensor, target_T: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The definition of right: plain torch, differentiated by autograd, in the type it is given."""
    logprob_TV = torch.log_softmax(logits_TV / temperature, dim=-1)
    finite_TV = logprob_TV.masked_fill(logprob_TV == -torch.inf, 0)  # 0 times -inf would be nan
    entropy_T = -(logprob_TV.exp() * finite_TV).sum(-1)
    return logprob_TV.gather(-1, target_T[:, None]).squeeze(-1), entropy_T


def row_stats(
    logits_TV: Tensor, target_T: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Log-probability of `target_T` and entropy of each row, differentiable in the logits.

    `logits_TV` is floating point, `target_T` int64 in [0, V). Both results are of shape [T], fp32
    at least. Raises DataError on shapes, types or a temperature that cannot be meant; on CPU also
    for a target outside the vocabulary, which on CUDA makes its row NaN.
    """
    check_rows(logits_TV, target_T, temperature)
    if not logits_TV.shape[1]:
        raise DataError(
            "rows of logits have no columns", hint="a vocabulary has at least one token"
        )
    logprob_T, entropy_T, _ = _row_stats(logits_TV, target_T, temperature)
    return logprob_T, entropy_T


def row_stats_forward(
    logits_TV: Tensor, target_T: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(logprob_T, entropy_T, lse_T), without autograd and without checks."""
    T, V = logits_TV.shape
    logits_TV = _with_contiguous_rows(logits_TV)
    if backend_for(logits_TV.device) == "torch":
        return _forward_torch(logits_TV, target_T, temperature)
    refuse_fp64(logits_TV)
    logprob_T, entropy_T, lse_T = (logits_TV.new_empty(T, dtype=torch.float32) for _ in range(3))
    if T:
        launch(
            _forward_kernel, (T,), logits_TV.device,
            logits_TV, target_T.contiguous(), logprob_T, entropy_T, lse_T,
            temperature, V, logits_TV.stride(0), BLOCK_V=_block(V), num_warps=8,
        )  # fmt: skip
    return logprob_T, entropy_T, lse_T


def row_stats_backward(
    logits_TV: Tensor,
    target_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    g_T: Tensor | None,
    h_T: Tensor | None,
    temperature: float,
    dtype: torch.dtype,
    rows_N: Tensor | None = None,
) -> Tensor:
    """dlogits_TV in `dtype`, from the results of `row_stats_forward` and their gradients.

    `g_T` belongs to logprob_T and `h_T` to entropy_T; None means that nothing depends on it. With
    `rows_N` (int64) only these rows are made, one after the other: dlogits_NV.
    """
    T, V = logits_TV.shape
    logits_TV = _with_contiguous_rows(logits_TV)
    g_T = torch.zeros_like(lse_T) if g_T is None else g_T.to(lse_T.dtype)
    h_T = None if h_T is None else h_T.to(lse_T.dtype)
    if backend_for(logits_TV.device) == "torch":
        if rows_N is not None:
            logits_TV, target_T, lse_T, entropy_T, g_T = (
                x[rows_N] for x in (logits_TV, target_T, lse_T, entropy_T, g_T)
            )
            h_T = None if h_T is None else h_T[rows_N]
        dlogits_TV = _backward_torch(logits_TV, target_T, lse_T, entropy_T, g_T, h_T, temperature)
        return dlogits_TV.to(dtype)
    N = T if rows_N is None else rows_N.numel()
    dlogits_TV = torch.empty((N, V), dtype=dtype, device=logits_TV.device)
    if N:
        launch(
            _backward_kernel, (N,), logits_TV.device,
            logits_TV, target_T.contiguous(), lse_T, entropy_T, g_T.contiguous(),
            None if h_T is None else h_T.contiguous(), rows_N, dlogits_TV,
            temperature, V, logits_TV.stride(0), dlogits_TV.stride(0),
            HAS_H=h_T is not None, HAS_ROWS=rows_N is not None, BLOCK_V=_block(V), num_warps=8,
        )  # fmt: skip
    return dlogits_TV


def check_rows(rows_TX: Tensor, target_T: Tensor, temperature: float) -> None:
    """Raises DataError unless every row has one int64 target and the temperature is positive."""
    if rows_TX.ndim != 2 or target_T.shape != rows_TX.shape[:1]:
        shapes = f"`{tuple(rows_TX.shape)}` and `{tuple(target_T.shape)}`"
        raise DataError(
            f"rows and targets have shapes {shapes}, expected [T, ...] and [T]",
            hint="flatten the axes of a batch: hidden.flatten(0, 1), target.flatten()",
        )
    if target_T.dtype != torch.int64 or target_T.device != rows_TX.device:
        where = f"`{target_T.dtype}` on `{target_T.device}`"
        raise DataError(f"targets are {where}, expected int64 on `{rows_TX.device}`")
    if not rows_TX.is_floating_point():
        raise DataError(f"rows are `{rows_TX.dtype}`, expected a floating type")
    if not 0 < temperature < math.inf:
        raise DataError(
            f"temperature is `{temperature}`, expected a positive number",
            hint="greedy decoding has no distribution to take a log-probability of",
        )


@torch.library.custom_op("r1ci::row_stats", mutates_args=())
def _row_stats(
    logits_TV: Tensor, target_T: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    return row_stats_forward(logits_TV, target_T, temperature)


@_row_stats.register_fake
def _like_row_stats(
    logits_TV: Tensor, target_T: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(logits_TV.dtype, torch.float32)
    one_T, two_T, three_T = (logits_TV.new_empty(target_T.shape, dtype=dtype) for _ in range(3))
    return one_T, two_T, three_T


@torch.library.custom_op("r1ci::row_stats_backward", mutates_args=())
def _row_stats_backward(
    logits_TV: Tensor,
    target_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    g_T: Tensor | None,
    h_T: Tensor | None,
    temperature: float,
) -> Tensor:
    return row_stats_backward(
        logits_TV, target_T, lse_T, entropy_T, g_T, h_T, temperature, logits_TV.dtype
    )


@_row_stats_backward.register_fake
def _like_row_stats_backward(logits_TV: Tensor, *others: Any) -> Tensor:
    return logits_TV.new_empty(logits_TV.shape)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    logits_TV, target_T, ctx.temperature = inputs
    _, entropy_T, lse_T = output
    ctx.save_for_backward(logits_TV, target_T, lse_T, entropy_T)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, g_T: Tensor | None, h_T: Tensor | None, _: Any) -> tuple[Any, ...]:
    return _row_stats_backward(*ctx.saved_tensors, g_T, h_T, ctx.temperature), None, None


_row_stats.register_autograd(_differentiate, setup_context=_setup)


def _forward_torch(
    logits_TV: Tensor, target_T: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    if target_T.is_cpu:  # on a GPU this would wait for it
        _check_targets(target_T, logits_TV.shape[1])
    z_TV = _scaled(logits_TV, temperature)
    m_T = z_TV.amax(-1)
    shifted_TV = z_TV - m_T[:, None]
    e_TV = shifted_TV.exp()
    log_s_T = e_TV.sum(-1).log_()
    # An impossible token has e = 0 and shifted = -inf: their product must be zero, not nan.
    shifted_TV.clamp_min_(torch.finfo(z_TV.dtype).min)
    entropy_T = log_s_T - e_TV.mul_(shifted_TV).sum(-1).div_(log_s_T.exp())
    lse_T = m_T + log_s_T
    return z_TV.gather(-1, target_T[:, None]).squeeze(-1) - lse_T, entropy_T, lse_T


def _backward_torch(
    logits_TV: Tensor,
    target_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    g_T: Tensor,
    h_T: Tensor | None,
    temperature: float,
) -> Tensor:
    log_p_TV = _scaled(logits_TV, temperature) - lse_T[:, None]
    g_T = g_T / temperature
    if h_T is None:
        d_TV = log_p_TV.exp_().mul_(-g_T[:, None])
    else:
        h_T = h_T / temperature
        p_TV = log_p_TV.exp()
        log_p_TV.clamp_min_(torch.finfo(log_p_TV.dtype).min)
        d_TV = log_p_TV.add_(entropy_T[:, None]).mul_(-h_T[:, None]).sub_(g_T[:, None])
        d_TV.mul_(p_TV)
    return d_TV.scatter_add_(-1, target_T[:, None], g_T[:, None])


def _check_targets(target_T: Tensor, V: int) -> None:
    outside_T = (target_T < 0) | (target_T >= V)
    if outside_T.any():
        raise DataError(
            f"a target is `{target_T[outside_T][0].item()}`, expected one from 0 to {V - 1}",
            hint="a row without a target is left out, or has weight 0 in a loss",
        )


def _scaled(logits_TV: Tensor, temperature: float) -> Tensor:
    """logits / temperature in fp32 (or fp64); the logits themselves when that changes nothing."""
    if logits_TV.dtype not in (torch.float32, torch.float64):
        logits_TV = logits_TV.float()
    return logits_TV if temperature == 1.0 else logits_TV / temperature


def _with_contiguous_rows(logits_TV: Tensor) -> Tensor:
    """A sum along a row in memory has one order; across rows it would have another."""
    return logits_TV if logits_TV.stride(1) == 1 else logits_TV.contiguous()


def _block(V: int) -> int:
    """Columns per step: enough loads in flight to fill the memory pipe, and 16 per thread."""
    return min(4096, 1 << (V - 1).bit_length())
