"""The three reward terms, each alone."""

import pytest

from r1ci_engine.config import ProtocolSection
from r1ci_engine.tasks.reward import score

GOOD, BAD = ["<<<1>>>"], ["1"]


@pytest.mark.parametrize(
    ("turn_texts", "correct", "turns", "total"),
    [
        (GOOD, True, 1, 1.1),
        (GOOD, True, 6, 1.1),
        (GOOD, True, 7, 1.0),
        (GOOD, False, 1, 0.1),
        (BAD, True, 1, 0.9),
        (BAD, False, 1, -0.1),
        (BAD, False, 7, -0.2),
    ],
)
def test_paper_values(turn_texts: list[str], correct: bool, turns: int, total: float) -> None:
    assert score(turn_texts, correct, turns, ProtocolSection()).total == pytest.approx(total)


def test_terms_are_separate_and_configurable() -> None:
    section = ProtocolSection(
        reward_correct=2.0, reward_format=0.5, penalty_turns=0.25, efficient_turns=1
    )
    parts = score(GOOD, True, 2, section)
    assert (parts.correct, parts.format, parts.efficiency) == (2.0, 0.5, -0.25)
