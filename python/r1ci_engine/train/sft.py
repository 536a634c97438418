"""The supervised step: imitate the model's parts of transcripts, token by token.

The loss is the mean negative log-probability over all trained tokens of the step, whichever
micro-batch they fall into: the normaliser is counted before the first forward pass.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from r1ci_engine.config import SftSection
from r1ci_engine.errors import DataError
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.seeds import derive_seed
from r1ci_engine.train.batch import TrainSequence, micro_batches
from r1ci_engine.train.optimizer import Optimizer
from r1ci_engine.train.policy import target_logprobs
from r1ci_engine.trajectory import SegmentKind, Transcript, read_jsonl


def sft_step(
    model: Decoder, optimizer: Optimizer, sequences: Sequence[TrainSequence], section: SftSection
) -> dict[str, float]:
    """One optimizer step on `sequences`. Returns `loss`, `tokens` and what the optimizer says."""
    device = model.head_weight.device
    targets = sum(sequence.targets for sequence in sequences)
    loss = 0.0
    for batch in micro_batches(sequences, section.micro_tokens, device):
        logprob_N, _ = target_logprobs(model, batch)
        share = -logprob_N.sum() / max(targets, 1)
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
    """Transcripts from JSONL with a `messages` list of {role, content}.

    Messages up to the first `assistant` are the prompt; after it `assistant` is trained and
    `tool` is not. Raises DataError naming file and line for anything else, or if there is none.
    """
    transcripts = []
    for number, record in read_jsonl(path):
        where = f"`{path}` line {number}"
        messages = record.get("messages")
        if not isinstance(messages, list) or not messages:
            raise DataError(f"{where} has no list `messages`")
        transcripts.append(_transcript(messages, where))
    if not transcripts:
        raise DataError(f"`{path}` holds no transcripts")
    return transcripts


def _transcript(messages: list, where: str) -> Transcript:
    kinds = {"assistant": SegmentKind.MODEL, "tool": SegmentKind.TOOL}
    prompt: list[dict[str, str]] = []
    parts: list[tuple[SegmentKind, str]] = []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise DataError(f"{where}: a message lacks text under `content`")
        role = message.get("role")
        if role in kinds:
            parts.append((kinds[role], message["content"]))
        elif role in ("system", "user") and not parts:
            prompt.append({"role": role, "content": message["content"]})
        else:
            raise DataError(
                f"{where}: role `{role}` cannot stand here",
                hint="system and user come first, then assistant and tool, ending with assistant",
            )
    if not prompt or not parts or parts[0][0] is not SegmentKind.MODEL:
        raise DataError(f"{where}: needs a user message followed by an assistant message")
    if parts[-1][0] is not SegmentKind.MODEL:
        raise DataError(f"{where}: the last message must be the assistant's")
    return Transcript(tuple(prompt), tuple(parts), "", where)
