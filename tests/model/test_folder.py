"""Model folders: both spellings, shards, stop ids, and every way a folder can be wrong."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import END_OF_TEXT, TURN_END, control_id, tiny_config, tiny_folder, tiny_model

from r1ci_engine.errors import ModelError
from r1ci_engine.model.config import ARCHITECTURES, ModelConfig, RopeConfig
from r1ci_engine.model.folder import load_config, load_model, load_stop_ids, save_model


def edit_json(path: Path, **changes: Any) -> None:
    """Replace keys of a JSON file; None removes a key."""
    value = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert caught.value.hint is None or not caught.value.hint.endswith(".")
    return str(caught.value)


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_config_round_trip(family: str) -> None:
    yarn = RopeConfig(theta=1e6, kind="yarn", factor=4.0, original_context=128, truncate=False)
    for rope in (RopeConfig(theta=5e5), RopeConfig(kind="linear", factor=2.0), yarn):
        config = tiny_config(family, rope=rope)
        assert ModelConfig.from_hf(config.to_hf()) == config


def test_old_and_new_spellings_are_the_same_config() -> None:
    base = tiny_config("llama").to_hf()
    neither = ("rope_theta", "rope_scaling", "rope_parameters", "dtype", "torch_dtype")
    base = {key: value for key, value in base.items() if key not in neither}
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    old = base | {
        "rope_theta": 500000.0,
        "rope_scaling": scaling | {"type": "llama3"},
        "torch_dtype": "bfloat16",
    }
    new = base | {
        "rope_parameters": scaling | {"rope_type": "llama3", "rope_theta": 500000.0},
        "dtype": "bfloat16",
    }
    config = ModelConfig.from_hf(old)
    assert config == ModelConfig.from_hf(new)
    assert (config.rope.kind, config.rope.theta, config.dtype) == ("llama3", 5e5, "bfloat16")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model_type": "gemma3", "architectures": ["Gemma3ForCausalLM"]}, "Gemma3ForCausalLM"),
        ({"model_type": "qwen2_moe", "architectures": None}, "qwen2_moe"),
        ({"model_type": ["llama"]}, "`model_type` of the model is `['llama']`, no str"),
        ({"model_type": None, "architectures": "Llama"}, "`'Llama'`, no list"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "mscale": 1.0}}, "mscale"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor"),
        ({"hidden_size": None}, "hidden_size"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"num_key_value_heads": 3}, "`3`"),
        ({"dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
    ],
)
def test_config_that_cannot_be_computed_is_refused(
    changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    tiny_folder(tmp_path, "llama")
    edit_json(tmp_path / "config.json", **changes)
    assert named in refusal(tmp_path)


def test_unsupported_architecture_lists_what_is_supported(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    edit_json(tmp_path / "config.json", model_type="mamba", architectures=["MambaForCausalLM"])
    message = refusal(tmp_path)
    assert "unsupported model architecture `MambaForCausalLM`" in message
    assert all(name in message for name in ARCHITECTURES.values())


@pytest.mark.parametrize("architectures", [["Qwen2ForCausalLM"], [], None])
def test_an_unsupported_model_type_is_blamed_by_its_own_key(
    architectures: list[str] | None, tmp_path: Path
) -> None:
    tiny_folder(tmp_path)
    edit_json(tmp_path / "config.json", model_type="mamba", architectures=architectures)
    assert "unsupported model architecture `mamba` (`model_type`)\n" in refusal(tmp_path)


def test_stop_ids_of_the_generation_config_win(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    both = frozenset({control_id(TURN_END), control_id(END_OF_TEXT)})
    assert load_stop_ids(tmp_path) == both
    edit_json(tmp_path / "config.json", eos_token_id=7)
    assert load_stop_ids(tmp_path) == both
    assert frozenset(load_config(tmp_path).eos_ids) == both
    edit_json(tmp_path / "generation_config.json", eos_token_id=5)
    assert load_stop_ids(tmp_path) == {5}
    (tmp_path / "generation_config.json").unlink()
    assert load_stop_ids(tmp_path) == {7}


@pytest.mark.parametrize("tied", [False, True])
def test_save_in_shards_and_load_again(tied: bool, tmp_path: Path) -> None:
    decoder = tiny_model(tiny_config("qwen3", tied_head=tied))
    save_model(decoder, tmp_path, max_shard_bytes=50_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    parameters = dict(decoder.named_parameters())
    assert index["metadata"]["total_size"] == sum(4 * p.numel() for p in parameters.values())
    assert set(index["weight_map"]) == set(parameters)
    assert ("lm_head.weight" in index["weight_map"]) is not tied
    loaded = dict(load_model(tmp_path).named_parameters())
    assert all(torch.equal(parameters[name], loaded[name]) for name in parameters)


def test_saving_again_leaves_no_stale_shard(tmp_path: Path) -> None:
    decoder = tiny_model(tiny_config())
    save_model(decoder, tmp_path, max_shard_bytes=50_000)
    save_model(decoder, tmp_path)
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    load_model(tmp_path)


def test_sixteen_bits_on_disk(tmp_path: Path) -> None:
    decoder = tiny_model(tiny_config())
    save_model(decoder, tmp_path, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    stored = load_file(tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    loaded = load_model(tmp_path, dtype=torch.float32)
    torch.testing.assert_close(loaded.head_weight, decoder.head_weight, rtol=8e-3, atol=0)


def test_tokenizer_files_are_copied(tmp_path: Path) -> None:
    source = tiny_folder(tmp_path / "source")
    (source / "chat_template.jinja").write_text("x")
    save_model(tiny_model(tiny_config()), tmp_path / "out", tokenizer_files_from=source)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()


def test_missing_folder_and_files_are_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "nowhere")
    tiny_folder(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert "neither `model.safetensors` nor" in refusal(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert "pytorch_model.bin" in refusal(tmp_path)
    (tmp_path / "config.json").unlink()
    assert "config.json" in refusal(tmp_path)


def test_missing_shard_is_named(tmp_path: Path) -> None:
    save_model(tiny_model(tiny_config()), tmp_path, max_shard_bytes=50_000)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert shard.name in refusal(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 400, 100_000])
def test_truncated_weights_are_refused(keep: int, tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    message = refusal(tmp_path)
    assert "model.safetensors" in message and "cut off" in message


def test_corrupt_json_is_refused(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text()[:40])
    assert "cannot be read as JSON" in refusal(tmp_path)
    path.write_text("[]")
    assert "not an object" in refusal(tmp_path)


def test_wrong_tensors_are_named(tmp_path: Path) -> None:
    tiny_folder(tmp_path)
    path = tmp_path / "model.safetensors"
    whole = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"

    def rewrite(**changes: torch.Tensor | None) -> None:
        tensors = whole | changes
        save_file({k: v for k, v in tensors.items() if v is not None}, path)

    rewrite(**{name: None})
    assert f"lacks 1 of {len(whole)} tensors, first `{name}`" in refusal(tmp_path)
    rewrite(**{name: torch.zeros(3, 4)})
    assert name in refusal(tmp_path) and "(3, 4)" in refusal(tmp_path)
    rewrite(**{"model.layers.9.mlp.up_proj.weight": torch.zeros(3, 4)})
    assert "model.layers.9.mlp.up_proj.weight" in refusal(tmp_path)
    rewrite(**{name: torch.zeros(whole[name].shape, dtype=torch.int8)})
    assert "int8" in refusal(tmp_path)


def test_index_may_not_point_outside_the_folder(tmp_path: Path) -> None:
    save_model(tiny_model(tiny_config()), tmp_path, max_shard_bytes=50_000)
    path = tmp_path / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"]["model.norm.weight"] = "../elsewhere.safetensors"
    path.write_text(json.dumps(index))
    assert "../elsewhere.safetensors" in refusal(tmp_path)
