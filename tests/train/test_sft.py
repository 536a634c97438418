"""The supervised step against plain cross-entropy, its order of sequences, and its files."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_config, tiny_model
from torch import Tensor
from train_world import (
    MODEL,
    PROMPT,
    TOOL,
    TWO_TURNS,
    GradientCatcher,
    flat,
    logits_alone,
    make_trajectory,
    relative_error,
    take_gradient,
)

from r1ci_engine.config import OptimizerSection, SftSection
from r1ci_engine.errors import DataError
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.train.batch import TrainSequence, from_trajectory
from r1ci_engine.train.optimizer import Optimizer
from r1ci_engine.train.sft import batch_indices, load_messages, sft_step


def sequences() -> list[TrainSequence]:
    lengths = (3, 17, 8, 30, 5, 11, 2)
    return [
        from_trajectory(make_trajectory(((PROMPT, 3 + i), (MODEL, n), (TOOL, 4), (MODEL, 2))))
        for i, n in enumerate(lengths)
    ]


def step_gradient(model: Decoder, chosen: list[TrainSequence], micro_tokens: int) -> Tensor:
    catcher = GradientCatcher(model)
    sft_step(model, catcher, chosen, SftSection(micro_tokens=micro_tokens))  # pyright: ignore
    return flat(catcher.caught[0])


@pytest.mark.parametrize("micro_tokens", [52, 97, 10_000])
def test_the_step_is_plain_cross_entropy(micro_tokens: int) -> None:
    """The mean over all trained tokens, whatever the micro-batches."""
    model = tiny_model(tiny_config())
    chosen = sequences()
    negative, count = torch.zeros(()), 0
    for sequence in chosen:
        logprob_TV = torch.log_softmax(logits_alone(model, sequence.tokens.tolist()), -1)
        for at in sequence.trained.nonzero()[0].tolist():
            negative = negative - logprob_TV[at - 1, int(sequence.tokens[at])]
            count += 1
    (negative / count).backward()
    right = flat(take_gradient(model))
    assert relative_error(step_gradient(model, chosen, micro_tokens), right) < 2e-5
    assert relative_error(step_gradient(model, chosen[:-1], micro_tokens), right) > 1e-3


def test_a_step_reports_its_loss_and_tokens() -> None:
    model = tiny_model(tiny_config())
    section = SftSection(micro_tokens=64)
    metrics = sft_step(model, Optimizer(model, section.optimizer, 10), sequences(), section)
    assert set(metrics) == {"loss", "tokens", "lr", "grad/norm", "grad/skipped"}
    assert metrics["tokens"] == sum(len(s.tokens) for s in sequences())
    assert metrics["loss"] > 1


def test_nothing_to_imitate_is_a_skipped_step() -> None:
    """A finite zero loss, and it is counted."""
    model = tiny_model(tiny_config())
    section = SftSection()
    prompt_only = [from_trajectory(make_trajectory(((PROMPT, 7),)))]
    metrics = sft_step(model, Optimizer(model, section.optimizer, 10), prompt_only, section)
    assert metrics["loss"] == 0.0 and metrics["grad/skipped"] == 1.0


def test_it_learns_what_the_model_said_and_not_what_the_tool_said() -> None:
    """The mask by its effect: thirty steps on one exchange."""
    model = tiny_model(tiny_config())
    section = SftSection(optimizer=OptimizerSection(lr=3e-3))
    optimizer = Optimizer(model, section.optimizer, 30)
    trajectory = make_trajectory(TWO_TURNS)
    losses = [
        sft_step(model, optimizer, [from_trajectory(trajectory)], section)["loss"]
        for _ in range(30)
    ]
    assert losses[-1] < 0.05 * losses[0]
    logprob_TV = torch.log_softmax(logits_alone(model, trajectory.tokens), -1).detach()
    said = [float(logprob_TV[at - 1, token]) for at, token in enumerate(trajectory.tokens) if at]
    mask = trajectory.model_mask()[1:]
    model_said = [value for value, written in zip(said, mask, strict=True) if written]
    others_said = [value for value, written in zip(said, mask, strict=True) if not written]
    assert min(model_said) > -1.0
    assert sum(others_said) / len(others_said) < -3.0


@given(st.integers(1, 40), st.integers(1, 25), st.integers(0, 5), st.integers(0, 9))
def test_each_pass_has_every_sequence_once(
    count: int, batch_size: int, passes: int, seed: int
) -> None:
    """No remainder is dropped, and later passes are shuffled anew but known."""
    steps = -(-(passes + 1) * count // batch_size)
    order = [i for step in range(steps) for i in batch_indices(count, batch_size, step, seed)]
    assert len(order) == steps * batch_size
    for number in range(passes + 1):
        assert sorted(order[number * count : (number + 1) * count]) == list(range(count))


def test_the_order_is_a_pure_function_of_seed_and_step() -> None:
    assert batch_indices(50, 8, 7, 1) == batch_indices(50, 8, 7, 1)
    assert batch_indices(50, 8, 7, 1) != batch_indices(50, 8, 7, 2)
    first, second = (
        [i for s in range(5) for i in batch_indices(40, 8, s + at, 1)] for at in (0, 5)
    )
    assert sorted(first) == sorted(second) and first != second


# --- files ----------------------------------------------------------------------------------------

GOOD = [
    {"role": "system", "content": "Use code."},
    {"role": "user", "content": "6 * 7?"},
    {"role": "assistant", "content": "```python\nprint(6*7)\n```"},
    {"role": "tool", "content": "\nCode Execution Results:\n42\n"},
    {"role": "assistant", "content": "<<<42>>>"},
]


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_messages_become_transcripts(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "sft.jsonl", {"messages": GOOD}, {"messages": GOOD[1:3]})
    first, second = load_messages(path)
    assert [m["role"] for m in first.messages] == ["system", "user"]
    assert [kind for kind, _ in first.parts] == [MODEL, TOOL, MODEL]
    assert first.parts[1][1] == "\nCode Execution Results:\n42\n"
    assert len(second.parts) == 1
    assert first.item_id == f"{path}:1" and second.item_id == f"{path}:2"


BAD = {
    "no messages": ({}, "has no list `messages`"),
    "not a list": ({"messages": "hello"}, "has no list `messages`"),
    "no content": ({"messages": [{"role": "user"}]}, "message 1 has no text under `content`"),
    "content is parts": (
        {"messages": [GOOD[1], {"role": "assistant", "content": [{"type": "text"}]}]},
        "message 2 has no text under `content`",
    ),
    "unknown role": (
        {"messages": [GOOD[1], {"role": "function", "content": "x"}]},
        "message 2 has role `function`, which cannot stand there",
    ),
    "user later": (
        {"messages": [*GOOD[1:3], GOOD[1], GOOD[4]]},
        "message 3 has role `user`, which cannot stand there",
    ),
    "no question": ({"messages": [GOOD[4]]}, "message 1 has role `assistant`, which cannot"),
    "tool first": ({"messages": [GOOD[1], GOOD[3]]}, "message 2 has role `tool`, which cannot"),
    "ends with tool": ({"messages": GOOD[:4]}, "does not end with an assistant message"),
    "ends with user": ({"messages": GOOD[:2]}, "does not end with an assistant message"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_line_is_named(case: str, tmp_path: Path) -> None:
    record, said = BAD[case]
    path = write_lines(tmp_path / "sft.jsonl", {"messages": GOOD}, record)
    with pytest.raises(DataError) as caught:
        load_messages(path)
    assert f"`{path}` line 2" in caught.value.message and said in caught.value.message


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "sft.jsonl")
    with pytest.raises(DataError, match="holds no transcripts"):
        load_messages(path)
