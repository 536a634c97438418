"""The examples run as they stand and do what they say."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_grpo_in_a_plain_loop_learns() -> None:
    train = runpy.run_path(str(EXAMPLES / "grpo_in_a_plain_loop.py"))["train"]
    rewards = train(steps=90)
    assert max(rewards[:10]) < 0.3 < 0.9 < min(rewards[-5:])
