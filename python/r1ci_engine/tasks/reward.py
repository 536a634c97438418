"""The three-part reward (paper, section 3.3): right answer, kept format, few turns.

Rule based and separate by term, so that a log shows which one moved. Whether the answer is right
was decided before (`checks.py`); a trajectory spoilt by the sandbox never comes here.
"""

from collections.abc import Sequence

from r1ci_engine.config import ProtocolSection
from r1ci_engine.tasks.protocol import format_kept
from r1ci_engine.trajectory import RewardParts


def score(
    turn_texts: Sequence[str], correct: bool, turns: int, section: ProtocolSection
) -> RewardParts:
    """Reward of one trajectory from the model's own text per turn.

    Correctness: `reward_correct` or 0. Format: plus or minus `reward_format`, by all turns
    together. Efficiency: minus `penalty_turns` if `turns` exceeds `efficient_turns`, else 0.
    With the paper's values the total lies between -0.2 and 1.1.
    """
    return RewardParts(
        correct=section.reward_correct if correct else 0.0,
        format=section.reward_format if format_kept(turn_texts) else -section.reward_format,
        efficiency=-section.penalty_turns if turns > section.efficient_turns else 0.0,
    )
