"""Hidden rows, head weight and what is known of each token -> a loss, with its gradients.

Legend: T row, C row of one chunk, N some rows of it, D hidden width, V vocabulary. Per chunk of
rows, while its logits exist:

    logprob_C, entropy_C         row_stats_forward
    g_C, h_C                     slopes of `token_loss` by both, times the token's weight (autograd)
    dlogits_NV                   row_stats_backward, of the rows whose slope is not 0
    dhidden_ND, dweight_VD       HeadGradients

Gradients are made in forward, so the head's product is done once: 6 T D V, where two passes cost
8 T D V. Rows of weight 0 never enter. Rows that cannot learn (`may_learn`: no advantage, and
neither divergence nor bonus) only have their log-probability taken, 2 D V each; so do those whose
slope turns out to be 0, because they are clipped. `gspo` needs a sequence's log-probabilities
before any slope, so it looks at all rows first and then again at those that have one. The loss is
`token_loss` in every case, as in the reference.

Backward multiplies the gradients by that of the loss, the rows' in place: once, that is, and
differentiating twice is an error too. Under `torch.compile`, to
which the operator is opaque, and where a graph of backward is wanted, it makes new ones instead.
Until backward a loss holds its gradients, the head's in fp32: call backward before the next loss.

fp16 has few exponents, so its gradients are made for weights of at most 1 and scaled together with
that. A ratio beyond 10^4 still leaves them: `clip_dual` bounds it.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from r1ci_engine.errors import R1ciError

from .head import (
    ROW_MULTIPLE,
    HeadGradients,
    check_head,
    chosen_chunk_bytes,
    chunks_where,
    gradients_like,
    head_logits,
    part_of,
    plan_chunks,
    scale_,
    scale_gradients,
    sum_dtype,
)
from .linear_logprob import linear_logprob_reference
from .policy_loss import (
    PolicyLoss,
    Tokens,
    check_tokens,
    may_learn,
    policy_loss,
    token_loss,
)
from .row_stats import row_stats_backward, row_stats_forward


class LinearLoss(NamedTuple):
    """What a step needs: the loss, and what to watch."""

    loss: Tensor
    """Scalar, in fp32 at least; carries the gradient."""
    logprob_T: Tensor
    """In that type, without gradient; 0 where the token's weight is 0."""
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
    zero_T = logprob_N.new_zeros(target_T.shape)
    spread = (zero_T.index_copy(0, rows_N, x_N.detach()) for x_N in (logprob_N, entropy_N))
    return LinearLoss(value, *spread)


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
    batches are flattened, with weight 0 where there is no trained token: no target (-100, say)
    stands for that. Gradients flow to `hidden_TD`, `weight_VD` (one floating type) and `bias_V`.
    `chunk_bytes` as in `linear_logprob`.

    Raises DataError on shapes, types, a temperature, or a loss that lacks what it needs.
    """
    check_head(hidden_TD, weight_VD, bias_V, target_T, temperature)
    check_tokens(tokens, loss, target_T)
    trained = (hidden_TD, weight_VD, bias_V)
    wanted = [torch.is_grad_enabled() and x is not None and x.requires_grad for x in trained]
    chunk_bytes = chosen_chunk_bytes(chunk_bytes, hidden_TD.device)
    results = _loss_and_gradients(
        hidden_TD, weight_VD, bias_V, target_T,
        tokens.advantage_N, tokens.weight_N, tokens.old_N, tokens.reference_N, tokens.sampler_N,
        tokens.sequence_N,
        loss.variant, loss.clip_low, loss.clip_high, loss.clip_dual, loss.kl, loss.kl_coef,
        loss.entropy_coef, loss.mismatch, loss.mismatch_low, loss.mismatch_high,
        temperature, chunk_bytes, wanted,
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


# How many rows enter is data, which a captured CUDA graph could not ask for.
@torch.library.custom_op(
    "r1ci::linear_policy_loss", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,)
)
def _loss_and_gradients(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_T: Tensor,
    advantage_T: Tensor,
    weight_T: Tensor,
    old_T: Tensor | None,
    reference_T: Tensor | None,
    sampler_T: Tensor | None,
    sequence_T: Tensor | None,
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(loss, logprob_T, entropy_T, unit, dhidden_TD, dweight_VD, dbias_V).

    The gradients are those of loss / unit; those that are not wanted are empty.
    """
    loss = PolicyLoss(
        variant, clip_low, clip_high, clip_dual, kl, kl_coef,  # type: ignore[arg-type]
        entropy_coef, mismatch, mismatch_low, mismatch_high,  # type: ignore[arg-type]
    )  # fmt: skip
    dtype = sum_dtype(hidden_TD)
    advantage_T, weight_T = advantage_T.to(dtype), weight_T.to(dtype)
    old_T, reference_T, sampler_T = (
        None if x_T is None else x_T.to(dtype) for x_T in (old_T, reference_T, sampler_T)
    )
    tokens = Tokens(advantage_T, weight_T, old_T, reference_T, sampler_T, sequence_T)
    unit = weight_T.new_ones(())
    if hidden_TD.dtype == torch.float16 and weight_T.numel():
        unit = weight_T.abs().max().clamp(min=torch.finfo(dtype).tiny)
    rows, _ = plan_chunks(hidden_TD, weight_VD.shape[0], chunk_bytes)
    head = _Head(hidden_TD, weight_VD, bias_V, target_T, temperature, rows)
    stats = _Stats(*(hidden_TD.new_zeros(target_T.shape, dtype=dtype) for _ in _Stats._fields))
    gradients = HeadGradients(hidden_TD, weight_VD, bias_V, wanted)
    passes = _two_passes if variant == "gspo" else _one_pass
    passes(head, tokens, loss, unit, stats, gradients)
    # One sum at the end: its bits do not depend on the chunks.
    return (weight_T * stats.term_T).sum(), stats.logprob_T, stats.entropy_T, unit, *gradients.sums


class _Head(NamedTuple):
    hidden_TD: Tensor
    weight_VD: Tensor
    bias_V: Tensor | None
    target_T: Tensor
    temperature: float
    rows: int
    """Of a chunk."""

    def logits(self, C: slice | Tensor) -> Tensor:
        return head_logits(self.hidden_TD[C], self.weight_VD, self.bias_V)


class _Stats(NamedTuple):
    """0 where a row has not entered."""

    logprob_T: Tensor
    entropy_T: Tensor
    lse_T: Tensor
    term_T: Tensor

    def look(self, C: slice | Tensor, logits_CV: Tensor, head: _Head) -> None:
        found = row_stats_forward(logits_CV, head.target_T[C], head.temperature)
        self.logprob_T[C], self.entropy_T[C], self.lse_T[C] = found


def _one_pass(
    head: _Head,
    tokens: Tokens,
    loss: PolicyLoss,
    unit: Tensor,
    stats: _Stats,
    gradients: HeadGradients,
) -> None:
    learning_T = may_learn(tokens, loss) & any(gradients.wanted)
    # Whether one of these rows can turn out to have no slope; to look takes a synchronisation.
    clipped = tokens.old_N is not None or loss.mismatch == "icepop"
    may_stop = loss.entropy_coef == 0 and (clipped or loss.kl_coef > 0)
    for C in chunks_where(learning_T, head.rows):
        logits_CV = head.logits(C)
        stats.look(C, logits_CV, head)
        stats.term_T[C], g_C, h_C = _slopes(stats, C, tokens, loss, unit)
        rows_N = _moving_rows(g_C) if may_stop else None
        dlogits_NV = row_stats_backward(
            logits_CV, head.target_T[C], stats.lse_T[C], stats.entropy_T[C], g_C, h_C,
            head.temperature, head.hidden_TD.dtype, rows_N,
        )  # fmt: skip
        gradients.add(part_of(C, rows_N), dlogits_NV, head.hidden_TD, head.weight_VD)
        del logits_CV, dlogits_NV  # before the next chunk asks for as much again
    for C in chunks_where((tokens.weight_N != 0) & ~learning_T, head.rows):
        stats.look(C, head.logits(C), head)
        terms_C = token_loss(stats.logprob_T[C], stats.entropy_T[C], tokens.at(C), loss)
        stats.term_T[C] = terms_C


def _two_passes(
    head: _Head,
    tokens: Tokens,
    loss: PolicyLoss,
    unit: Tensor,
    stats: _Stats,
    gradients: HeadGradients,
) -> None:
    entering_T = tokens.weight_N != 0
    for C in chunks_where(entering_T, head.rows):
        stats.look(C, head.logits(C), head)
    rows_N = entering_T.nonzero().squeeze(-1)
    if not any(gradients.wanted):
        logprob_N, entropy_N = stats.logprob_T[rows_N], stats.entropy_T[rows_N]
        stats.term_T[rows_N] = token_loss(logprob_N, entropy_N, tokens.at(rows_N), loss)
        return
    stats.term_T[rows_N], g_N, h_N = _slopes(stats, rows_N, tokens, loss, unit)
    g_T, h_T = torch.zeros_like(stats.term_T), torch.zeros_like(stats.term_T)
    g_T[rows_N] = g_N
    if h_N is not None:
        h_T[rows_N] = h_N
    for C in chunks_where((g_T != 0) | (h_T != 0), head.rows):
        logits_CV = head.logits(C)
        dlogits_CV = row_stats_backward(
            logits_CV, head.target_T[C], stats.lse_T[C], stats.entropy_T[C],
            g_T[C], None if h_N is None else h_T[C], head.temperature, head.hidden_TD.dtype,
        )  # fmt: skip
        gradients.add(C, dlogits_CV, head.hidden_TD, head.weight_VD)
        del logits_CV, dlogits_CV


def _moving_rows(g_C: Tensor) -> Tensor | None:
    """Rows of a chunk that have a slope, None if all have; the others need no product.

    On CPU some without one fill them up to a multiple of `ROW_MULTIPLE`.
    """
    moves_C = g_C != 0
    count = int(moves_C.sum())
    if not g_C.is_cuda:
        count = -(-count // ROW_MULTIPLE) * ROW_MULTIPLE
    if count >= len(g_C):
        return None
    # Those that move first, each kind in its order; then in order of rows again.
    return (~moves_C).byte().argsort(stable=True)[:count].sort().values


_AUTOGRAD = torch._C.DispatchKey.AutogradFunctionality


def _slopes(
    stats: _Stats, C: slice | Tensor, tokens: Tokens, loss: PolicyLoss, unit: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(term_C, g_C, h_C): the unweighted terms, and the weighted slopes of their sum / unit."""
    tokens = tokens.at(C)
    # A custom op runs with autograd off and its dispatch key excluded: both are let in for this.
    with torch._C._SetExcludeDispatchKeyGuard(_AUTOGRAD, False), torch.enable_grad():
        logprob_C, entropy_C = (
            x_T[C].detach().requires_grad_() for x_T in (stats.logprob_T, stats.entropy_T)
        )
        term_C = token_loss(logprob_C, entropy_C, tokens, loss)
        g_C, h_C = torch.autograd.grad(
            term_C, (logprob_C, entropy_C), tokens.weight_N / unit, allow_unused=True
        )
    assert g_C is not None
    return term_C.detach(), g_C, h_C


@_loss_and_gradients.register_fake
def _like_loss_and_gradients(
    hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, target_T: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    dtype, wanted = sum_dtype(hidden_TD), others[-1]
    loss, unit, logprob_T, entropy_T = (
        hidden_TD.new_empty(shape, dtype=dtype) for shape in ((), (), *2 * (target_T.shape,))
    )
    gradients = gradients_like(hidden_TD, weight_VD, bias_V, wanted, summed=True)
    return loss, logprob_T, entropy_T, unit, *gradients


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    hidden_TD, weight_VD, bias_V = inputs[:3]
    ctx.save_for_backward(*output[3:], hidden_TD, weight_VD, bias_V)
    ctx.wanted, ctx.others, ctx.handed_over = inputs[-1], len(inputs) - 3, False
    ctx.set_materialize_grads(False)


def _differentiate(ctx: Any, slope: Tensor | None, *_: Any) -> tuple[Any, ...]:
    nothing = (None,) * ctx.others
    if slope is None:
        return None, None, None, *nothing
    if ctx.handed_over:
        raise R1ciError(
            "the gradients of this loss were handed over in an earlier backward",
            hint="`linear_logprob` and `policy_loss` keep their graph for another one",
        )
    unit, *sums, hidden_TD, weight_VD, bias_V = ctx.saved_tensors
    slope = slope * unit
    # A trace may change nothing in place, and what is differentiated again needs the operator.
    if type(slope) is not Tensor or torch.is_grad_enabled():
        gradients = scale_gradients(slope, *sums, hidden_TD, weight_VD, bias_V, ctx.wanted)
    else:
        ctx.handed_over = True
        gradients = [scale_(x, slope, like) for x, like in zip(
            sums, (hidden_TD, weight_VD, weight_VD if bias_V is None else bias_V), strict=True
        )]  # fmt: skip
    chosen = (x if wants else None for x, wants in zip(gradients, ctx.wanted, strict=True))
    return *chosen, *nothing


_loss_and_gradients.register_autograd(_differentiate, setup_context=_setup)
