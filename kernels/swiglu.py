"""Gate and up projections -> silu(gate) up.

Legend: T row (any leading axes), W intermediate width. With p = 1 / (1 + exp(-gate)), in fp32:

    a = gate p                                rounded to the rows' type, as silu alone would be
    y = a up                                  rounded again
    dup = dy a,  dgate = dy up p (1 + gate (1 - p))       each rounded once

Backward computes p again: nothing is kept but the inputs. The Triton path is a custom operator,
opaque to `torch.compile`, differentiable once; the torch path is the reference, on CPU with silu in
slices of rows where it has to be, which is such an operator too.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1ci_engine.errors import DataError

from .dispatch import HAS_TRITON, backend_for, launch, refuse_fp64
from .rms_norm import as_rows

BLOCK = 2048
"""Columns per program: 16 per thread."""

SHARE = 1 << 15
"""Elements that torch gives one thread before it calls another."""

VECTOR = 32
"""A multiple of the elements that any processor's registers take at once."""

if HAS_TRITON:
    import triton
    import triton.language as tl

    @triton.jit
    def _forward_kernel(
        gate, up, y,  # pointers
        W,  # shapes
        stride_gate, stride_up,  # strides
        BLOCK_W: tl.constexpr,
    ):  # fmt: skip
        """One program takes one block of one row."""
        row = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
        inside = column < W
        x = tl.load(gate + row * stride_gate + column, mask=inside, other=0.0).to(tl.float32)
        u = tl.load(up + row * stride_up + column, mask=inside, other=0.0).to(tl.float32)
        a = (x / (1.0 + tl.exp(-x))).to(gate.dtype.element_ty).to(tl.float32)
        tl.store(y + row * W + column, (a * u).to(y.dtype.element_ty), mask=inside)

    @triton.jit
    def _backward_kernel(
        dy, gate, up, dgate, dup,  # pointers
        W,  # shapes
        stride_dy, stride_gate, stride_up,  # strides
        BLOCK_W: tl.constexpr,
    ):  # fmt: skip
        """One program takes one block of one row."""
        row = tl.program_id(0).to(tl.int64)
        column = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
        inside = column < W
        g = tl.load(dy + row * stride_dy + column, mask=inside, other=0.0).to(tl.float32)
        x = tl.load(gate + row * stride_gate + column, mask=inside, other=0.0).to(tl.float32)
        u = tl.load(up + row * stride_up + column, mask=inside, other=0.0).to(tl.float32)
        e = 1.0 + tl.exp(-x)
        p = 1.0 / e
        a = (x / e).to(gate.dtype.element_ty).to(tl.float32)  # the bits of forward
        dx = g * u * p * (1.0 + x * (1.0 - p))
        tl.store(dgate + row * W + column, dx.to(dgate.dtype.element_ty), mask=inside)
        tl.store(dup + row * W + column, (g * a).to(dup.dtype.element_ty), mask=inside)


def swiglu_reference(gate_TW: Tensor, up_TW: Tensor) -> Tensor:
    """The definition of right, rounding points included: plain torch, with its autograd."""
    return F.silu(gate_TW) * up_TW


def swiglu(gate_TW: Tensor, up_TW: Tensor) -> Tensor:
    """silu(`gate_TW`) times `up_TW`, of one shape and type (bf16, fp16 or fp32); any strides.

    Differentiable in both. Raises DataError when shapes or types differ, and for fp64 on the Triton
    path.
    """
    if not gate_TW.ndim or gate_TW.shape != up_TW.shape or gate_TW.dtype != up_TW.dtype:
        found = " and ".join(f"`{tuple(x.shape)}` of `{x.dtype}`" for x in (gate_TW, up_TW))
        raise DataError(f"gate and up projection are {found}, expected one shape [..., W] and type")
    if backend_for(gate_TW.device) == "torch":
        return _silu(gate_TW) * up_TW
    refuse_fp64(gate_TW)
    return _forward(gate_TW, up_TW)


def _silu(gate_TW: Tensor) -> Tensor:
    """On CPU a row gets the same bits alone and among others.

    `F.silu` computes the last elements of a thread's share, less than a vector, in other bits, and
    threads share out elements, not rows. A slice of one share is one thread's.
    """
    W = gate_TW.shape[-1]
    if not gate_TW.is_cpu or (W % VECTOR == 0 and gate_TW.numel() <= SHARE):
        return F.silu(gate_TW)
    return _silu_of_slices(gate_TW)


@torch.library.custom_op("r1ci::silu_of_slices", mutates_args=())
def _silu_of_slices(gate_TW: Tensor) -> Tensor:
    W = gate_TW.shape[-1]
    rows = 1 if W % VECTOR else max(1, SHARE // W)
    slices = gate_TW.reshape(-1, W).split(rows)
    return torch.cat([F.silu(x) for x in slices]).view(gate_TW.shape)


@_silu_of_slices.register_fake
def _like_silu_of_slices(gate_TW: Tensor) -> Tensor:
    return gate_TW.new_empty(gate_TW.shape)


def _setup_silu(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_silu(ctx: Any, slope_TW: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward(slope_TW, *ctx.saved_tensors)


_silu_of_slices.register_autograd(_differentiate_silu, setup_context=_setup_silu)


@torch.library.custom_op("r1ci::swiglu", mutates_args=())
def _forward(gate_TW: Tensor, up_TW: Tensor) -> Tensor:
    y_TW = _like_forward(gate_TW, up_TW)
    if y_TW.numel():
        gate_TW, up_TW = as_rows(gate_TW), as_rows(up_TW)
        W = gate_TW.shape[1]
        launch(
            _forward_kernel, _grid(gate_TW), gate_TW.device,
            gate_TW, up_TW, y_TW,
            W, gate_TW.stride(0), up_TW.stride(0),
            BLOCK_W=BLOCK, num_warps=4,
        )  # fmt: skip
    return y_TW


@_forward.register_fake
def _like_forward(gate_TW: Tensor, up_TW: Tensor) -> Tensor:
    return torch.empty(gate_TW.shape, dtype=gate_TW.dtype, device=gate_TW.device)


@torch.library.custom_op("r1ci::swiglu_backward", mutates_args=())
def _backward(dy_TW: Tensor, gate_TW: Tensor, up_TW: Tensor) -> tuple[Tensor, Tensor]:
    """(dgate_TW, dup_TW)."""
    dgate_TW, dup_TW = _like_backward(dy_TW, gate_TW, up_TW)
    if dgate_TW.numel():
        dy_TW, gate_TW, up_TW = (as_rows(x) for x in (dy_TW, gate_TW, up_TW))
        W = gate_TW.shape[1]
        launch(
            _backward_kernel, _grid(gate_TW), gate_TW.device,
            dy_TW, gate_TW, up_TW, dgate_TW, dup_TW,
            W, dy_TW.stride(0), gate_TW.stride(0), up_TW.stride(0),
            BLOCK_W=BLOCK, num_warps=4,
        )  # fmt: skip
    return dgate_TW, dup_TW


@_backward.register_fake
def _like_backward(dy_TW: Tensor, gate_TW: Tensor, up_TW: Tensor) -> tuple[Tensor, Tensor]:
    return _like_forward(gate_TW, up_TW), _like_forward(gate_TW, up_TW)


def _setup(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, dy_TW: Tensor) -> tuple[Tensor, Tensor]:
    return _backward(dy_TW, *ctx.saved_tensors)


_forward.register_autograd(_differentiate, setup_context=_setup)


def _grid(x_TW: Tensor) -> tuple[int, int]:
    T, W = x_TW.shape
    return T, -(-W // BLOCK)
