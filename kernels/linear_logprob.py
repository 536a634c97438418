"""Hidden rows and head weight -> log-probability and entropy, in memory that does not grow with T.

Legend: T row, C row of one chunk, D hidden width, V vocabulary. Per chunk of rows:

    logits_CV                                         head_logits: fp32
    logprob_C, entropy_C, lse_C                       row_stats_forward
    dlogits_CV                                        row_stats_backward, in the operands' type
    dhidden_CD, dweight_VD, dbias_V                   HeadGradients

Two passes: forward keeps only inputs and lse, backward computes the logits again. It skips rows on
which nothing depends, so its cost is (2 + 6 r) T D V for the fraction r of rows that carry
gradient. When all logits fit the byte budget they are kept, except under `torch.compile`, and
nothing is computed twice. Without gradients it is the log-probability alone, 2 T D V. A loss that
is known beforehand needs one pass only: `linear_grpo_loss`.

The operator knows no loss: losses are ordinary functions of its two results. It composes with
autograd once (differentiating twice is an error) and is opaque to `torch.compile`.
"""

from typing import Any

import torch
from torch import Tensor

from .head import (
    HeadGradients,
    check_head,
    chosen_chunk_bytes,
    chunks_where,
    gradients_like,
    head_logits,
    plan_chunks,
    spans,
    sum_dtype,
)
from .row_stats import row_stats_backward, row_stats_forward, row_stats_reference


def linear_logprob_reference(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    target_T: Tensor,
    temperature: float = 1.0,
    *,
    bias_V: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition of right: full logits, plain torch, differentiated by autograd."""
    logits_TV = hidden_TD @ weight_VD.T
    if bias_V is not None:
        logits_TV = logits_TV + bias_V
    return row_stats_reference(logits_TV, target_T, temperature)


def linear_logprob(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    target_T: Tensor,
    temperature: float = 1.0,
    *,
    bias_V: Tensor | None = None,
    chunk_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """(logprob_T, entropy_T) of softmax((hidden weight^T + bias) / temperature), in fp32 at least.

    Gradients of both flow to `hidden_TD`, `weight_VD` (one floating type) and `bias_V`. Row t of
    `hidden_TD` is the one that predicts `target_T[t]`: leave out rows whose token has no loss. No
    target (-100 or another) stands for that: on CPU it is refused, on CUDA its row becomes NaN. Of
    a padded vocabulary hand over `weight_VD[:tokens]`: what is left out has no probability and a
    gradient of 0. `chunk_bytes` bounds the working memory of forward and of backward, beyond the
    gradients themselves (default: 2 GB on CUDA, 256 MiB elsewhere; never less than 16 rows); on CPU
    a head of 16 bits is widened beside it.

    Raises DataError on shapes, types or a temperature that cannot be meant.
    """
    check_head(hidden_TD, weight_VD, bias_V, target_T, temperature)
    chunk_bytes = chosen_chunk_bytes(chunk_bytes, hidden_TD.device)
    trained = (hidden_TD, weight_VD) if bias_V is None else (hidden_TD, weight_VD, bias_V)
    # What is kept depends on the number of rows: a trace that leaves it open cannot decide.
    may_keep = torch.is_grad_enabled() and any(x.requires_grad for x in trained)
    may_keep = may_keep and not torch.compiler.is_compiling()
    results = _forward(hidden_TD, weight_VD, bias_V, target_T, temperature, chunk_bytes, may_keep)
    return results[0], results[1]


@torch.library.custom_op("r1ci::linear_logprob", mutates_args=())
def _forward(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_T: Tensor,
    temperature: float,
    chunk_bytes: int,
    may_keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(logprob_T, entropy_T, lse_T, logits_TV); the last is empty where nothing is kept."""
    logprob_T, entropy_T, lse_T, logits_TV = _like_forward(
        hidden_TD, weight_VD, chunk_bytes, may_keep
    )
    rows, _ = plan_chunks(hidden_TD, weight_VD.shape[0], chunk_bytes)
    keep = logits_TV.numel() > 0
    all_spans = spans(hidden_TD.shape[0], rows)
    for span in all_spans:
        logits_CV = head_logits(hidden_TD[span], weight_VD, bias_V)
        stats = row_stats_forward(logits_CV, target_T[span], temperature)
        logprob_T[span], entropy_T[span], lse_T[span] = stats
        if keep and len(all_spans) == 1:
            logits_TV = logits_CV  # as they are, without a copy
        elif keep:
            logits_TV[span] = logits_CV
        del logits_CV  # before the next chunk asks for as much again
    return logprob_T, entropy_T, lse_T, logits_TV


@_forward.register_fake
def _like_forward(
    hidden_TD: Tensor, weight_VD: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chunk_bytes, may_keep = others[-2:]
    T, V = hidden_TD.shape[0], weight_VD.shape[0]
    dtype = sum_dtype(hidden_TD)
    logprob_T, entropy_T, lse_T = (hidden_TD.new_empty(T, dtype=dtype) for _ in range(3))
    keep = may_keep and plan_chunks(hidden_TD, V, chunk_bytes)[1]
    return logprob_T, entropy_T, lse_T, hidden_TD.new_empty(T if keep else 0, V, dtype=dtype)


# How many rows carry gradient is data, which a captured CUDA graph could not ask for.
@torch.library.custom_op(
    "r1ci::linear_logprob_backward", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,)
)
def _backward(
    g_T: Tensor | None,
    h_T: Tensor | None,
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_T: Tensor,
    lse_T: Tensor,
    entropy_T: Tensor,
    logits_TV: Tensor,
    temperature: float,
    chunk_bytes: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """(dhidden_TD, dweight_VD, dbias_V); those that are not wanted are empty."""
    rows, _ = plan_chunks(hidden_TD, weight_VD.shape[0], chunk_bytes)
    gradients = HeadGradients(hidden_TD, weight_VD, bias_V, wanted)
    for C in _active_chunks(g_T, h_T, rows):
        if logits_TV.numel():
            logits_CV = logits_TV[C]
        else:
            logits_CV = head_logits(hidden_TD[C], weight_VD, bias_V)
        g_C, h_C = (None if x_T is None else x_T[C] for x_T in (g_T, h_T))
        dlogits_CV = row_stats_backward(
            logits_CV, target_T[C], lse_T[C], entropy_T[C], g_C, h_C, temperature, hidden_TD.dtype
        )
        gradients.add(C, dlogits_CV, hidden_TD, weight_VD)
        del logits_CV, dlogits_CV
    dhidden_TD, dweight_VD, dbias_V = gradients.sums
    bias_dtype = weight_VD.dtype if bias_V is None else bias_V.dtype
    return dhidden_TD, dweight_VD.to(weight_VD.dtype), dbias_V.to(bias_dtype)


@_backward.register_fake
def _like_backward(
    g_T: Tensor | None,
    h_T: Tensor | None,
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    *others: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    return gradients_like(hidden_TD, weight_VD, bias_V, others[-1], summed=False)


def _active_chunks(
    g_T: Tensor | None, h_T: Tensor | None, rows: int
) -> list[slice] | tuple[Tensor, ...]:
    """Chunks of the rows whose results matter."""
    active_T = sum(x_T != 0 for x_T in (g_T, h_T) if x_T is not None)
    return chunks_where(active_T, rows) if isinstance(active_T, Tensor) else []


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden_TD, weight_VD, bias_V, target_T, ctx.temperature, ctx.chunk_bytes, _ = inputs
    _, entropy_T, lse_T, logits_TV = output
    ctx.save_for_backward(hidden_TD, weight_VD, bias_V, target_T, lse_T, entropy_T, logits_TV)
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, g_T: Tensor | None, h_T: Tensor | None, *_: Any) -> tuple[Any, ...]:
    wanted = list(ctx.needs_input_grad[:3])
    gradients = _backward(g_T, h_T, *ctx.saved_tensors, ctx.temperature, ctx.chunk_bytes, wanted)
    chosen = (x if wants else None for x, wants in zip(gradients, wanted, strict=True))
    return *chosen, None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_setup)
