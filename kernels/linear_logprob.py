"""Hidden rows and head weight -> log-probability and entropy, in memory that does not grow with T.

Legend: T row, C row of one chunk, D hidden width, V vocabulary. Per chunk of rows:

    logits_CV = hidden_CD weight_VD^T                 fp32, whatever the operands are
    logprob_C, entropy_C, lse_C                       row_stats_forward
    dlogits_CV                                        row_stats_backward, in the operands' type
    dhidden_CD = dlogits_CV weight_VD,   dweight_VD += dlogits_CV^T hidden_CD    (fp32 sum)

Two passes: forward keeps only inputs and lse, backward computes the logits again. It skips rows on
which nothing depends, so its cost is (2 + 6 r) T D V for the fraction r of rows that carry
gradient. When all logits fit the byte budget they are kept, and nothing is computed twice.

The operator knows no loss: losses are ordinary functions of its two results. It composes with
autograd once (no double backward).

Invariant: on CPU the results of a row have the same bits whatever rows stand beside it and
however they are chunked, because each product has a multiple of `ROW_MULTIPLE` rows.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from r1ci_engine.errors import DataError

from .dispatch import backend_for
from .row_stats import check_rows, row_stats_backward, row_stats_forward, row_stats_reference

ROW_MULTIPLE = 16
"""Rows of every product on CPU: below 8 or 16, BLAS sums a row in another order.

With several threads some shapes still change with the number of rows; MKL_CBWR=AUTO,STRICT in the
environment of the process ends that, at no measurable cost.
"""

CUDA_CHUNK_BYTES = 2 << 30
"""Thousands of rows per chunk at a real head: fewer would starve the products of work."""

CPU_CHUNK_BYTES = 256 << 20

CPU_CACHE_BYTES = 4 << 20
"""Working set of a chunk on CPU that mostly stays in the cache between passes."""

CPU_CHUNK_ROWS = 256
"""But no fewer rows than this, or each chunk's pass over the head's gradient costs more."""


def linear_logprob_reference(
    hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The definition of right: full logits, plain torch, differentiated by autograd."""
    return row_stats_reference(hidden_TD @ weight_VD.T, target_T, temperature)


def linear_logprob(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    target_T: Tensor,
    temperature: float = 1.0,
    *,
    chunk_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(logprob_T, entropy_T) in fp32 of softmax(hidden weight^T / temperature) at `target_T`.

    Gradients of both flow to `hidden_TD` and `weight_VD`, which share one floating type. Row t of
    `hidden_TD` is the one that predicts `target_T[t]`: leave out rows whose token has no loss.
    `chunk_bytes` bounds the working memory of forward and of backward, beyond the gradients
    themselves (default: 2 GiB on CUDA, 256 MiB elsewhere; never less than 16 rows).

    Raises DataError on shapes, types or a temperature that cannot be meant.
    """
    check_rows(hidden_TD, target_T, temperature)
    if weight_VD.ndim != 2 or weight_VD.shape[1] != hidden_TD.shape[1]:
        shapes = f"`{tuple(hidden_TD.shape)}` and `{tuple(weight_VD.shape)}`"
        raise DataError(f"hidden rows and head weight have shapes {shapes}, not [T, D] and [V, D]")
    if weight_VD.dtype != hidden_TD.dtype:
        types = f"`{hidden_TD.dtype}` and `{weight_VD.dtype}`"
        raise DataError(f"hidden rows and head weight have types {types}, expected one type")
    if chunk_bytes is None:
        chunk_bytes = CUDA_CHUNK_BYTES if hidden_TD.is_cuda else CPU_CHUNK_BYTES
    rows, keep = plan_chunks(hidden_TD, weight_VD.shape[0], chunk_bytes)
    results = _LinearLogprob.apply(hidden_TD, weight_VD, target_T, temperature, rows, keep)
    return cast(tuple[Tensor, Tensor], results)


def plan_chunks(hidden_TD: Tensor, V: int, chunk_bytes: int) -> tuple[int, bool]:
    """(rows per chunk, whether backward may find all logits kept) within `chunk_bytes`."""
    T = hidden_TD.shape[0]
    width = max(4, hidden_TD.element_size())  # logits are fp32 (or fp64)
    if backend_for(hidden_TD.device) == "triton":
        per_row = V * (width + hidden_TD.element_size())  # logits, dlogits
        rows = chunk_bytes // per_row
        keep = rows >= T
    else:
        per_row = V * width * 4  # logits, scaled logits, exponentials, dlogits
        cached = max(CPU_CHUNK_ROWS, CPU_CACHE_BYTES // per_row)
        rows = min(chunk_bytes // per_row, cached)
        keep = T * V * width + rows * per_row <= chunk_bytes
    return max(ROW_MULTIPLE, rows // ROW_MULTIPLE * ROW_MULTIPLE), keep


class _LinearLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        target_T: Tensor,
        temperature: float,
        rows: int,
        keep: bool,
    ) -> tuple[Tensor, Tensor]:
        T = hidden_TD.shape[0]
        stats_dtype = torch.promote_types(hidden_TD.dtype, torch.float32)
        logprob_T, entropy_T, lse_T = (hidden_TD.new_empty(T, dtype=stats_dtype) for _ in range(3))
        spans = _spans(T, rows)
        logits_TV = None
        if keep and len(spans) > 1:  # the logits of a single chunk are kept as they are
            logits_TV = hidden_TD.new_empty(T, weight_VD.shape[0], dtype=stats_dtype)
        for span in spans:
            logits_CV = _logits(hidden_TD[span], weight_VD)
            stats = row_stats_forward(logits_CV, target_T[span], temperature)
            logprob_T[span], entropy_T[span], lse_T[span] = stats
            if logits_TV is not None:
                logits_TV[span] = logits_CV
            elif keep:
                logits_TV = logits_CV
            del logits_CV  # before the next chunk asks for as much again
        ctx.save_for_backward(hidden_TD, weight_VD, target_T, lse_T, entropy_T, logits_TV)
        ctx.temperature = temperature
        ctx.rows = rows
        ctx.set_materialize_grads(False)
        return logprob_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_T: Tensor | None, h_T: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        hidden_TD, weight_VD, target_T, lse_T, entropy_T, logits_TV = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        # The head's gradient is summed over chunks, so it is rounded once, at the end.
        sum_dtype = torch.promote_types(weight_VD.dtype, torch.float32)
        dhidden_TD = torch.zeros_like(hidden_TD) if wants_hidden else None
        dweight_VD = torch.zeros_like(weight_VD, dtype=sum_dtype) if wants_weight else None

        for C in _active_chunks(g_T, h_T, ctx.rows):
            logits_CV = _logits(hidden_TD[C], weight_VD) if logits_TV is None else logits_TV[C]
            g_C, h_C = (None if x_T is None else x_T[C] for x_T in (g_T, h_T))
            dlogits_CV = row_stats_backward(
                logits_CV, target_T[C], lse_T[C], entropy_T[C], g_C, h_C,
                ctx.temperature, hidden_TD.dtype,
            )  # fmt: skip
            if dhidden_TD is not None:
                dhidden_TD[C] = dlogits_CV @ weight_VD
            if dweight_VD is not None:
                _add_product_(dweight_VD, dlogits_CV.T, hidden_TD[C])
            del logits_CV, dlogits_CV
        if dweight_VD is not None:
            dweight_VD = dweight_VD.to(weight_VD.dtype)
        return dhidden_TD, dweight_VD, None, None, None, None


def _spans(T: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, T)) for start in range(0, T, rows)]


def _active_chunks(
    g_T: Tensor | None, h_T: Tensor | None, rows: int
) -> list[slice] | tuple[Tensor, ...]:
    """Chunks of the rows whose results matter: slices when all do, row numbers otherwise."""
    active_T = sum(x_T != 0 for x_T in (g_T, h_T) if x_T is not None)
    if not isinstance(active_T, Tensor):
        return []
    index_N = active_T.nonzero().squeeze(-1)
    T, N = active_T.numel(), index_N.numel()
    return _spans(T, rows) if N == T else index_N.split(rows) if N else []


def _logits(hidden_CD: Tensor, weight_VD: Tensor) -> Tensor:
    """hidden weight^T in fp32 (fp64 stays fp64), never rounded to a shorter type on the way."""
    if hidden_CD.is_cuda and hidden_CD.dtype != torch.float64:
        return torch.mm(hidden_CD, weight_VD.T, out_dtype=torch.float32)
    C = hidden_CD.shape[0]
    sum_dtype = torch.promote_types(hidden_CD.dtype, torch.float32)
    padded_CD = F.pad(hidden_CD, (0, 0, 0, -C % ROW_MULTIPLE)).to(sum_dtype)
    return (padded_CD @ weight_VD.to(sum_dtype).T)[:C]


def _add_product_(sum_VD: Tensor, a_VC: Tensor, b_CD: Tensor) -> None:
    """sum += a b, the sum in fp32 (or fp64) although a and b may be shorter."""
    if sum_VD.is_cuda and a_VC.dtype != torch.float64:
        torch.addmm(sum_VD, a_VC, b_CD, out_dtype=torch.float32, out=sum_VD)
    else:
        sum_VD.addmm_(a_VC.to(sum_VD.dtype), b_CD.to(sum_VD.dtype))
