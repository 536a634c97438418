"""Rows -> rows of unit mean square times a learned weight, with the residual addition in front.

Legend: T row (any leading axes), D row width, P program. Per row, in fp32:

    s  = x + residual                                 rounded to their common type, and returned
    r  = 1 / sqrt(mean s^2 + eps),  n = s r           n rounded to the type of s
    y  = weight n                                     rounded to the type torch promotes to
    ds = r (w dy - n mean(w dy n)) + ds_after,  dweight = sum over T of dy n

dx and dresidual are both ds, rounded to the type of s and then to their own. Each program of
backward sums the rows it walks into one row of dweight_PD, and torch adds those: no atomics, so two
runs have the same bits. A row's bits do not depend on the others, nor on how many there are.

The Triton path is a custom operator, opaque to `torch.compile`, differentiable once; on the torch
path the reference is all there is.
"""

from typing import Any

import torch
from torch import Tensor

from r1ci_engine.errors import DataError

from .dispatch import HAS_TRITON, backend_for, launch, refuse_fp64

TILE = 4096
"""Elements that one program holds at a time, unless a single row is longer."""

PROGRAMS_PER_PROCESSOR = 4
"""Of backward: enough loads in flight to fill the memory pipe, few enough rows of dweight_PD."""

if HAS_TRITON:
    import triton
    import triton.language as tl

    @triton.jit
    def _forward_kernel(
        x, residual, weight, y, total,  # pointers
        eps,  # scalars
        T, D,  # shapes
        stride_x, stride_residual,  # strides
        HAS_RESIDUAL: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    ):  # fmt: skip
        """One program holds BLOCK_T whole rows."""
        row = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)[:, None]
        column = tl.arange(0, BLOCK_D)[None, :]
        inside = (row < T) & (column < D)
        s = tl.load(x + row * stride_x + column, mask=inside, other=0.0).to(tl.float32)
        if HAS_RESIDUAL:
            other = tl.load(residual + row * stride_residual + column, mask=inside, other=0.0)
            s += other.to(tl.float32)
            rounded = s.to(total.dtype.element_ty)
            tl.store(total + row * D + column, rounded, mask=inside)
            s = rounded.to(tl.float32)
        r = tl.rsqrt(tl.sum(s * s, 1, keep_dims=True) / D + eps)
        # `total` is of the type of what is normed, even where it stays empty.
        n = (s * r).to(total.dtype.element_ty).to(tl.float32)
        w = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)
        tl.store(y + row * D + column, (w * n).to(y.dtype.element_ty), mask=inside)

    @triton.jit
    def _backward_kernel(
        dy, dtotal, total, weight, dx, dweight,  # pointers
        eps,  # scalars
        T, D,  # shapes
        stride_dy, stride_dtotal, stride_total,  # strides
        HAS_DTOTAL: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr,
    ):  # fmt: skip
        """One program walks every P-th tile of rows and keeps its part of dweight meanwhile."""
        program = tl.program_id(0)
        column = tl.arange(0, BLOCK_D)[None, :]
        dw = tl.zeros((BLOCK_T, BLOCK_D), tl.float32)
        for start in range(program * BLOCK_T, T, tl.num_programs(0) * BLOCK_T):
            row = tl.arange(0, BLOCK_T).to(tl.int64)[:, None] + start
            inside = (row < T) & (column < D)
            s = tl.load(total + row * stride_total + column, mask=inside, other=0.0).to(tl.float32)
            g = tl.load(dy + row * stride_dy + column, mask=inside, other=0.0).to(tl.float32)
            if HAS_DTOTAL:
                after = tl.load(dtotal + row * stride_dtotal + column, mask=inside, other=0.0)
            # From the cache, once a tile: kept in registers it would leave room for fewer programs.
            w = tl.load(weight + column, mask=column < D, other=0.0).to(tl.float32)
            r = tl.rsqrt(tl.sum(s * s, 1, keep_dims=True) / D + eps)
            n = s * r
            dn = g * w
            ds = r * (dn - n * (tl.sum(dn * n, 1, keep_dims=True) / D))
            if HAS_DTOTAL:
                ds += after.to(tl.float32)
            tl.store(dx + row * D + column, ds.to(dx.dtype.element_ty), mask=inside)
            dw += g * n.to(total.dtype.element_ty).to(tl.float32)  # what the weight multiplied
        share = tl.sum(dw, 0, keep_dims=True)
        tl.store(dweight + program * D + column, share, mask=column < D)


def rms_norm_reference(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """The definition of right, rounding points included: plain torch, with its autograd."""
    wide_TD = x_TD if x_TD.dtype == torch.float64 else x_TD.float()
    scale_T1 = torch.rsqrt(wide_TD.square().mean(-1, keepdim=True) + eps)
    return weight_D * (wide_TD * scale_T1).to(x_TD.dtype)


def add_rms_norm_reference(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The definition of right: an addition, and the norm of what it gives."""
    total_TD = x_TD + residual_TD
    return rms_norm_reference(total_TD, weight_D, eps), total_TD


def rms_norm(x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """Rows of `x_TD` scaled to unit mean square, then by `weight_D`; differentiable in both.

    Any leading axes, any D (beyond 8,192 the Triton path spills registers); bf16, fp16 or fp32. On
    CUDA a row's bits do not depend on strides where D is a multiple of 16. `eps` is positive.
    Raises DataError when shapes or `eps` do not fit, and for fp64 on the Triton path.
    """
    _check(x_TD, None, weight_D, eps)
    if backend_for(x_TD.device) == "torch":
        return rms_norm_reference(x_TD, weight_D, eps)
    refuse_fp64(x_TD)
    return _forward(x_TD, None, weight_D, eps)[0]


def add_rms_norm(
    x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(rms_norm of the sum, the sum) of two equal shapes, in one pass over memory.

    The residual may be of another type, as under autocast: the sum is of the one torch promotes to.
    Otherwise as `rms_norm`; gradients flow from both results to all three tensors.
    """
    _check(x_TD, residual_TD, weight_D, eps)
    if backend_for(x_TD.device) == "torch":
        return add_rms_norm_reference(x_TD, residual_TD, weight_D, eps)
    refuse_fp64(x_TD)
    refuse_fp64(residual_TD)
    return _forward(x_TD, residual_TD, weight_D, eps)


@torch.library.custom_op("r1ci::rms_norm", mutates_args=())
def _forward(
    x_TD: Tensor, residual_TD: Tensor | None, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(normed, sum); the sum is empty without a residual, because it would be the input itself."""
    y_TD, total_TD = _like_forward(x_TD, residual_TD, weight_D, eps)
    if y_TD.numel():
        rows_TD = as_rows(x_TD)
        other_TD = None if residual_TD is None else as_rows(residual_TD)
        T, D = rows_TD.shape
        block_T, block_D, warps = _tile(D)
        launch(
            _forward_kernel, (-(-T // block_T),), x_TD.device,
            rows_TD, other_TD, weight_D.contiguous(), y_TD, total_TD,
            eps, T, D, rows_TD.stride(0), 0 if other_TD is None else other_TD.stride(0),
            HAS_RESIDUAL=other_TD is not None, BLOCK_T=block_T, BLOCK_D=block_D, num_warps=warps,
        )  # fmt: skip
    return y_TD, total_TD


@_forward.register_fake
def _like_forward(
    x_TD: Tensor, residual_TD: Tensor | None, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    dtype = x_TD.dtype if residual_TD is None else _common_type(x_TD, residual_TD)
    total_TD = torch.empty(
        (0,) if residual_TD is None else x_TD.shape, dtype=dtype, device=x_TD.device
    )
    y_TD = torch.empty(x_TD.shape, dtype=_common_type(total_TD, weight_D), device=x_TD.device)
    return y_TD, total_TD


def _common_type(x: Tensor, y: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, y.dtype)


@torch.library.custom_op("r1ci::rms_norm_backward", mutates_args=())
def _backward(
    dy_TD: Tensor, dtotal_TD: Tensor | None, total_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """(dx_TD, dweight_D), from what was normed and the gradients of both results."""
    dx_TD, dweight_D = _like_backward(dy_TD, dtotal_TD, total_TD, weight_D, eps)
    if not total_TD.numel():
        return dx_TD, dweight_D.zero_()
    rows_TD, g_TD = as_rows(total_TD), as_rows(dy_TD)
    after_TD = None if dtotal_TD is None else as_rows(dtotal_TD)
    T, D = rows_TD.shape
    block_T, block_D, warps = _tile(D)
    P = _programs(-(-T // block_T), total_TD.device)
    dweight_PD = torch.empty((P, D), dtype=torch.float32, device=total_TD.device)
    launch(
        _backward_kernel, (P,), total_TD.device,
        g_TD, after_TD, rows_TD, weight_D.contiguous(), dx_TD, dweight_PD,
        eps, T, D,
        g_TD.stride(0), 0 if after_TD is None else after_TD.stride(0), rows_TD.stride(0),
        HAS_DTOTAL=after_TD is not None, BLOCK_T=block_T, BLOCK_D=block_D, num_warps=warps,
    )  # fmt: skip
    return dx_TD, dweight_PD.sum(0).to(weight_D.dtype)


@_backward.register_fake
def _like_backward(
    dy_TD: Tensor, dtotal_TD: Tensor | None, total_TD: Tensor, weight_D: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    dx_TD = torch.empty(total_TD.shape, dtype=total_TD.dtype, device=total_TD.device)
    return dx_TD, torch.empty(weight_D.shape, dtype=weight_D.dtype, device=weight_D.device)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x_TD, residual_TD, weight_D, ctx.eps = inputs
    ctx.types = x_TD.dtype, None if residual_TD is None else residual_TD.dtype
    ctx.save_for_backward(x_TD if residual_TD is None else output[1], weight_D)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, dy_TD: Tensor | None, dtotal_TD: Tensor | None) -> tuple[Any, ...]:
    total_TD, weight_D = ctx.saved_tensors
    dtype, residual_dtype = ctx.types
    ds_TD, dweight_D = dtotal_TD, None
    if dy_TD is not None:
        after_TD = None if residual_dtype is None else dtotal_TD
        ds_TD, dweight_D = _backward(dy_TD, after_TD, total_TD, weight_D, ctx.eps)
    if ds_TD is None:
        return None, None, None, None
    dresidual_TD = None if residual_dtype is None else ds_TD.to(residual_dtype)
    return ds_TD.to(dtype), dresidual_TD, dweight_D, None


_forward.register_autograd(_differentiate, setup_context=_setup)


def _check(x_TD: Tensor, residual_TD: Tensor | None, weight_D: Tensor, eps: float) -> None:
    if x_TD.ndim < 1 or weight_D.shape != x_TD.shape[-1:]:
        shapes = f"`{tuple(x_TD.shape)}` and `{tuple(weight_D.shape)}`"
        raise DataError(f"rows and weight have shapes {shapes}, expected [..., D] and [D]")
    if residual_TD is not None and residual_TD.shape != x_TD.shape:
        shapes = f"`{tuple(residual_TD.shape)}`, expected `{tuple(x_TD.shape)}`"
        raise DataError(f"the residual is of shape {shapes}, as the rows")
    if not eps > 0:
        raise DataError(f"eps is `{eps}`, expected a positive number")


def as_rows(x: Tensor) -> Tensor:
    """`[T, D]` with elements of a row side by side; a copy only where strides leave no choice."""
    x_TD = x.reshape(-1, x.shape[-1])
    return x_TD if x_TD.stride(1) == 1 else x_TD.contiguous()


def _tile(D: int) -> tuple[int, int, int]:
    """(rows, columns, warps) of a program: 16 elements per thread, from the width alone.

    The order of a row's sum follows from these, so they may not depend on the number of rows.
    """
    block_D = 1 << (D - 1).bit_length()
    block_T = max(1, TILE // block_D)
    return block_T, block_D, min(32, block_T * block_D // 512)


def _programs(tiles: int, device: torch.device) -> int:
    if device.type != "cuda":
        return min(tiles, PROGRAMS_PER_PROCESSOR)
    processors = torch.cuda.get_device_properties(device).multi_processor_count
    return min(tiles, PROGRAMS_PER_PROCESSOR * processors)
