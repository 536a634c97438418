"""Greedy continuations with the cache are those of Hugging Face's own `generate`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from rollout_world import FakeSandbox, request
from tiny_models import tiny_folder

from r1ci_engine.config import ProtocolSection, RolloutSection
from r1ci_engine.model.folder import load_model
from r1ci_engine.model.template import CHATML, ChatTemplate
from r1ci_engine.model.tokenizer import TextTokenizer
from r1ci_engine.rollout.engine import RolloutEngine

NEW = 48


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
@pytest.mark.parametrize("tied", [False, True])
def test_greedy_is_transformers_greedy(family: str, tied: bool, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tiny_folder(tmp_path, family, seed=3, tied_head=tied)
    tokenizer = TextTokenizer.load(folder)
    engine = RolloutEngine(
        load_model(folder),
        tokenizer,
        ChatTemplate(CHATML, tokenizer),
        FakeSandbox(),  # pyright: ignore[reportArgumentType]
        RolloutSection(slots=3, max_new_tokens=NEW, context=400),
        ProtocolSection(),
    )
    generator = torch.Generator().manual_seed(5)
    prompts = [
        torch.randint(0, 250, (length,), generator=generator).tolist()
        for length in (1, 2, 17, 40, 230)
    ]
    trajectories = engine.generate(
        [
            request(prompt, f"i{n}", agent="text", temperature=0.0)
            for n, prompt in enumerate(prompts)
        ]
    )
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference.eval()
    lengths = set()
    for prompt, trajectory in zip(prompts, trajectories, strict=True):
        right = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=sorted(tokenizer.stop_ids),
            pad_token_id=0,
        )
        assert trajectory.tokens == right[0].tolist()
        lengths.add(trajectory.response_length)
    assert NEW in lengths, "no continuation was long enough to prove anything"
