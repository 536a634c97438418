"""From trajectories and transcripts to packed micro-batches.

A `TrainSequence` is one flat token sequence with a flag per token that says whether it is trained.
Rust packs them best-fit decreasing under a hard cap of tokens, without padding. Rows that predict
nothing trained are left out of `rows_N`, so prompt and tool tokens never reach the head: there is
no mask to multiply by, hence nothing to forget and no NaN to leak.

Invariants: what is trained follows from who wrote a token, never from its id. Trajectory tokens
are the ids as sampled.

Shape suffixes: T packed token, N trained token (target), B sequence of the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
    """Tokens of one sequence and what the loss needs of each.

    tokens       41  7 12 | 88 90 | 15 16 | 91  2
    who          prompt   | model | tool  | model      (2 ends the turn)
    trained       .  .  . |  x  x |  .  . |  x  x
    """

    tokens: np.ndarray
    """int64, the whole sequence: prompt, model and tool."""
    trained: np.ndarray
    """bool, True for tokens the model wrote (or is to imitate); never the first, which nothing
    predicts."""
    old_logprob: np.ndarray
    """float32, log-probability at sampling time; 0 where not trained."""
    advantage: float = 0.0
    """Of the trajectory; supervised sequences have none."""
    name: str = ""
    """For messages: the item it answers."""

    @property
    def targets(self) -> int:
        """Number of tokens that carry loss."""
        return int(self.trained.sum())


@dataclass(frozen=True)
class PackedBatch:
    """One micro-batch on a device: sequences end to end."""

    tokens_T: Tensor
    positions_T: Tensor
    """Counted from 0 in each sequence."""
    cu_seqlens: np.ndarray
    """int32 offsets `[B + 1]` on the host, where attention wants them."""
    rows_N: Tensor
    """Hidden rows that predict a trained token."""
    target_N: Tensor
    """The token each of these rows predicts."""
    sequence_N: Tensor
    """Index, in the list given to `micro_batches`, of the sequence each target belongs to."""
    old_logprob_N: Tensor
    advantage_N: Tensor
    """Of the target's sequence."""
    length_N: Tensor
    """Trained tokens in the target's sequence; float32, to divide by."""


def encode_transcript(
    transcript: Transcript,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    *,
    feedback: Literal["inline", "turn"] = "inline",
) -> TrainSequence:
    """Tokens exactly as a rollout would have produced them, part by part.

    `feedback` is how the rollout gives results back (`protocol.feedback`). The last part is closed
    by a stop token, which is trained. Without messages it is a document: no template, no BOS.
    Raises DataError if the transcript does not end with the model's words.
    """
    if not transcript.parts or transcript.parts[-1][0] is not SegmentKind.MODEL:
        raise DataError(f"transcript `{transcript.item_id}` does not end with the model's words")
    tokens = list(template.prompt_tokens(list(transcript.messages))) if transcript.messages else []
    trained = [False] * len(tokens)
    for kind, text in transcript.parts:
        if kind is SegmentKind.TOOL and feedback == "turn":
            ids = template.turn_tokens(text.strip("\n"))
        else:
            ids = tokenizer.encode_text(text)
        tokens += ids
        trained += [kind is SegmentKind.MODEL] * len(ids)
    tokens.append(tokenizer.end_id)
    trained.append(True)
    no_logprob = np.zeros(len(tokens), np.float32)
    return TrainSequence(*_arrays(tokens, trained), no_logprob, name=transcript.item_id)


def from_trajectory(trajectory: Trajectory) -> TrainSequence:
    """The ids as sampled, never tokenised again, with their log-probabilities.

    Raises DataError if a token the model wrote has no finite log-probability.
    """
    tokens, trained = _arrays(trajectory.tokens, trajectory.model_mask())
    logprob = np.asarray(trajectory.logprobs, np.float32)
    if logprob.shape != trained.shape or not np.isfinite(logprob[trained]).all():
        raise DataError(
            f"sample `{trajectory.sample_index}` of item `{trajectory.item_id}` lacks the "
            "log-probability of a token that the model wrote"
        )
    # Whatever stands at prompt and tool tokens means nothing and stays here.
    old_logprob = np.where(trained, logprob, np.float32(0))
    return TrainSequence(tokens, trained, old_logprob, trajectory.advantage, trajectory.item_id)


def micro_batches(
    sequences: Sequence[TrainSequence], cap: int, device: torch.device | str = "cpu"
) -> list[PackedBatch]:
    """Pack the sequences that have something to learn, at most `cap` tokens per batch.

    Raises DataError for a sequence longer than that.
    """
    taught = np.asarray([i for i, s in enumerate(sequences) if s.targets], np.int64)
    if not len(taught):
        return []
    lengths = np.asarray([len(sequence.tokens) for sequence in sequences], np.int64)
    longest = int(taught[lengths[taught].argmax()])
    if lengths[longest] > cap:
        raise DataError(
            f"sequence `{sequences[longest].name}` has `{lengths[longest]}` tokens, more than "
            f"the `{cap}` of a micro-batch",
            hint="raise micro_tokens or lower rollout.context",
        )
    batch = {
        "tokens": np.concatenate([sequence.tokens for sequence in sequences]),
        "loss_mask": np.concatenate([sequence.trained for sequence in sequences]),
        "old_logprob": np.concatenate([sequence.old_logprob for sequence in sequences]),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]),
    }
    advantage_B = np.asarray([sequence.advantage for sequence in sequences], np.float32)
    targets_B = np.asarray([sequence.targets for sequence in sequences], np.float32)
    bins = _rust.pack_bins(lengths[taught], cap)
    return [
        _packed(
            _rust.pack_sequences(indices=taught[bins == index], **batch),
            advantage_B,
            targets_B,
            torch.device(device),
        )
        for index in range(int(bins.max()) + 1)
    ]


def _arrays(tokens: Sequence[int], trained: Sequence[bool]) -> tuple[np.ndarray, np.ndarray]:
    trained_T = np.array(trained, np.bool_)
    trained_T[:1] = False
    return np.asarray(tokens, np.int64), trained_T


def _packed(
    arrays: dict[str, np.ndarray],
    advantage_B: np.ndarray,
    targets_B: np.ndarray,
    device: torch.device,
) -> PackedBatch:
    at_N = np.flatnonzero(arrays["loss_mask"])
    sequence_N = arrays["sequence"][at_N]

    def to_device(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device)

    return PackedBatch(
        tokens_T=to_device(arrays["tokens"]),
        positions_T=to_device(arrays["positions"]),
        cu_seqlens=arrays["cu_seqlens"],
        rows_N=to_device(at_N - 1),
        target_N=to_device(arrays["tokens"][at_N]),
        sequence_N=to_device(sequence_N.astype(np.int64)),
        old_logprob_N=to_device(arrays["old_logprob"][at_N]),
        advantage_N=to_device(advantage_B[sequence_N]),
        length_N=to_device(targets_B[sequence_N]),
    )
