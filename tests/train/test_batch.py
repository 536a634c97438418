"""From who wrote a token to what is trained, and packing that neither loses nor mixes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import BOS, END_OF_TEXT, TURN_END, control_id, tiny_config, tiny_folder, tiny_model
from train_world import MODEL, PROMPT, TOOL, TWO_TURNS, logits_alone, make_trajectory

from r1ci_engine.errors import DataError
from r1ci_engine.model.template import ChatTemplate
from r1ci_engine.model.tokenizer import TextTokenizer
from r1ci_engine.train.batch import (
    TrainSequence,
    encode_transcript,
    from_trajectory,
    micro_batches,
)
from r1ci_engine.train.policy import target_logprobs
from r1ci_engine.trajectory import SegmentKind, Transcript

TEMPLATE_WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}{{ bos_token if loop.first }}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONVERSATION = Transcript(
    messages=({"role": "user", "content": "print the <|im_end|>"},),
    parts=((MODEL, "```print"), (TOOL, "\nResults:\n<|im_end|>7\n"), (MODEL, "<<<7>>>")),
    item_id="seven",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    return TextTokenizer.load(tiny_folder(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def template(tokenizer: TextTokenizer) -> ChatTemplate:
    return ChatTemplate(TEMPLATE_WITH_BOS, tokenizer, {"bos_token": BOS})


def words(sequence: TrainSequence, tokenizer: TextTokenizer, trained: bool) -> str:
    return tokenizer.decode(sequence.tokens[sequence.trained == trained].tolist())


def test_only_the_models_words_and_its_stop_token_are_trained(
    tokenizer: TextTokenizer, template: ChatTemplate
) -> None:
    """Tool output is not, the token that ends the turn is."""
    sequence = encode_transcript(CONVERSATION, tokenizer, template)
    assert words(sequence, tokenizer, True) == f"```print<<<7>>>{TURN_END}"
    assert words(sequence, tokenizer, False).endswith("assistant\n\nResults:\n<|im_end|>7\n")
    assert sequence.tokens[-1] == tokenizer.end_id == control_id(TURN_END)
    # Spelled by the tool, the same control token is plain text.
    controls = (sequence.tokens == control_id(TURN_END)).sum()
    prompt = template.prompt_tokens(list(CONVERSATION.messages))
    assert controls == prompt.count(control_id(TURN_END)) + 1


def test_a_built_prompt_has_one_bos(tokenizer: TextTokenizer, template: ChatTemplate) -> None:
    """Even where the template writes two."""
    sequence = encode_transcript(CONVERSATION, tokenizer, template)
    assert (sequence.tokens == control_id(BOS)).sum() == 1


def test_parts_become_the_tokens_a_rollout_would_have_seen(
    tokenizer: TextTokenizer, template: ChatTemplate
) -> None:
    """Borders between parts are borders between tokens, although the text would merge there."""
    parts = ((MODEL, "prin"), (TOOL, "t"), (MODEL, " the"))
    sequence = encode_transcript(Transcript((), parts), tokenizer, template)
    pieces = [token for _, text in parts for token in tokenizer.encode_text(text)]
    assert sequence.tokens.tolist() == [*pieces, tokenizer.end_id]
    assert len(tokenizer.encode_text("print the")) < len(pieces)


def test_a_document_is_trained_from_its_second_token(
    tokenizer: TextTokenizer, template: ChatTemplate
) -> None:
    """Nothing predicts the first."""
    document = Transcript((), ((MODEL, "the print"),))
    sequence = encode_transcript(document, tokenizer, template)
    assert sequence.trained.tolist() == [False] + [True] * (len(sequence.tokens) - 1)
    question = Transcript((), ((PROMPT, "Q"), (MODEL, "A")))
    assert encode_transcript(question, tokenizer, template).trained.tolist() == [False, True, True]


def test_a_transcript_must_end_with_the_model(
    tokenizer: TextTokenizer, template: ChatTemplate
) -> None:
    unanswered = replace(CONVERSATION, parts=CONVERSATION.parts[:2])
    with pytest.raises(DataError, match="`seven` does not end with the model's words"):
        encode_transcript(unanswered, tokenizer, template)


def test_the_mask_comes_from_the_writer_not_from_the_id() -> None:
    """Stop ids that double as padding, everywhere, change nothing."""
    trajectory = make_trajectory(TWO_TURNS)
    expected = from_trajectory(trajectory).trained.tolist()
    trajectory.tokens = [control_id(END_OF_TEXT)] * len(trajectory.tokens)
    assert from_trajectory(trajectory).trained.tolist() == expected
    assert expected == [False] * 5 + [True] * 4 + [False] * 6 + [True] * 3


def test_sampled_ids_are_never_tokenised_again(tokenizer: TextTokenizer) -> None:
    """Ids that decode to text with a shorter encoding stay as sampled."""
    apart = [*tokenizer.encode_text("prin"), *tokenizer.encode_text("t")]
    assert tokenizer.encode_text(tokenizer.decode(apart)) != apart
    trajectory = make_trajectory(((PROMPT, 2), (MODEL, len(apart))))
    trajectory.tokens[2:] = apart
    assert from_trajectory(trajectory).tokens[2:].tolist() == apart


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None])
def test_a_missing_logprob_is_refused(value: Any) -> None:
    """Where the model wrote; elsewhere it means nothing."""
    trajectory = make_trajectory(TWO_TURNS)
    trajectory.logprobs[6] = value
    with pytest.raises(DataError, match="lacks the log-probability"):
        from_trajectory(trajectory)
    harmless = make_trajectory(TWO_TURNS)
    harmless.logprobs[0] = harmless.logprobs[10] = value
    assert np.isfinite(from_trajectory(harmless).old_logprob).all()


def test_rows_and_targets_of_tools_and_prompts_never_reach_the_head() -> None:
    """As many rows as the model wrote tokens, each the one before its token."""
    trajectory = make_trajectory(TWO_TURNS)
    (batch,) = micro_batches([from_trajectory(trajectory)], 100)
    assert batch.rows_N.tolist() == [4, 5, 6, 7, 14, 15, 16]
    assert batch.target_N.tolist() == [trajectory.tokens[r + 1] for r in batch.rows_N]


def test_empty_answers_and_answers_ending_in_tool_output() -> None:
    """No index -1; an empty answer is left out, a tool's last word is not trained."""
    empty = make_trajectory(((PROMPT, 5),))
    unfinished = make_trajectory(((PROMPT, 3), (MODEL, 2), (TOOL, 4)))
    unfinished.advantage = 0.5
    assert micro_batches([from_trajectory(empty)], 100) == []
    (batch,) = micro_batches([from_trajectory(empty), from_trajectory(unfinished)], 100)
    assert len(batch.tokens_T) == 9
    assert batch.target_N.tolist() == unfinished.tokens[3:5]
    assert batch.sequence_N.tolist() == [1, 1]
    assert batch.advantage_N.tolist() == [0.5, 0.5]
    assert batch.length_N.tolist() == [2.0, 2.0]


def test_a_model_that_starts_from_nothing_loses_its_first_token() -> None:
    assert from_trajectory(make_trajectory(((MODEL, 3),))).trained.tolist() == [False, True, True]


def test_a_sequence_above_the_cap_is_named() -> None:
    sequences = [from_trajectory(make_trajectory(item="short"))]
    sequences.append(from_trajectory(make_trajectory(((PROMPT, 40), (MODEL, 9)), item="long")))
    with pytest.raises(DataError, match="`long` has `49` tokens, more than the `48`") as raised:
        micro_batches(sequences, 48)
    assert raised.value.hint == "raise micro_tokens or lower rollout.context"


def test_a_sequence_beyond_the_models_context_is_refused() -> None:
    model = tiny_model(tiny_config(context=16))
    (batch,) = micro_batches([from_trajectory(make_trajectory(TWO_TURNS))], 100)
    with pytest.raises(DataError, match="`18` tokens does not fit the model's context of `16`"):
        target_logprobs(model, batch)


kinds = st.sampled_from([PROMPT, MODEL, TOOL])
some_parts = st.lists(st.tuples(kinds, st.integers(0, 9)), min_size=1, max_size=5)


@given(st.lists(some_parts, max_size=12), st.integers(45, 70))
@settings(max_examples=60, deadline=None)
def test_every_trained_token_is_packed_once(
    shapes: list[list[tuple[SegmentKind, int]]], cap: int
) -> None:
    """Whatever the sizes, nothing is dropped at the end and nothing comes twice."""
    sequences = [
        from_trajectory(make_trajectory(parts, sample=index))
        for index, parts in enumerate(shapes)
        if sum(length for _, length in parts)
    ]
    found: dict[int, list[int]] = {}
    for batch in micro_batches(sequences, cap):
        assert len(batch.tokens_T) <= cap
        assert batch.cu_seqlens[-1] == len(batch.tokens_T) == len(batch.positions_T)
        for index, target in zip(batch.sequence_N.tolist(), batch.target_N.tolist(), strict=True):
            found.setdefault(index, []).append(target)
    expected = {i: s.tokens[s.trained].tolist() for i, s in enumerate(sequences) if s.targets}
    assert found == expected


def test_packed_sequences_do_not_see_each_other() -> None:
    """Packed equals alone, and a changed neighbour changes nothing."""
    model = tiny_model(tiny_config())
    shapes = [((PROMPT, 3 + i), (MODEL, 9 - i), (TOOL, 2), (MODEL, 4)) for i in range(4)]
    trajectories = [make_trajectory(shape, sample=i) for i, shape in enumerate(shapes)]

    def packed() -> dict[int, torch.Tensor]:
        batches = micro_batches([from_trajectory(t) for t in trajectories], 1000)
        assert len(batches) == 1
        logprob_N, _ = target_logprobs(model, batches[0])
        return {i: logprob_N.detach()[batches[0].sequence_N == i] for i in range(4)}

    together = packed()
    for index, trajectory in enumerate(trajectories):
        logprob_TV = torch.log_softmax(logits_alone(model, trajectory.tokens), -1)
        at = [n for n, written in enumerate(trajectory.model_mask()) if written]
        alone_N = torch.stack([logprob_TV[n - 1, trajectory.tokens[n]] for n in at])
        torch.testing.assert_close(together[index], alone_N, rtol=0, atol=2e-5)
    trajectories[1].tokens = [(token + 1) % 200 for token in trajectories[1].tokens]
    changed = packed()
    assert not torch.equal(changed[1], together[1])
    for index in (0, 2, 3):
        assert torch.equal(changed[index], together[index])
