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
from r1ci_engine.errors import DataError
from torch import Tensor
from torch.autograd.function import once_differentiable

from .dispatch import backend_for
from .row_stats import check_rows, row_stats_backward, row_stats_forward, row_stats_reference

ROW_MULTIPLE = 8
"""Rows of every product on CPU: below this, BLAS sums a row in another order."""

CUDA_CHUNK_BYTES = 2 << 30
"""Thousands of rows per chunk at a real head: fewer would starve the products of work."""

CPU_CHUNK_BYTES = 256 << 20


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
    themselves (default: 2 GiB on CUDA, 256 MiB elsewhere; never less than 8 rows).

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
    chunk = chunk_rows(hidden_TD, weight_VD.shape[0], chunk_bytes)
    results = _LinearLogprob.apply(hidden_TD, weight_VD, target_T, temperature, chunk)
    return cast(tuple[Tensor, Tensor], results)


def chunk_rows(hidden_TD: Tensor, V: int, chunk_bytes: int) -> int:
    """Rows whose logits and everything derived from them fit into `chunk_bytes`."""
    if backend_for(hidden_TD.device) == "triton":
        per_logit = 4 + hidden_TD.element_size()  # fp32 logits, dlogits in the operands' type
    else:
        per_logit = 4 * max(4, hidden_TD.element_size())  # logits, scaled, exponential, dlogits
    affordable = chunk_bytes // (per_logit * V)
    return max(ROW_MULTIPLE, affordable // ROW_MULTIPLE * ROW_MULTIPLE)


class _LinearLogprob(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: Tensor,
        weight_VD: Tensor,
        target_T: Tensor,
        temperature: float,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        T = hidden_TD.shape[0]
        keep = chunk >= T
        logits_TV = None
        parts = []
        for start in range(0, T, chunk):
            span = slice(start, start + chunk)
            logits_CV = _logits(hidden_TD[span], weight_VD)
            parts.append(row_stats_forward(logits_CV, target_T[span], temperature))
            if keep:
                logits_TV = logits_CV
        stats_dtype = torch.promote_types(hidden_TD.dtype, torch.float32)
        empty = hidden_TD.new_empty(0, dtype=stats_dtype)
        logprob_T, entropy_T, lse_T = (
            (torch.cat(column) for column in zip(*parts, strict=True)) if parts else (empty,) * 3
        )
        ctx.save_for_backward(hidden_TD, weight_VD, target_T, lse_T, entropy_T, logits_TV)
        ctx.temperature = temperature
        ctx.chunk = chunk
        ctx.set_materialize_grads(False)
        return logprob_T, entropy_T

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g_T: Tensor | None, h_T: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        hidden_TD, weight_VD, target_T, lse_T, entropy_T, logits_TV = ctx.saved_tensors
        wants_hidden, wants_weight = ctx.needs_input_grad[:2]
        # The head's gradient is summed over chunks, so it is rounded once, at the end.
        sum_dtype = torch.promote_types(weight_VD.dtype, torch.float32)
        dhidden_TD = torch.zeros_like(hidden_TD) if wants_hidden else None
        dweight_VD = torch.zeros_like(weight_VD, dtype=sum_dtype) if wants_weight else None

        active = torch.zeros_like(lse_T, dtype=torch.bool)
        for gradient_T in (g_T, h_T):
            if gradient_T is not None:
                active |= gradient_T != 0
        for index_C in active.nonzero().squeeze(-1).split(ctx.chunk):
            g_C, h_C = (None if x is None else x[index_C] for x in (g_T, h_T))
            hidden_CD, target_C = hidden_TD[index_C], target_T[index_C]
            logits_CV = _logits(hidden_CD, weight_VD) if logits_TV is None else logits_TV[index_C]
            dlogits_CV = row_stats_backward(
                logits_CV, target_C, lse_T[index_C], entropy_T[index_C], g_C, h_C,
                ctx.temperature, hidden_TD.dtype,
            )  # fmt: skip
            if dhidden_TD is not None:
                dhidden_TD[index_C] = dlogits_CV @ weight_VD
            if dweight_VD is not None:
                _add_product_(dweight_VD, dlogits_CV.T, hidden_CD)
        if dweight_VD is not None:
            dweight_VD = dweight_VD.to(weight_VD.dtype)
        return dhidden_TD, dweight_VD, None, None, None


def _logits(hidden_CD: Tensor, weight_VD: Tensor) -> Tensor:
    """hidden weight^T in fp32 (fp64 stays fp64), never rounded to a shorter type on the way."""
    if hidden_CD.is_cuda and hidden_CD.dtype != torch.float64:
        return torch.mm(hidden_CD, weight_VD.T, out_dtype=torch.float32)
    C = hidden_CD.shape[0]
    padded_CD = F.pad(hidden_CD, (0, 0, 0, -C % ROW_MULTIPLE))
    sum_dtype = torch.promote_types(hidden_CD.dtype, torch.float32)
    return (padded_CD.to(sum_dtype) @ weight_VD.to(sum_dtype).T)[:C]


def _add_product_(sum_VD: Tensor, a_VC: Tensor, b_CD: Tensor) -> None:
    """sum += a b, the sum in fp32 (or fp64) although a and b may be shorter."""
    if sum_VD.is_cuda and a_VC.dtype != torch.float64:
        torch.addmm(sum_VD, a_VC, b_CD, out_dtype=torch.float32, out=sum_VD)
    else:
        sum_VD.addmm_(a_VC.to(sum_VD.dtype), b_CD.to(sum_VD.dtype))
