"""Lessons for Reasoning-Gym: scripts made from the question alone, run and judged for real."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest

from r1ci_engine.config import ProtocolSection
from r1ci_engine.errors import DataError, SandboxError
from r1ci_engine.sandbox import Limits, Sandbox
from r1ci_engine.tasks.gym_teacher import GYM_LESSONS, LESSONS, Lesson
from r1ci_engine.tasks.protocol import extract_answer, find_script
from r1ci_engine.tasks.reasoning_gym import DATASETS, GymTask
from r1ci_engine.tasks.teacher import teach
from r1ci_engine.trajectory import Item, SegmentKind, Transcript

pytest.importorskip("reasoning_gym", reason="needs the extra `tasks`")

BRIEF = ProtocolSection(prompt="brief")
PER_TASK = 25


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=1) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [item for name in LESSONS for item in GymTask(DATASETS[name]).generate(PER_TASK, 3)]


def lessons_on(items: list[Item], code_share: float, sandbox: Sandbox) -> list[Transcript]:
    return teach(items, code_share, BRIEF, sandbox, lambda text: len(text) < 600, seed=4)


def test_every_script_prints_a_right_answer(items: list[Item], sandbox: Sandbox) -> None:
    transcripts = lessons_on(items, 1.0, sandbox)
    assert [t.item_id for t in transcripts] == [item.id for item in items]
    repaired = 0
    for transcript in transcripts:
        tools = [text for kind, text in transcript.parts if kind is SegmentKind.TOOL]
        scripts = [
            find_script(text) for kind, text in transcript.parts if kind is SegmentKind.MODEL
        ]
        assert len(tools) in (1, 2) and all(scripts[:-1]) and scripts[-1] is None
        answer = extract_answer(transcript.parts[-1][1])
        assert answer and answer in tools[-1], transcript
        if len(tools) == 2:
            repaired += 1
            assert "Error" in tools[0]
    assert 5 <= repaired < len(items) / 4
    assert lessons_on(items, 1.0, sandbox) == transcripts


def test_reasons_are_given_where_a_task_has_any(items: list[Item], sandbox: Sandbox) -> None:
    for item, transcript in zip(items, lessons_on(items, 0.0, sandbox), strict=True):
        in_text = GYM_LESSONS[item.task].reason is not None
        assert (len(transcript.parts) == 1) is in_text, item.task
        if in_text:
            text = transcript.parts[0][1]
            assert extract_answer(text) == item.answer
            assert text.count("\n") == 1


def test_a_lesson_is_made_from_the_question_alone(items: list[Item], sandbox: Sandbox) -> None:
    blind = [replace(item, answer="unknown", metadata={}) for item in items]
    for item, other in zip(items, blind, strict=True):
        lesson = GYM_LESSONS[item.task]
        facts = lesson.read(item)
        assert facts == lesson.read(other)
        assert all(value in item.prompt for value in facts.values())
        if lesson.reason is not None:
            reason = lesson.reason(facts)
            # A word is spelled out with hyphens between its letters.
            assert str(item.answer) in reason or str(item.answer) in reason.replace("-", "")
        if len(str(item.answer)) > 3 and item.task != "reasoning_gym/base_conversion":
            script = lesson.script(facts, random.Random(0))
            assert str(item.answer) not in script or str(item.answer) in item.prompt


def test_what_is_judged_wrong_is_left_out(sandbox: Sandbox) -> None:
    first, second = GymTask(DATASETS["gcd"]).generate(2, 3)
    wrong = replace(first, answer="-7")
    assert [t.item_id for t in lessons_on([wrong, second], 1.0, sandbox)] == [second.id]


def test_a_right_answer_in_other_words_is_kept(sandbox: Sandbox) -> None:
    (item,) = GymTask(DATASETS["number_sorting"]).generate(1, 3)
    spaced = replace(item, answer=str(item.answer).replace(",", " ,"))
    (transcript,) = lessons_on([spaced], 1.0, sandbox)
    assert extract_answer(transcript.parts[-1][1]) == item.answer


def test_a_question_worded_otherwise_is_named(sandbox: Sandbox) -> None:
    (item,) = GymTask(DATASETS["gcd"]).generate(1, 3)
    with pytest.raises(DataError, match=r"cannot read `reasoning_gym/gcd/.*`: `What is it"):
        lessons_on([replace(item, prompt="What is it?")], 1.0, sandbox)


def test_a_task_without_lessons_is_named(sandbox: Sandbox) -> None:
    (item,) = GymTask(DATASETS["count_primes"]).generate(1, 3)
    with pytest.raises(DataError, match="`reasoning_gym/count_primes` has no teacher"):
        lessons_on([item], 1.0, sandbox)


def test_a_script_cut_short_is_no_lesson(
    items: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Lesson, "script", lambda *_: "while True: pass")
    with (
        Sandbox(workers=1, limits=Limits(cpu_s=1.0, wall_s=0.1)) as hasty,
        pytest.raises(SandboxError, match="could not be run: `timeout`"),
    ):
        lessons_on(items[:1], 1.0, hasty)
