"""Tiny model folders for tests: real files, random weights, no download.

`tokenizer_json()` is byte-level BPE with a handful of merges, two control tokens and one BOS, so
that text round-trips, merges across token borders exist, and control spellings can be smuggled.
"""

import json
from pathlib import Path
from typing import Any

import torch

from r1ci_engine.model.config import ModelConfig, RopeConfig
from r1ci_engine.model.decoder import Decoder, init_model
from r1ci_engine.model.folder import save_model
from r1ci_engine.model.tokenizer import BYTE_OF

MERGES = ["p r", "i n", "pr in", "prin t", "Ġ t", "h e", "Ġt he", "` `", "`` `", "< |", "| >"]
BOS, END_OF_TEXT, TURN_START, TURN_END = "<|bos|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"
VOCAB_SIZE = 288
"""Rows of the tiny models' head; the tokenizer uses fewer, as published models do."""


def tokenizer_json() -> dict[str, Any]:
    """A `tokenizer.json` as published byte-level models write it (Qwen2's shape, in small)."""
    vocabulary = {character: index for index, character in enumerate(BYTE_OF)}
    for merge in MERGES:
        vocabulary[merge.replace(" ", "")] = len(vocabulary)
    controls = [
        {
            "id": len(vocabulary) + index,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": content != "<tool_call>",
        }
        for index, content in enumerate((BOS, END_OF_TEXT, TURN_START, TURN_END, "<tool_call>"))
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": False,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": controls,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [merge.split(" ") for merge in MERGES],
        },
    }


def control_id(content: str) -> int:
    """The id of a control token of the tiny tokenizer."""
    return next(t["id"] for t in tokenizer_json()["added_tokens"] if t["content"] == content)


def tiny_config(family: str = "qwen2", **changes: Any) -> ModelConfig:
    """Two layers, width 64, four query heads on two key heads; `changes` replace fields."""
    fields: dict[str, Any] = {
        "family": family,
        "vocab_size": VOCAB_SIZE,
        "hidden": 64,
        "intermediate": 96,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 24 if family == "qwen3" else 16,
        "context": 512,
        "rope": RopeConfig(theta=10_000.0),
        "tied_head": False,
        "qkv_bias": family == "qwen2",
        "bos_id": control_id(BOS),
        "eos_ids": (control_id(TURN_END), control_id(END_OF_TEXT)),
        "pad_id": control_id(END_OF_TEXT),
    }
    return ModelConfig(**(fields | changes))


def tiny_model(config: ModelConfig, seed: int = 0) -> Decoder:
    """Random weights large enough that every part of the model shows in the logits."""
    decoder = init_model(config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter += 0.3 * noise
            else:
                parameter.copy_(0.15 * noise)
    return decoder


def write_tokenizer(folder: Path, chat_template: str | None = None) -> None:
    """Write `tokenizer.json`, `tokenizer_config.json` and, if given, `chat_template.jinja`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json()), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if chat_template is not None:
        (folder / "chat_template.jinja").write_text(chat_template, encoding="utf-8")


def tiny_folder(folder: Path, family: str = "qwen2", seed: int = 0, **changes: Any) -> Path:
    """Write a whole model folder (weights, config, tokenizer) and return it."""
    write_tokenizer(folder)
    save_model(tiny_model(tiny_config(family, **changes), seed), folder)
    return folder
