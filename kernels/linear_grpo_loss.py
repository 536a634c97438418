"""Hidden rows, head weight and what is known of each token -> a loss, in one pass over the head.

Legend: T row, C row of one chunk, D hidden width, V vocabulary. Per chunk of rows, while its logits
exist:

    logprob_C, entropy_C         row_stats_forward
    g_C, h_C                     slopes of `token_loss` by both, times the token's weight (autograd)
    dlogits_CV                   row_stats_backward
    dhidden_CD, dweight_VD       HeadGradients

Gradients are made in forward, so the head's product is done once: 6 T D V, where two passes cost
8 T D V. Rows of weight 0 never enter. Rows that cannot learn (`may_learn`: no advantage, and
neither divergence nor bonus) only have their log-probability taken, 2 D V each; so do those whose
slope turns out to be 0, because they are clipped.

`gspo` needs a sequence's log-probabilities before any slope, so it takes two passes
(`linear_logprob`). The loss itself is `policy_loss`, in both and in the reference.

Backward multiplies the gradients by that of the loss, after they were rounded to the operands'
type: fold a constant into the weights rather than the loss. Differentiating twice is an error. The
operator is opaque to `torch.compile`.
"""

from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1ci_engine.errors import DataError

from .head import (
    ROW_MULTIPLE,
    HeadGradients,
    check_head,
    chunks_where,
    default_chunk_bytes,
    gradients_like,
    head_logits,
    part_of,
    plan_chunks,
    sum_dtype,
)
from .linear_logprob import linear_logprob, linear_logprob_reference
from .policy_loss import PolicyLoss, Tokens, may_learn, policy_loss, token_loss
from .row_stats import row_stats_backward, row_stats_forward


class LinearLoss(NamedTuple):
    """What a step needs: the loss, and what to watch."""

    loss: Tensor
    """fp32 scalar; carries the gradient."""
    logprob_T: Tensor
    """fp32, without gradient; 0 where the token's weight is 0."""
    entropy_T: Tensor
    """The same of the entropy."""


def linear_grpo_loss_reference(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    target_T: Tensor,
    tokens: Tokens,
    loss: PolicyLoss,
    temperature: float = 1.0,
    *,
    bias_V: Tensor | None = None,
) -> LinearLoss:
    """The definition of right: full logits, plain torch, differentiated by autograd."""
    rows_N = (tokens.weight_N != 0).nonzero().squeeze(-1)
    logprob_N, entropy_N = linear_logprob_reference(
        hidden_TD[rows_N], weight_VD, target_T[rows_N], temperature, bias_V=bias_V
    )
    value = policy_loss(logprob_N, entropy_N, tokens.at(rows_N), loss)
    return LinearLoss(value, *(_spread(x_N, rows_N, tokens) for x_N in (logprob_N, entropy_N)))


def linear_grpo_loss(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    target_T: Tensor,
    tokens: Tokens,
    loss: PolicyLoss,
    temperature: float = 1.0,
    *,
    bias_V: Tensor | None = None,
    chunk_bytes: int | None = None,
) -> LinearLoss:
    """The policy loss of packed rows, `sum_t weight_t token_loss_t`, and its gradients.

    Row t of `hidden_TD` predicts `target_T[t]` (int64 [T]); all of `tokens` is of length T. Padded
    batches are flattened, with weight 0 where there is no trained token. Gradients flow to
    `hidden_TD`, `weight_VD` (one floating type) and `bias_V`. `chunk_bytes` as in `linear_logprob`.

    Raises DataError on shapes, types, a temperature, or a loss that lacks what it needs.
    """
    check_head(hidden_TD, weight_VD, bias_V, target_T, temperature)
    _check_tokens(tokens, loss, target_T)
    if loss.variant == "gspo":
        return _two_passes(
            hidden_TD, weight_VD, target_T, tokens, loss, temperature, bias_V, chunk_bytes
        )
    trained = (hidden_TD, weight_VD, bias_V)
    wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in trained]
    results = _one_pass(
        hidden_TD, weight_VD, bias_V, target_T,
        tokens.advantage_N, tokens.weight_N, tokens.old_N, tokens.reference_N, tokens.sampler_N,
        loss.variant, loss.clip_low, loss.clip_high, loss.clip_dual, loss.kl, loss.kl_coef,
        loss.entropy_coef, loss.mismatch, loss.mismatch_low, loss.mismatch_high,
        temperature, chunk_bytes or default_chunk_bytes(hidden_TD.device), wanted,
    )  # fmt: skip
    return LinearLoss(results[0], results[1].detach(), results[2].detach())


def linear_cross_entropy(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    target_T: Tensor,
    weight_T: Tensor,
    *,
    bias_V: Tensor | None = None,
    chunk_bytes: int | None = None,
) -> LinearLoss:
    """`-sum_t weight_t logprob_t`: supervised learning by the same operator.

    An advantage of 1 without a clip and at a ratio of 1 has the slope of a log-probability:
    `cispo` is that, and its value too. Raises DataError as `linear_grpo_loss` does.
    """
    tokens = Tokens(advantage_N=torch.ones_like(weight_T), weight_N=weight_T)
    return linear_grpo_loss(
        hidden_TD, weight_VD, target_T, tokens, IMITATION, bias_V=bias_V, chunk_bytes=chunk_bytes
    )


IMITATION = PolicyLoss(variant="cispo")


@torch.library.custom_op("r1ci::linear_policy_loss", mutates_args=())
def _one_pass(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_T: Tensor,
    advantage_T: Tensor,
    weight_T: Tensor,
    old_T: Tensor | None,
    reference_T: Tensor | None,
    sampler_T: Tensor | None,
    variant: str,
    clip_low: float,
    clip_high: float,
    clip_dual: float | None,
    kl: str,
    kl_coef: float,
    entropy_coef: float,
    mismatch: str,
    mismatch_low: float,
    mismatch_high: float,
    temperature: float,
    chunk_bytes: int,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(loss, logprob_T, entropy_T, dhidden_TD, dweight_VD, dbias_V); unwanted ones are empty."""
    loss = PolicyLoss(
        variant, clip_low, clip_high, clip_dual, kl, kl_coef,  # type: ignore[arg-type]
        entropy_coef, mismatch, mismatch_low, mismatch_high,  # type: ignore[arg-type]
    )  # fmt: skip
    tokens = Tokens(advantage_T, weight_T, old_T, reference_T, sampler_T)
    rows, _ = plan_chunks(hidden_TD, weight_VD.shape[0], chunk_bytes)
    dtype = sum_dtype(hidden_TD)
    logprob_T, entropy_T, term_T = (hidden_TD.new_zeros(target_T.shape, dtype=dtype) for _ in "abc")
    gradients = HeadGradients(hidden_TD, weight_VD, bias_V, wanted)
    learning_T = may_learn(tokens, loss) if any(wanted) else torch.zeros_like(weight_T != 0)
    # A gradient is clipped away only where a ratio has left 1.
    may_stop = old_T is not None and loss.kl_coef == 0 and loss.entropy_coef == 0
    for C in chunks_where(learning_T, rows):
        logits_CV = head_logits(hidden_TD[C], weight_VD, bias_V)
        logprob_C, entropy_C, lse_C = row_stats_forward(logits_CV, target_T[C], temperature)
        term_C, g_C, h_C = _slopes(logprob_C, entropy_C, tokens.at(C), loss)
        logprob_T[C], entropy_T[C], term_T[C] = logprob_C, entropy_C, term_C
        rows_N = _moving_rows(g_C, h_C) if may_stop else None
        dlogits_NV = row_stats_backward(
            logits_CV, target_T[C], lse_C, entropy_C, g_C, h_C, temperature, hidden_TD.dtype, rows_N
        )
        gradients.add(part_of(C, rows_N), dlogits_NV, hidden_TD, weight_VD)
        del logits_CV, dlogits_NV  # before the next chunk asks for as much again
    for C in chunks_where((weight_T != 0) & ~learning_T, rows):
        logits_CV = head_logits(hidden_TD[C], weight_VD, bias_V)
        logprob_T[C], entropy_T[C], _ = row_stats_forward(logits_CV, target_T[C], temperature)
        term_T[C] = token_loss(logprob_T[C], entropy_T[C], tokens.at(C), loss)
        del logits_CV
    # One sum at the end: its bits do not depend on the chunks.
    return (weight_T * term_T).sum(), logprob_T, entropy_T, *gradients.sums


_AUTOGRAD = torch._C.DispatchKey.AutogradFunctionality


def _moving_rows(g_C: Tensor, h_C: Tensor | None) -> Tensor | None:
    """Rows of a chunk that have a slope, None if all have; the others need no product.

    On CPU some without one fill them up to a multiple of `ROW_MULTIPLE`.
    """
    moves_C = g_C != 0 if h_C is None else (g_C != 0) | (h_C != 0)
    count = int(moves_C.sum())
    if not g_C.is_cuda:
        count = -(-count // ROW_MULTIPLE) * ROW_MULTIPLE
    if count >= len(g_C):
        return None
    # Those that move first, each kind in its order; then in order of rows again.
    return (~moves_C).byte().argsort(stable=True)[:count].sort().values


def _slopes(
    logprob_C: Tensor, entropy_C: Tensor, tokens: Tokens, loss: PolicyLoss
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(term_C, g_C, h_C): the unweighted terms, and the weighted slopes of their sum."""
    # A custom op runs with autograd off and its dispatch key excluded: both are let in for this.
    with torch._C._SetExcludeDispatchKeyGuard(_AUTOGRAD, False), torch.enable_grad():
        logprob_C, entropy_C = (x_C.detach().requires_grad_() for x_C in (logprob_C, entropy_C))
        term_C = token_loss(logprob_C, entropy_C, tokens, loss)
        g_C, h_C = torch.autograd.grad(
            term_C, (logprob_C, entropy_C), tokens.weight_N.to(term_C.dtype), allow_unused=True
        )
    assert g_C is not None
    return term_C.detach(), g_C, h_C


@_one_pass.register_fake
def _like_one_pass(
    hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_T: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    dtype, wanted = sum_dtype(hidden_TD), others[-1]
    loss, logprob_T, entropy_T = (
        hidden_TD.new_empty(shape, dtype=dtype) for shape in ((), target_T.shape, target_T.shape)
    )
    gradients = gradients_like(hidden_TD, weight_VD, bias_V, wanted, summed=True)
    return loss, logprob_T, entropy_T, *gradients


@torch.library.custom_op("r1ci::scale_head_gradients", mutates_args=())
def _scale(
    slope: Tensor,
    dhidden_TD: Tensor,
    dweight_VD: Tensor,
    dbias_V: Tensor,
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients times `slope`, rounded to the types of what they belong to.

    It takes the operands too, although it does not read them: whoever differentiates a second
    time is thereby told that this operator cannot be, instead of finding zeros.
    """
    types = (hidden_TD.dtype, weight_VD.dtype, weight_VD.dtype if bias_V is None else bias_V.dtype)
    made = []
    for gradient, dtype in zip((dhidden_TD, dweight_VD, dbias_V), types, strict=True):
        out = torch.empty_like(gradient, dtype=dtype)
        made.append(torch.mul(gradient, slope, out=out))  # rounds on the way: no fp32 copy
    return made[0], made[1], made[2]


@_scale.register_fake
def _like_scale(
    slope: Tensor,
    dhidden_TD: Tensor,
    dweight_VD: Tensor,
    dbias_V: Tensor,
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    wanted = [x.numel() > 0 for x in (dhidden_TD, dweight_VD, dbias_V)]
    return gradients_like(hidden_TD, weight_VD, bias_V, wanted, summed=False)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden_TD, weight_VD, bias_V = inputs[:3]
    ctx.save_for_backward(*output[3:], hidden_TD, weight_VD, bias_V)
    ctx.count = len(inputs)


def _differentiate(ctx: Any, slope: Tensor, *_: Any) -> tuple[Any, ...]:
    # A trace has no value to look at, and what is differentiated again needs `_scale`.
    plain = type(slope) is Tensor and not torch.is_grad_enabled()
    if plain and bool(slope == 1):  # the usual case, and no second dhidden_TD
        dhidden_TD, dweight_VD, dbias_V, _, weight_VD, bias_V = ctx.saved_tensors
        bias_dtype = weight_VD.dtype if bias_V is None else bias_V.dtype
        gradients = dhidden_TD, dweight_VD.to(weight_VD.dtype), dbias_V.to(bias_dtype)
    else:
        gradients = _scale(slope, *ctx.saved_tensors)
    wanted = ctx.needs_input_grad[:3]
    chosen = (x if wants else None for x, wants in zip(gradients, wanted, strict=True))
    return *chosen, *(None for _ in range(ctx.count - 3))


_one_pass.register_autograd(_differentiate, setup_context=_setup)


def _two_passes(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    target_T: Tensor,
    tokens: Tokens,
    loss: PolicyLoss,
    temperature: float,
    bias_V: Tensor | None,
    chunk_bytes: int | None,
) -> LinearLoss:
    """All log-probabilities first, then the loss on them, then the rows that have a slope again."""
    rows_N = (tokens.weight_N != 0).nonzero().squeeze(-1)
    logprob_N, entropy_N = linear_logprob(
        hidden_TD[rows_N], weight_VD, target_T[rows_N], temperature,
        bias_V=bias_V, chunk_bytes=chunk_bytes,
    )  # fmt: skip
    value = policy_loss(logprob_N, entropy_N, tokens.at(rows_N), loss)
    return LinearLoss(value, *(_spread(x_N, rows_N, tokens) for x_N in (logprob_N, entropy_N)))


def _spread(x_N: Tensor, rows_N: Tensor, tokens: Tokens) -> Tensor:
    """Values of the rows that entered, at their places among all, without gradient."""
    zero_T = x_N.new_zeros(tokens.weight_N.shape)
    return zero_T.index_copy(0, rows_N, x_N.detach())


def _check_tokens(tokens: Tokens, loss: PolicyLoss, target_T: Tensor) -> None:
    for field in fields(tokens):
        name, values = field.name, getattr(tokens, field.name)
        if values is not None and values.shape != target_T.shape:
            found, expected = f"`{tuple(values.shape)}`", f"`{tuple(target_T.shape)}`"
            raise DataError(f"{name} has shape {found}, expected {expected}, as the targets")
    needs = {
        "reference_N": loss.kl_coef > 0,
        "sampler_N": loss.mismatch != "none",
        "sequence_N": loss.variant == "gspo",
    }
    for name, needed in needs.items():
        if needed and getattr(tokens, name) is None:
            raise DataError(f"the loss needs `{name}`, which is missing", hint=f"loss: {loss}")
