"""Transcripts against the rollout: the same words must be the same tokens with the same mask.

The rollout's turn machine is given the model's words of a transcript and the real results; what it
builds is what reinforcement will see, so supervision must have taught exactly that.
"""

from typing import Literal

import numpy as np
import pytest
from rollout_world import request, result
from tiny_models import TURN_END, control_id, tiny_folder

from r1ci_engine.config import ProtocolSection
from r1ci_engine.model.template import CHATML, ChatTemplate
from r1ci_engine.model.tokenizer import TextTokenizer
from r1ci_engine.rollout.turns import Next, TurnLoop
from r1ci_engine.tasks.corpus import fenced
from r1ci_engine.tasks.protocol import result_text
from r1ci_engine.train.batch import encode_transcript, from_trajectory
from r1ci_engine.trajectory import SegmentKind, Transcript

MODEL, TOOL = SegmentKind.MODEL, SegmentKind.TOOL
QUESTION = {"role": "user", "content": f"print the {TURN_END}"}
RESULTS = [result(f"the {TURN_END}\n"), result(""), result("7\n")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(tiny_folder(tmp_path_factory.mktemp("model"), layers=1))


@pytest.mark.parametrize("feedback", ["inline", "turn"])
@pytest.mark.parametrize("calls", [0, 1, 3])
def test_a_lesson_is_what_the_rollout_would_have_built(
    tokenizer: TextTokenizer, feedback: Literal["inline", "turn"], calls: int
) -> None:
    """For both ways in which results come back."""
    template = ChatTemplate(CHATML, tokenizer)
    turns = TurnLoop(
        request(template.prompt_tokens([QUESTION])),
        tokenizer,
        template,
        ProtocolSection(feedback=feedback),
        max_new_tokens=400,
        context=1000,
    )

    def say(text: str) -> Next:
        parts.append((MODEL, text))
        *before, last = (turns.feed(token, -1.0) for token in tokenizer.encode_text(text))
        assert set(before) <= {Next.SAMPLE}
        return last

    parts: list[tuple[SegmentKind, str]] = []
    for number, printed in enumerate(RESULTS[:calls]):
        assert say(f"prin\n{fenced(f'print({number})')}") is Next.EXECUTE
        assert turns.deliver(printed) is Next.SAMPLE
        parts.append((TOOL, result_text(printed, lambda text: True)))
    assert say("t is <<<7>>>") is Next.SAMPLE
    assert turns.feed(control_id(TURN_END), -1.0) is Next.STOP
    sampled = from_trajectory(turns.trajectory())

    lesson = encode_transcript(
        Transcript((QUESTION,), tuple(parts)), tokenizer, template, feedback=feedback
    )
    np.testing.assert_array_equal(lesson.tokens, sampled.tokens)
    np.testing.assert_array_equal(lesson.trained, sampled.trained)
