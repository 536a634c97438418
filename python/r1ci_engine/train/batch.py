"""From trajectories and transcripts to packed micro-batches.

A `TrainSequence` is one flat token sequence with a flag per token that says whether it is trained;
Rust packs them best-fit decreasing under a hard token cap. Rows that predict nothing trained are
left out of `rows_N`, so prompt, tool and padding tokens never reach the head.

Shape suffixes: T packed token, N trained token (target), B sequence of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from r1ci_engine import _rust
from r1ci_engine.errors import DataError
from r1ci_engine.model.template import ChatTemplate
from r1ci_engine.model.tokenizer import TextTokenizer
from r1ci_engine.trajectory import SegmentKind, Trajectory, Transcript


@dataclass(frozen=True)
class TrainSequence:
    """Tokens of one sequence and what the loss needs of each."""

    tokens: np.ndarray
    """int64, the whole sequence: prompt, model and tool."""
    trained: np.ndarray
    """bool, True for tokens the model wrote (or is to imitate)."""
    old_logprob: np.ndarray
    """float32, log-probability at sampling time; 0 where not trained."""
    name: str = ""
    """For messages: the item it answers."""

    @property
    def targets(self) -> int:
        """Number of tokens that carry loss; the first token never does, nothing predicts it."""
        return int(self.trained[1:].sum())


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch on a device."""

    tokens_T: Tensor
    positions_T: Tensor
    cu_seqlens: np.ndarray
    """int32 offsets on the host, where attention wants them."""
    rows_N: Tensor
    """Hidden rows that predict a trained token."""
    target_N: Tensor
    """The token each of these rows predicts."""
    old_logprob_N: Tensor
    sequence_N: Tensor
    """Index, in the list given to `micro_batches`, of the sequence each target belongs to."""


def encode_transcript(
    transcript: Transcript, tokenizer: TextTokenizer, template: ChatTemplate
) -> TrainSequence:
    """Tokens exactly as a rollout would have produced them, part by part.

    The last part is closed by a stop token, which is trained. Raises DataError if the model wrote
    nothing.
    """
    tokens = list(template.prompt_tokens(list(transcript.messages))) if transcript.messages else []
    trained = [False] * len(tokens)
    for kind, text in transcript.parts:
        ids = tokenizer.encode_text(text)
        tokens += ids
        trained += [kind is SegmentKind.MODEL] * len(ids)
    if not transcript.parts or transcript.parts[-1][0] is not SegmentKind.MODEL:
        raise DataError(f"transcript `{transcript.item_id}` does not end with the model's words")
    tokens.append(tokenizer.end_id)
    trained.append(True)
    trained[0] = False
    return TrainSequence(
        np.asarray(tokens, np.int64),
        np.asarray(trained, np.bool_),
        np.zeros(len(tokens), np.float32),
        transcript.item_id,
    )


def from_trajectory(trajectory: Trajectory) -> TrainSequence:
    """The ids as sampled, never tokenised again, with their log-probabilities."""
    return TrainSequence(
        np.asarray(trajectory.tokens, np.int64),
        np.asarray(trajectory.model_mask(), np.bool_),
        np.asarray(trajectory.logprobs, np.float32),
        trajectory.item_id,
    )


def micro_batches(
    sequences: Sequence[TrainSequence], cap: int, device: torch.device | str = "cpu"
) -> list[PackedBatch]:
    """Pack under at most `cap` tokens each. Raises DataError for a sequence longer than that."""
    lengths = np.asarray([len(sequence.tokens) for sequence in sequences], np.int64)
    too_long = int(lengths.argmax())
    if lengths[too_long] > cap:
        raise DataError(
            f"sequence `{sequences[too_long].name}` has `{lengths[too_long]}` tokens, more than "
            f"the `{cap}` of a micro-batch",
            hint="raise micro_tokens or lower rollout.context",
        )
    bins = _rust.pack_bins(lengths, cap)
    tokens = np.concatenate([sequence.tokens for sequence in sequences])
    trained = np.concatenate([sequence.trained for sequence in sequences])
    old_logprob = np.concatenate([sequence.old_logprob for sequence in sequences])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return [
        _packed(
            _rust.pack_sequences(
                tokens, trained, offsets, np.flatnonzero(bins == index), old_logprob=old_logprob
            ),
            device,
        )
        for index in range(int(bins.max()) + 1)
    ]


def _packed(arrays: dict[str, np.ndarray], device: torch.device | str) -> PackedBatch:
    targets = np.flatnonzero(arrays["loss_mask"])
    tokens_T = torch.from_numpy(arrays["tokens"])
    target_at_N = torch.from_numpy(targets)
    return PackedBatch(
        tokens_T=tokens_T.to(device),
        positions_T=torch.from_numpy(arrays["positions"]).to(device),
        cu_seqlens=arrays["cu_seqlens"],
        rows_N=(target_at_N - 1).to(device),
        target_N=tokens_T[target_at_N].to(device),
        old_logprob_N=torch.from_numpy(arrays["old_logprob"][targets]).to(device),
        sequence_N=torch.from_numpy(arrays["sequence"][targets]).to(device, torch.int64),
    )
