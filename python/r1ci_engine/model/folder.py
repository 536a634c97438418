"""Hugging Face model folders, in and out.

Reads `config.json`, `generation_config.json` and weights in `model.safetensors` or in shards with
`model.safetensors.index.json`. Writes the same, so that `transformers` and other engines load the
result as it is.

Left out: pickled weights (`pytorch_model.bin`; loading one runs code), quantised weights,
downloads.

Invariant: a loaded decoder has every parameter from the files, in its shape, or there is an error
that names file and tensor. Nothing is filled in at random.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from r1ci_engine.errors import ModelError
from r1ci_engine.model.config import DTYPES, ModelConfig, as_id_tuple
from r1ci_engine.model.decoder import Decoder

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TIED_HEAD = "lm_head.weight"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)
"""What a tokenizer may consist of; `tokenizer.json` alone is needed here, the rest is copied."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; ModelError when the file is missing, broken or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"`{path}` does not exist", hint="point at a Hugging Face model folder"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(
            f"`{path}` cannot be read as JSON: {error}",
            hint="the file may be cut off; copy it again",
        ) from error
    if not isinstance(value, dict):
        raise ModelError(f"`{path}` holds a JSON {type(value).__name__}, not an object")
    return value


def load_config(folder: Path | str) -> ModelConfig:
    """Read the model's shape from `config.json`; stop ids of the generation config win."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(
            f"model folder `{folder}` does not exist", hint="point at a Hugging Face model folder"
        )
    raw = read_json(folder / "config.json")
    stop_ids = _generation_stop_ids(folder)
    if stop_ids:
        raw = {**raw, "eos_token_id": list(stop_ids)}
    return ModelConfig.from_hf(raw, source=str(folder / "config.json"))


def load_stop_ids(folder: Path | str) -> frozenset[int]:
    """Return the ids that end a turn: from `generation_config.json`, else from `config.json`."""
    folder = Path(folder)
    generation = _generation_stop_ids(folder)
    if generation:
        return frozenset(generation)
    return frozenset(as_id_tuple(read_json(folder / "config.json").get("eos_token_id")))


def _generation_stop_ids(folder: Path) -> tuple[int, ...]:
    path = folder / "generation_config.json"
    return as_id_tuple(read_json(path).get("eos_token_id")) if path.exists() else ()


def load_model(
    folder: Path | str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Decoder:
    """Load a decoder with its weights converted to `dtype` on `device`.

    Raises ModelError, naming file and tensor, when a file is missing or cut off, a tensor is
    missing, has another shape, or has no place in the architecture.
    """
    folder = Path(folder)
    config = load_config(folder)
    with torch.device("meta"):
        decoder = Decoder(config)
    expected = {name: parameter.shape for name, parameter in decoder.named_parameters()}
    state: dict[str, Tensor] = {}
    for path, name, tensor in _stored_tensors(folder):
        if name == TIED_HEAD and config.tied_head:
            continue
        if name.endswith("rotary_emb.inv_freq"):
            continue  # written by old versions; the tables come from the config
        if name not in expected:
            raise ModelError(
                f"`{path}` holds the tensor `{name}`, which a {config.family} decoder lacks",
                hint="the weights and config.json belong to different models",
            )
        if tensor.shape != expected[name]:
            raise ModelError(
                f"`{path}`: tensor `{name}` has shape {tuple(tensor.shape)}, "
                f"config.json asks for {tuple(expected[name])}",
                hint="the weights and config.json belong to different models",
            )
        if not tensor.dtype.is_floating_point or tensor.element_size() < 2:
            raise ModelError(
                f"`{path}`: tensor `{name}` is stored as {tensor.dtype}",
                hint=f"supported: {', '.join(DTYPES)}",
            )
        state[name] = tensor.to(device=device, dtype=dtype)
    missing = sorted(set(expected) - set(state))
    if missing:
        raise ModelError(
            f"`{folder}` lacks {len(missing)} of {len(expected)} tensors, first `{missing[0]}`",
            hint="a shard may be missing, or the weights belong to another model",
        )
    decoder.load_state_dict(state, assign=True)
    return decoder.to(device)


def _stored_tensors(folder: Path) -> Iterator[tuple[Path, str, Tensor]]:
    """Yield every tensor of the folder with the file it lies in."""
    for path, names in _weight_files(folder).items():
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                held = set(file.keys())
                for name in sorted(held if names is None else names):
                    if name not in held:
                        raise ModelError(
                            f"`{path}` lacks the tensor `{name}` that `{INDEX}` places in it"
                        )
                    yield path, name, file.get_tensor(name)
        except FileNotFoundError:
            raise ModelError(
                f"weight file `{path}` is missing", hint="copy all shards of the model"
            ) from None
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"`{path}` is not a whole safetensors file: {error}",
                hint="the file may be cut off; compare its size with the source and copy it again",
            ) from error


def _weight_files(folder: Path) -> dict[Path, list[str] | None]:
    """Return each weight file with the tensors to take from it (None: all)."""
    if (folder / WEIGHTS).exists():
        return {folder / WEIGHTS: None}
    if not (folder / INDEX).exists():
        other = next(iter([*folder.glob("*.bin"), *folder.glob("*.gguf")]), None)
        hint = "put the model's safetensors files there"
        if other is not None:
            hint = f"`{other.name}` is not read here; convert it to safetensors"
        raise ModelError(f"`{folder}` has neither `{WEIGHTS}` nor `{INDEX}`", hint=hint)
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"`{folder / INDEX}` has no `weight_map`")
    files: dict[Path, list[str] | None] = {}
    for name, file in weight_map.items():
        if Path(file).name != file:
            raise ModelError(f"`{folder / INDEX}` points outside the folder: `{file}`")
        names = files.setdefault(folder / file, [])
        assert names is not None
        names.append(name)
    return files


def save_model(
    decoder: Decoder,
    folder: Path | str,
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int = 5_000_000_000,
    tokenizer_files_from: Path | str | None = None,
) -> None:
    """Write a Hugging Face folder: config, generation config, weights, and tokenizer files.

    `dtype` converts the weights on the way out (None keeps them). A tied head is left out, as
    readers expect. `tokenizer_files_from` is the folder whose tokenizer files are copied. Files are
    written straight into `folder`; a caller that needs all or nothing gives a temporary folder and
    renames it. Raises OSError when the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    stored = dtype or decoder.head_weight.dtype
    tensors = {
        name: parameter.detach().to("cpu", stored).contiguous()
        for name, parameter in decoder.named_parameters()
    }
    _save_weights(tensors, folder, max_shard_bytes)
    raw = decoder.config.to_hf()
    raw["dtype"] = raw["torch_dtype"] = str(stored).removeprefix("torch.")
    generation = {k: raw[k] for k in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(
        folder / "generation_config.json", {k: v for k, v in generation.items() if v is not None}
    )
    if tokenizer_files_from is not None:
        copy_tokenizer(Path(tokenizer_files_from), folder)
    # Last, so that a folder with a config is a whole folder.
    _write_json(folder / "config.json", raw)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy tokenizer and chat template files as they are."""
    for name in TOKENIZER_FILES:
        if (source / name).exists() and source.resolve() != folder.resolve():
            shutil.copyfile(source / name, folder / name)


def _save_weights(tensors: dict[str, Tensor], folder: Path, max_shard_bytes: int) -> None:
    for stale in [*folder.glob("model*.safetensors"), folder / INDEX]:
        stale.unlink(missing_ok=True)
    shards = list(_shards(tensors, max_shard_bytes))
    if len(shards) == 1:
        _save_file(tensors, folder / WEIGHTS)
        return
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _save_file({name: tensors[name] for name in names}, folder / file)
        weight_map |= dict.fromkeys(names, file)
    total = sum(_bytes(tensor) for tensor in tensors.values())
    _write_json(
        folder / INDEX,
        {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))},
    )


def _save_file(tensors: dict[str, Tensor], path: Path) -> None:
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata={"format": "pt"})
    # safetensors leaves its files to their owner alone; a model is as readable as other files.
    path.chmod(mode)


def _shards(tensors: dict[str, Tensor], max_shard_bytes: int) -> Iterable[list[str]]:
    """Split names, in order, into runs of at most `max_shard_bytes`; a larger one goes alone."""
    names: list[str] = []
    size = 0
    for name, tensor in tensors.items():
        if names and size + _bytes(tensor) > max_shard_bytes:
            yield names
            names, size = [], 0
        names.append(name)
        size += _bytes(tensor)
    yield names


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
