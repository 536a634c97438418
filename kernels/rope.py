"""Query and key heads -> the same, turned by their token's angles (rotary position embedding).

Legend: T token, H query head, K key head, D head width, F = D/2 pair. Element f of a head turns
together with element f + F; with c, s the cosine and sine of the token's angle for pair f, in fp32:

    y[f]     = x[f] c - x[f + F] s
    y[f + F] = x[f + F] c + x[f] s            each rounded once, to the type of x

Backward is the same with -s: the map is linear, and its transpose turns the other way. Tables may
carry a factor (yarn); they are constants, without a gradient.

Both tensors are turned in one launch. The Triton path is a custom operator, opaque to
`torch.compile`, whose gradient is the operator itself; on the torch path the reference is all there
is. Left out: the tables, interleaved pairs, heads of which only a part turns.
"""

from typing import Any

import torch
from torch import Tensor

from r1ci_engine.errors import DataError

from .dispatch import HAS_TRITON, backend_for, launch, refuse_fp64

if HAS_TRITON:
    import triton
    import triton.language as tl

    @triton.jit
    def _turn(
        x, y,  # pointers
        c, s,  # scalars
        HEADS, F,  # shapes
        stride_h,  # strides
        BLOCK_H: tl.constexpr, BLOCK_F: tl.constexpr,
    ):  # fmt: skip
        """All heads of one token; those at `y` lie side by side."""
        head = tl.arange(0, BLOCK_H).to(tl.int64)[:, None]
        pair = tl.arange(0, BLOCK_F)[None, :]
        inside = (head < HEADS) & (pair < F)
        x += head * stride_h + pair
        y += head * (2 * F) + pair
        first = tl.load(x, mask=inside, other=0.0).to(tl.float32)
        second = tl.load(x + F, mask=inside, other=0.0).to(tl.float32)
        tl.store(y, (first * c - second * s).to(y.dtype.element_ty), mask=inside)
        tl.store(y + F, (second * c + first * s).to(y.dtype.element_ty), mask=inside)

    @triton.jit
    def _rope_kernel(
        q, k, cos, sin, q_turned, k_turned,  # pointers
        H, K, F,  # shapes
        stride_qt, stride_qh, stride_kt, stride_kh, stride_cos, stride_sin,  # strides
        INVERSE: tl.constexpr,
        BLOCK_H: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_F: tl.constexpr,
    ):  # fmt: skip
        """One program turns one token."""
        t = tl.program_id(0).to(tl.int64)
        pair = tl.arange(0, BLOCK_F)[None, :]
        c = tl.load(cos + t * stride_cos + pair, mask=pair < F, other=0.0).to(tl.float32)
        s = tl.load(sin + t * stride_sin + pair, mask=pair < F, other=0.0).to(tl.float32)
        if INVERSE:
            s = -s
        _turn(q + t * stride_qt, q_turned + t * H * 2 * F, c, s, H, F, stride_qh, BLOCK_H, BLOCK_F)
        _turn(k + t * stride_kt, k_turned + t * K * 2 * F, c, s, K, F, stride_kh, BLOCK_K, BLOCK_F)


def rope_reference(
    q_THD: Tensor, k_TKD: Tensor, cos_TF: Tensor, sin_TF: Tensor
) -> tuple[Tensor, Tensor]:
    """The definition of right, rounding points included: plain torch, with its autograd."""
    cos_T1F, sin_T1F = cos_TF.unsqueeze(1), sin_TF.unsqueeze(1)
    return rotate(q_THD, cos_T1F, sin_T1F), rotate(k_TKD, cos_T1F, sin_T1F)


def rotate(x_THD: Tensor, cos_T1F: Tensor, sin_T1F: Tensor) -> Tensor:
    """Turn every head of one tensor, in fp32 (or fp64), rounded to the type of `x_THD`."""
    wide_THD = x_THD if x_THD.dtype == torch.float64 else x_THD.float()
    first_THF, second_THF = wide_THD.chunk(2, dim=-1)
    turned_THD = torch.cat(
        (first_THF * cos_T1F - second_THF * sin_T1F, second_THF * cos_T1F + first_THF * sin_T1F),
        dim=-1,
    )
    return turned_THD.to(x_THD.dtype)


def rope(q_THD: Tensor, k_TKD: Tensor, cos_TF: Tensor, sin_TF: Tensor) -> tuple[Tensor, Tensor]:
    """`q_THD` and `k_TKD` turned by the angles of their tokens, differentiable in both.

    Both of one type (bf16, fp16 or fp32) and with any strides; the tables in fp32. Raises DataError
    when shapes or types do not fit, and for fp64 on the Triton path.
    """
    _check(q_THD, k_TKD, cos_TF, sin_TF)
    if backend_for(q_THD.device) == "torch":
        return rope_reference(q_THD, k_TKD, cos_TF, sin_TF)
    refuse_fp64(q_THD)
    return _rope(q_THD, k_TKD, cos_TF, sin_TF, False)


@torch.library.custom_op("r1ci::rope", mutates_args=())
def _rope(
    q_THD: Tensor, k_TKD: Tensor, cos_TF: Tensor, sin_TF: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    q_turned, k_turned = _like_rope(q_THD, k_TKD, cos_TF, sin_TF, inverse)
    q_THD, k_TKD, cos_TF, sin_TF = (
        x if x.stride(-1) == 1 else x.contiguous() for x in (q_THD, k_TKD, cos_TF, sin_TF)
    )
    T, H, _ = q_THD.shape
    K, F = k_TKD.shape[1], cos_TF.shape[1]
    if q_turned.numel() + k_turned.numel():
        block_H, block_K, block_F = (1 << (n - 1).bit_length() for n in (H, K, F))
        launch(
            _rope_kernel, (T,), q_THD.device,
            q_THD, k_TKD, cos_TF, sin_TF, q_turned, k_turned,
            H, K, F,
            q_THD.stride(0), q_THD.stride(1), k_TKD.stride(0), k_TKD.stride(1),
            cos_TF.stride(0), sin_TF.stride(0),
            INVERSE=inverse, BLOCK_H=block_H, BLOCK_K=block_K, BLOCK_F=block_F,
            # A fused multiply-add would round differently from the reference, and saves nothing.
            num_warps=4 if block_H <= 16 else 8, enable_fp_fusion=False,
        )  # fmt: skip
    return q_turned, k_turned


@_rope.register_fake
def _like_rope(
    q_THD: Tensor, k_TKD: Tensor, cos_TF: Tensor, sin_TF: Tensor, inverse: bool
) -> tuple[Tensor, Tensor]:
    q_turned, k_turned = (
        torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q_THD, k_TKD)
    )
    return q_turned, k_turned


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, _, cos_TF, sin_TF, ctx.inverse = inputs
    ctx.save_for_backward(cos_TF, sin_TF)


def _differentiate(ctx: Any, dq_THD: Tensor, dk_TKD: Tensor) -> tuple[Any, ...]:
    return *_rope(dq_THD, dk_TKD, *ctx.saved_tensors, not ctx.inverse), None, None, None


_rope.register_autograd(_differentiate, setup_context=_setup)


def _check(q_THD: Tensor, k_TKD: Tensor, cos_TF: Tensor, sin_TF: Tensor) -> None:
    if q_THD.ndim != 3 or k_TKD.ndim != 3 or q_THD.shape[::2] != k_TKD.shape[::2]:
        shapes = f"`{tuple(q_THD.shape)}` and `{tuple(k_TKD.shape)}`"
        raise DataError(f"queries and keys have shapes {shapes}, expected [T, H, D] and [T, K, D]")
    if q_THD.dtype != k_TKD.dtype:
        raise DataError(f"queries are `{q_THD.dtype}` and keys `{k_TKD.dtype}`, expected one type")
    T, _, D = q_THD.shape
    for table_TF in (cos_TF, sin_TF):
        if D % 2 or table_TF.shape != (T, D // 2):
            found = f"`{tuple(table_TF.shape)}` for heads of width `{D}`"
            raise DataError(f"a table of angles has shape {found}, expected `[{T}, D / 2]`, D even")
