"""Model text: harmless to look at, and cut by its true writer."""

import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report.synthetic import encode, items, tokenizer, trajectory
from tokenizers import Tokenizer

from r1ci_engine.errors import DataError
from r1ci_engine.report.text import one_line, shorten, visible
from r1ci_engine.report.writers import Writers
from r1ci_engine.trajectory import Segment, SegmentKind, StopReason, Trajectory

PROMPT = SegmentKind.PROMPT
TOOL = SegmentKind.TOOL
MODEL = SegmentKind.MODEL


@given(st.text(st.characters(codec=None)))
def test_nothing_that_controls_a_terminal_is_left(text: str):
    shown = visible(text)
    for character in shown:
        assert (
            character in "\n\t"
            or unicodedata.category(character)[0] != "C"
            or (unicodedata.category(character) in {"Co", "Cn"})
        )
    shown.encode()  # lone surrogates are spelt out too


def test_escapes_are_shown_and_ordinary_text_is_not_touched():
    assert visible("a\x1b[2Jb\rc\u202ed\x9be\x00") == r"a\x1b[2Jb\rc\u202ed\x9be\x00"
    assert visible("Grüße, 世界!\n\tπ ≈ 3") == "Grüße, 世界!\n\tπ ≈ 3"


@given(st.text(max_size=200), st.integers(1, 60))
def test_shortening_keeps_both_ends_and_states_the_cut(text: str, limit: int):
    short = shorten(text, limit)
    if len(text) <= limit:
        assert short == text
    else:
        assert f"{len(text) - limit} characters not shown" in short
        assert short[0] == text[0] or limit == 1
        assert short.endswith(text[-(limit - limit * 2 // 3) :])
    assert len(one_line(text, limit)) <= max(limit, 1)


def made_of(parts: list[tuple[SegmentKind, str]]) -> Trajectory:
    tokens: list[int] = []
    segments: list[Segment] = []
    for kind, text in parts:
        start = len(tokens)
        tokens += encode(text)
        segments.append(Segment(kind, start, len(tokens)))
    return Trajectory(
        task="t", item_id="i", sample_index=0, agent="code", tokens=tokens, logprobs=[],
        segments=segments, text="".join(text for _, text in parts), prompt="Q",
        stop_reason=StopReason.END, turns=1, policy_version=0,
    )  # fmt: skip


@pytest.fixture
def writers(tmp_path: Path) -> Writers:
    (tmp_path / "model").mkdir()
    tokenizer().save(str(tmp_path / "model" / "tokenizer.json"))
    return Writers.of(tmp_path)


def test_a_result_that_the_model_wrote_itself_stays_the_model_s(writers: Writers):
    result = "\nCode Execution Results:\n1\n"
    forged = f"```python\nprint(1)\n```{result}"
    parts = [(PROMPT, "Q: é?\n"), (MODEL, forged), (TOOL, result), (MODEL, result + "<<<1>>>")]
    made = made_of(parts)
    assert writers.known
    assert writers.prompt(made) == "Q: é?\n"
    assert writers.response(made) == parts[1:]


def test_special_tokens_are_shown(tmp_path: Path):
    special = Tokenizer.from_str(tokenizer().to_str())
    special.add_special_tokens(["<|im_end|>"])
    (tmp_path / "model").mkdir()
    special.save(str(tmp_path / "model" / "tokenizer.json"))
    made = made_of([(PROMPT, "Q"), (MODEL, "A")])
    made.tokens.append(special.token_to_id("<|im_end|>"))
    made.segments[-1] = Segment(MODEL, 1, 3)
    assert Writers.of(tmp_path).response(made) == [(MODEL, "A<|im_end|>")]


def test_without_a_tokenizer_nobody_is_named(tmp_path: Path):
    writers = Writers.of(tmp_path)
    made = made_of([(PROMPT, "Q"), (MODEL, "A")])
    assert not writers.known
    assert writers.prompt(made) == "Q"
    assert writers.response(made) == [(None, "QA")]


def test_the_newest_checkpoint_stands_in_and_damage_is_named(tmp_path: Path):
    for name in ("2-eval_sft-000000", "4-grpo-000025"):
        (tmp_path / "checkpoints" / name / "model").mkdir(parents=True)
    old, new = sorted(tmp_path.glob("checkpoints/*/model"))
    (old / "tokenizer.json").write_text("{")
    with pytest.raises(DataError, match="2-eval_sft"):
        Writers.of(tmp_path)
    tokenizer().save(str(new / "tokenizer.json"))
    assert Writers.of(tmp_path).known


def test_synthetic_trajectories_are_cut_without_loss(writers: Writers):
    rng = random.Random(3)
    item = items("train", 1)[0]
    for sample in range(60):
        made = trajectory(item, sample, 0.5, rng)
        cut = writers.response(made)
        assert writers.prompt(made) + "".join(piece for _, piece in cut) == made.text
        tool = [piece for kind, piece in cut if kind is TOOL]
        assert tool == [execution.shown for execution in made.executions]
