"""The supervised step: imitate the model's parts of transcripts, token by token.

The loss is the mean negative log-probability over all trained tokens of the step, whichever
micro-batch they fall into: the normaliser is counted before the first forward pass.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from r1ci_engine.config import SftSection
from r1ci_engine.errors import DataError
from r1ci_engine.kernels import linear_cross_entropy
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.seeds import derive_seed
from r1ci_engine.train.batch import TrainSequence, micro_batches
from r1ci_engine.train.optimizer import Optimizer
from r1ci_engine.train.policy import trained_rows
from r1ci_engine.trajectory import SegmentKind, Transcript, read_jsonl

_FIELDS_HINT = "each line needs `messages`: objects with `role` and `content`"


def sft_step(
    model: Decoder, optimizer: Optimizer, sequences: Sequence[TrainSequence], section: SftSection
) -> dict[str, float]:
    """One optimizer step on `sequences`. Returns `loss`, `tokens` and what the optimizer says."""
    device = model.head_weight.device
    targets = sum(sequence.targets for sequence in sequences)
    loss = 0.0
    for batch in micro_batches(sequences, section.micro_tokens, device):
        hidden_ND = trained_rows(model, batch)
        weight_N = hidden_ND.new_full(
            batch.target_N.shape, 1 / max(targets, 1), dtype=torch.float32
        )
        share = linear_cross_entropy(hidden_ND, model.head_weight, batch.target_N, weight_N).loss
        share.backward()
        loss += float(share.detach())
    tokens = sum(len(sequence.tokens) for sequence in sequences)
    return {"loss": loss, "tokens": float(tokens), **optimizer.step()}


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Which of `count` sequences step `step` (from 0) learns from; a pure function.

    Sequences come in passes, each a fresh shuffle with every index once; a batch may run over the
    end of a pass.
    """
    passes: dict[int, list[int]] = {}
    chosen = []
    for position in range(step * batch_size, (step + 1) * batch_size):
        number, offset = divmod(position, count)
        if number not in passes:
            order = list(range(count))
            random.Random(derive_seed(seed, "sft", number)).shuffle(order)
            passes[number] = order
        chosen.append(passes[number][offset])
    return chosen


def load_messages(path: Path) -> list[Transcript]:
    """Transcripts from JSONL, each line with a `messages` list of {role, content}.

    `system` and `user` come first and are the prompt; after them stand `assistant`, which is
    trained, and `tool`, which is not and is shown to the model as it is. The last is `assistant`.
    Raises DataError naming file, line and message for anything else, or if there is none.
    """
    transcripts = []
    for number, record in read_jsonl(path):
        messages = record.get("messages")
        where = f"`{path}` line {number}"
        if not isinstance(messages, list):
            raise DataError(f"{where} has no list `messages`", hint=_FIELDS_HINT)
        transcripts.append(_transcript(messages, where, name=f"{path}:{number}"))
    if not transcripts:
        raise DataError(f"`{path}` holds no transcripts", hint=_FIELDS_HINT)
    return transcripts


def _transcript(messages: list[Any], where: str, name: str) -> Transcript:
    prompt: list[dict[str, str]] = []
    parts: list[tuple[SegmentKind, str]] = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise DataError(f"{where}: message {number} has no text under `content`")
        role, content = message.get("role"), message["content"]
        if role in ("system", "user") and not parts:
            prompt.append({"role": role, "content": content})
        elif role == "assistant" and prompt:
            parts.append((SegmentKind.MODEL, content))
        elif role == "tool" and parts:
            parts.append((SegmentKind.TOOL, content))
        else:
            raise DataError(
                f"{where}: message {number} has role `{role}`, which cannot stand there",
                hint="system and user come first, then assistant and tool, ending with assistant",
            )
    if not parts or parts[-1][0] is not SegmentKind.MODEL:
        raise DataError(f"{where} does not end with an assistant message")
    return Transcript(tuple(prompt), tuple(parts), item_id=name)
