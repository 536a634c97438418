"""The one forward pass of all training: hidden rows that predict the trained tokens.

Only rows that predict a trained token reach the head (`rows_N`), so memory and time of the head do
not depend on prompts and tool output, and nothing that stands there can reach a loss.

Shape suffixes: T packed token, N trained token, D hidden width.
"""

from torch import Tensor

from r1ci_engine.errors import DataError
from r1ci_engine.kernels import linear_logprob
from r1ci_engine.model.attention import PackedAttention
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.train.batch import PackedBatch


def trained_rows(model: Decoder, batch: PackedBatch) -> Tensor:
    """The hidden rows `[N, D]` whose next tokens are the targets of the batch.

    Raises DataError if a sequence has more tokens than the model has positions.
    """
    attend = PackedAttention(batch.cu_seqlens)
    if attend.longest > model.config.context:
        raise DataError(
            f"a sequence of `{attend.longest}` tokens does not fit the model's context of "
            f"`{model.config.context}`",
            hint="lower rollout.context, or leave the sequence out",
        )
    hidden_TD = model(batch.tokens_T, batch.positions_T, attend)
    return hidden_TD.index_select(0, batch.rows_N)


def target_logprobs(
    model: Decoder, batch: PackedBatch, temperature: float = 1.0
) -> tuple[Tensor, Tensor]:
    """fp32 log-probability and entropy `[N]` at each target of the batch.

    `temperature` divides the logits, as it did when the tokens were sampled. Raises DataError as
    `trained_rows` does.
    """
    hidden_ND = trained_rows(model, batch)
    return linear_logprob(hidden_ND, model.head_weight, batch.target_N, temperature)
