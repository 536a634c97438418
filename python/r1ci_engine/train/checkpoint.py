"""Checkpoints that are either whole or not there.

A checkpoint is a folder: `model/` (a Hugging Face folder, usable by itself),
`optimizer.safetensors` and `state.json`, which is written last and lists size and checksum of
every other file and of itself. It is made under a temporary name, flushed to the disk and renamed.
Whatever happens in between, kill -9 included, the previous checkpoint is there and loads.

Left out: several processes, and whose run it is (`run_folder.py` refuses another configuration).
Names sort in the order of the run, so the latest is the last name that is whole. Names that begin
with a dot are not checkpoints yet, or no longer.
"""

import errno
import json
import os
import shutil
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from r1ci_engine.errors import CheckpointError
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.folder import save_model
from r1ci_engine.train.optimizer import Optimizer

FORMAT = 2
KEPT = 2
"""Checkpoints that stay besides those asked to: the newest and one more."""
OPTIMIZER = "optimizer.safetensors"


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

    def optimizer_state(self) -> dict[str, Tensor] | None:
        """State for `Optimizer.load_state_dict`, None if none was saved."""
        path = self.folder / OPTIMIZER
        return load_file(path) if path.exists() else None


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
    """Write checkpoint `name` under `root`, in place of one of that name; returns its folder.

    Earlier ones are removed, but for the last of them and those ever saved with `keep`. Raises
    CheckpointError if it cannot be written (a full disk, for one); the previous checkpoint is then
    untouched and nothing half-written is left.
    """
    temporary, final = root / f".{name}.tmp", root / name
    try:
        root.mkdir(parents=True, exist_ok=True)
        _recover(root)
        temporary.mkdir()
        save_model(model, temporary / "model", tokenizer_files_from=tokenizer_files_from)
        if optimizer is not None:
            save_file(optimizer.state_dict(), temporary / OPTIMIZER)
        files = {
            str(path.relative_to(temporary)): {"bytes": path.stat().st_size, "crc32": _crc32(path)}
            for path in _files(temporary)
        }
        keep = keep or (final.exists() and not _may_go(final))
        record = {"format": FORMAT, "keep": keep, "files": files, "state": state}
        record["crc32"] = _record_crc32(record)
        (temporary / "state.json").write_text(json.dumps(record), encoding="utf-8")
        for path in (*_files(temporary), temporary / "model", temporary):
            _flush(path)
        _rename_over(temporary, final)
    except BaseException as error:
        with suppress(OSError):
            _recover(root)
        if isinstance(error, OSError | SafetensorError):
            raise _cannot_save(root, error) from error
        raise
    with suppress(OSError):  # it is saved; what could not be removed now goes with the next
        _prune(root, name)
    return final


def load_latest(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint under `root`, and a line for each newer one that is damaged.

    None if there is none yet. What a killed save has left is cleaned up, so call it only from the
    run that owns `root`. Raises CheckpointError if there are checkpoints and all are damaged.
    """
    if not root.is_dir():
        return None, []
    try:
        _recover(root)
        folders = _checkpoints(root)
    except OSError as error:
        raise CheckpointError(
            f"cannot look for checkpoints under `{root}`: {error.strerror}"
        ) from error
    passed_over: list[str] = []
    for folder in reversed(folders):
        try:
            return read_checkpoint(folder), passed_over
        except CheckpointError as error:
            passed_over.append(error.message)
    if passed_over:
        raise CheckpointError(
            f"no checkpoint under `{root}` is whole: {'; '.join(passed_over)}",
            hint="restore one from a copy, or start anew in another --run-dir",
        )
    return None, []


def read_checkpoint(folder: Path, use: str = "") -> Checkpoint:
    """Check that a checkpoint is whole and read its state. Raises CheckpointError if it is not.

    `use`: what it is needed for, for the hint.
    """
    hint = f"{use}; restore it from a copy, or start anew in another --run-dir" if use else None
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint `{folder}` is missing", hint=hint)
    try:
        record = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        version = record["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"checkpoint `{folder}` has no readable state.json", hint) from error
    if version != FORMAT:
        raise CheckpointError(f"checkpoint `{folder}` has format `{version}`, not {FORMAT}", hint)
    if record.pop("crc32", None) != _record_crc32(record):
        raise CheckpointError(f"checkpoint `{folder}` is damaged: state.json was changed", hint)
    files, state = record["files"], record["state"]
    for name, written in files.items():
        fault = _fault(folder / name, written["bytes"], written["crc32"])
        if fault:
            raise CheckpointError(f"checkpoint `{folder}` is damaged: {name} {fault}", hint)
    return Checkpoint(folder, state)


def _record_crc32(record: dict[str, Any]) -> int:
    """Checksum of what `state.json` says besides it."""
    return zlib.crc32(json.dumps(record, sort_keys=True).encode())


def _fault(path: Path, size: int, crc32: int) -> str | None:
    """What is wrong with a file of a checkpoint; None if it is as it was written."""
    try:
        found = path.stat().st_size
        if found != size:
            return f"has {found} bytes, not {size}"
        return None if _crc32(path) == crc32 else "has other contents"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _rename_over(temporary: Path, final: Path) -> None:
    """Put a finished folder in its place; one of that name steps aside until it is there."""
    aside = final.with_name(f".{final.name}.old")
    if final.exists():
        final.rename(aside)
    temporary.rename(final)
    _flush(final.parent)
    shutil.rmtree(aside, ignore_errors=True)


def _recover(root: Path) -> None:
    """Clean up after a save that was killed: half-written folders go, one set aside comes back."""
    for folder in root.glob(".*.tmp"):
        if folder.is_dir():
            shutil.rmtree(folder, ignore_errors=True)
    for aside in root.glob(".*.old"):
        final = root / aside.name.removeprefix(".").removesuffix(".old")
        if final.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(final)


def _prune(root: Path, newest: str) -> None:
    """Remove what came before `newest`, but for the last of it and what was asked to stay.

    What comes after `newest` did not load, or the run would have gone on from there: it counts for
    nothing here and is replaced when the run gets there again.
    """
    passing = [f for f in _checkpoints(root) if f.name < newest and _may_go(f)]
    for folder in passing[: max(0, len(passing) - (KEPT - 1))]:
        # First out of sight: half of a folder must not look like a checkpoint.
        removed = folder.rename(root / f".{folder.name}.tmp")
        shutil.rmtree(removed)


def _may_go(folder: Path) -> bool:
    """Whether nobody asked it to stay; one that cannot be read may have been asked to."""
    try:
        return not json.loads((folder / "state.json").read_text(encoding="utf-8"))["keep"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _cannot_save(root: Path, error: Exception) -> CheckpointError:
    why = next(iter(str(error).splitlines()), type(error).__name__)
    # safetensors reports a failed write as its own error, with the cause in its text.
    full = (errno.ENOSPC, errno.EDQUOT)
    if getattr(error, "errno", None) in full or any(f"(os error {n})" in why for n in full):
        why = "the disk is full"
    return CheckpointError(
        f"cannot save a checkpoint under `{root}`: {why}",
        hint="the previous checkpoint is untouched; make room and continue with --resume",
    )


def _checkpoints(root: Path) -> list[Path]:
    """Folders of checkpoints, oldest first; temporary ones start with a dot."""
    return sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] != ".")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
