"""Checkpoints that are either whole or not there.

A checkpoint is a folder: `model/` (a Hugging Face folder, usable by itself), `optimizer.pt` and
`state.json`, which is written last and lists the size of every other file. It is made under a
temporary name, flushed to the disk and renamed; only then is the pointer `latest` moved. Whatever
happens in between, the previous checkpoint loads.

Left out: several processes. Names sort in the order they were written.
"""

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from r1ci_engine.errors import CheckpointError, R1ciError
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.folder import save_model
from r1ci_engine.train.optimizer import Optimizer

FORMAT = 1
KEPT = 2
"""Checkpoints kept beside those asked to stay."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found whole."""

    folder: Path
    state: dict[str, Any]
    """What the run stored: phase, step, curriculum, ..."""

    @property
    def model(self) -> Path:
        """Its Hugging Face folder."""
        return self.folder / "model"

    def optimizer_state(self) -> dict[str, Any] | None:
        """State for `Optimizer.load_state_dict`, None if none was saved."""
        path = self.folder / "optimizer.pt"
        return torch.load(path, weights_only=True) if path.exists() else None


def save_checkpoint(
    root: Path,
    name: str,
    model: Decoder,
    optimizer: Optimizer | None,
    state: dict[str, Any],
    *,
    tokenizer_files_from: Path,
    keep: bool = False,
) -> Path:
    """Write checkpoint `name` under `root` and make it the latest; returns its folder.

    With `keep` it is never pruned. Raises CheckpointError if it cannot be written (a full disk,
    for one); the previous checkpoint is then untouched and nothing half-written is left.
    """
    root.mkdir(parents=True, exist_ok=True)
    temporary, final = root / f".{name}.tmp", root / name
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        save_model(model, temporary / "model", tokenizer_files_from=tokenizer_files_from)
        if optimizer is not None:
            torch.save(optimizer.state_dict(), temporary / "optimizer.pt")
        files = {str(p.relative_to(temporary)): p.stat().st_size for p in _files(temporary)}
        record = {"format": FORMAT, "keep": keep, "files": files, "state": state}
        (temporary / "state.json").write_text(json.dumps(record), encoding="utf-8")
        for path in (*_files(temporary), temporary / "model", temporary):
            _flush(path)
        if final.exists():
            shutil.rmtree(final)
        temporary.rename(final)
        _flush(root)
        _point_to(root, name)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _cannot_save(root, error) from error
    _prune(root, name)
    return final


def load_latest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint under `root`, and a line for each newer one that is damaged."""
    if not root.is_dir():
        return None, []
    names = sorted(
        (p.name for p in root.iterdir() if p.is_dir() and p.name[0] != "."), reverse=True
    )
    pointer = root / "latest"
    pointed = pointer.read_text(encoding="utf-8").strip() if pointer.exists() else ""
    if pointed in names:
        names = [pointed, *(name for name in names if name != pointed)]
    passed_over: list[str] = []
    for name in names:
        try:
            return read_checkpoint(root / name), passed_over
        except CheckpointError as error:
            passed_over.append(error.message)
    return None, passed_over


def read_checkpoint(folder: Path) -> Checkpoint:
    """Check that a checkpoint is whole and read its state. Raises CheckpointError if it is not."""
    try:
        record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        files, state, version = record["files"], record["state"], record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint `{folder}` has no readable state.json") from error
    if version != FORMAT:
        raise CheckpointError(f"checkpoint `{folder}` has format `{version}`, not {FORMAT}")
    for name, size in files.items():
        path = folder / name
        found = path.stat().st_size if path.exists() else None
        if found != size:
            was = "is missing" if found is None else f"has {found} bytes, not {size}"
            raise CheckpointError(f"checkpoint `{folder}` is damaged: {name} {was}")
    return Checkpoint(folder, state)


def _point_to(root: Path, name: str) -> None:
    temporary = root / ".latest.tmp"
    temporary.write_text(name + "\n", encoding="utf-8")
    _flush(temporary)
    temporary.replace(root / "latest")
    _flush(root)


def _prune(root: Path, newest: str) -> None:
    passing = []
    for folder in _checkpoints(root):
        if folder.name == newest:
            continue
        try:
            keep = json.loads((folder / "state.json").read_text(encoding="utf-8"))["keep"]
        except (OSError, ValueError, KeyError):
            keep = False
        if not keep:
            passing.append(folder)
    for folder in passing[: max(0, len(passing) - (KEPT - 1))]:
        shutil.rmtree(folder, ignore_errors=True)


def _cannot_save(root: Path, error: Exception) -> R1ciError:
    full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    # torch and safetensors report a failed write as their own error, with the cause in its text.
    full = full or "No space left" in str(error) or "os error 28" in str(error)
    why = "the disk is full" if full else str(error).splitlines()[0]
    return CheckpointError(
        f"cannot save a checkpoint under `{root}`: {why}",
        hint="the previous checkpoint is untouched; make room and continue with --resume",
    )


def _checkpoints(root: Path) -> list[Path]:
    """Folders of checkpoints, oldest first; temporary ones start with a dot."""
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
