"""Checkpoints under kills, full disks and damage, and exact resumption from one.

Failures are not left to chance: an audit hook hears every file operation that Python makes, and a
save is repeated with the process killed, or an error raised, at the first, the second, ... of them.
"""

import errno
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_config, tiny_model, write_tokenizer

from r1ci_engine.config import OptimizerSection, SftSection
from r1ci_engine.errors import CheckpointError
from r1ci_engine.model import folder as model_folder
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.folder import load_model
from r1ci_engine.train import checkpoint
from r1ci_engine.train.batch import TrainSequence
from r1ci_engine.train.checkpoint import load_latest, read_checkpoint, save_checkpoint
from r1ci_engine.train.optimizer import Optimizer
from r1ci_engine.train.sft import sft_step

SMALL = {"hidden": 16, "intermediate": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8}
OPERATIONS = {
    "open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir",
    "shutil.copyfile", "test.fsync", "test.save_file",
}  # fmt: skip


class Faults:
    """Counts file operations and does something drastic at one of them."""

    def __init__(self) -> None:
        self.countdown = -1
        self.strike: Callable[[], None] = lambda: None
        sys.addaudithook(self._hear)

    def arm(self, operation: int, strike: Callable[[], None]) -> None:
        """`strike` instead of operation number `operation` (from 0) from now on."""
        self.countdown, self.strike = operation, strike

    def disarm(self) -> bool:
        """Stop counting; returns whether the operation was reached."""
        reached, self.countdown = self.countdown < 0, -1
        return reached

    def _hear(self, event: str, _: object) -> None:
        if self.countdown >= 0 and event in OPERATIONS:
            self.countdown -= 1
            if self.countdown < 0:
                self.strike()


@pytest.fixture(scope="module")
def hook() -> Faults:
    return Faults()  # audit hooks stay for good, so there is one


@pytest.fixture
def faults(hook: Faults, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """With the operations announced of which Python says nothing by itself."""

    def announced(function: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            sys.audit("test.save_file")  # before it, and when it is done
            function(*args, **kwargs)
            sys.audit("test.save_file")

        return call

    # A killed process does not need the disk to be in order, and a disk that is busy is slow.
    monkeypatch.setattr(os, "fsync", lambda descriptor: sys.audit("test.fsync"))
    for module in (checkpoint, model_folder):
        monkeypatch.setattr(module, "save_file", announced(module.save_file))
    yield hook
    hook.disarm()


class Writer:
    """Saves checkpoints in which weights, moments and state all tell the step they are from."""

    def __init__(self, tokenizer: Path, **shape: Any) -> None:
        self.tokenizer = tokenizer
        self.model = tiny_model(tiny_config("llama", **{**SMALL, **shape}))
        self.optimizer = Optimizer(self.model, OptimizerSection(), total_steps=10)
        for parameter in self.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        self.optimizer.step()

    def save(self, root: Path, step: int, *, name: str = "", keep: bool = False) -> Path:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(step)
        self.optimizer.steps = step
        state = {"step": step}
        return save_checkpoint(
            root, name or name_of(step), self.model, self.optimizer, state,
            tokenizer_files_from=self.tokenizer, keep=keep,
        )  # fmt: skip


def name_of(step: int) -> str:
    return f"4-grpo-{step:06d}"


def names(root: Path) -> list[str]:
    """All that lies in `root`, temporary names included."""
    return sorted(path.name for path in root.iterdir())


def loaded_step(root: Path) -> int:
    """The step of the latest checkpoint, all parts of which must agree on it."""
    found, passed_over = load_latest(root)
    assert found is not None and not passed_over
    step = found.state["step"]
    for parameter in load_model(found.model).parameters():
        assert (parameter == step).all()
    state = found.optimizer_state()
    assert state is not None and int(state["steps"]) == step
    assert any(key.endswith("exp_avg") for key in state)
    return step


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def writer(tokenizer: Path) -> Writer:
    return Writer(tokenizer)


@pytest.fixture(scope="module")
def started(writer: Writer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a run leaves it: one kept, two passing."""
    root = tmp_path_factory.mktemp("started") / "checkpoints"
    writer.save(root, 1, keep=True)
    writer.save(root, 2)
    writer.save(root, 3)
    return root


def in_child(work: Callable[[], object]) -> int:
    """Do `work` in a forked process; returns its exit status as `os.waitpid` has it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


def copied(started: Path, root: Path) -> Path:
    """By links, because files of a checkpoint are never written again."""
    return Path(shutil.copytree(started, root, copy_function=os.link))


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("name", [name_of(4), name_of(3)], ids=["new", "again"])
def test_killed_at_any_operation_a_whole_checkpoint_loads(
    writer: Writer, faults: Faults, started: Path, tmp_path: Path, name: str
) -> None:
    """Half a checkpoint is never taken for one.

    `again` replaces the newest checkpoint, as a stop right after a save does.
    """
    seen = []
    for operation in itertools.count():
        root = copied(started, tmp_path / str(operation))

        def save(root: Path = root, operation: int = operation) -> None:
            faults.arm(operation, kill_me)
            writer.save(root, 4, name=name)

        status = in_child(save)
        assert status in (0, signal.SIGKILL)
        seen.append(loaded_step(root))
        assert not any(entry.startswith(".") for entry in names(root))
        assert read_checkpoint(root / name_of(1)).state == {"step": 1}
        if status == 0:
            break
    assert len(seen) > 30
    assert seen == sorted(seen) and set(seen) == {3, 4}  # first the old, from one moment on the new


@pytest.mark.parametrize("name", [name_of(4), name_of(3)], ids=["new", "again"])
@pytest.mark.parametrize("raised", [OSError, KeyboardInterrupt])
def test_failed_at_any_operation_the_previous_is_untouched(
    writer: Writer,
    faults: Faults,
    started: Path,
    tmp_path: Path,
    name: str,
    raised: type[BaseException],
) -> None:
    """A whole checkpoint stays, for a process that lives on: a full disk, an impatient person."""

    def strike() -> None:
        raise raised(errno.ENOSPC, "full")

    seen = []
    for operation in itertools.count():
        root = copied(started, tmp_path / str(operation))
        faults.arm(operation, strike)
        try:
            writer.save(root, 4, name=name)
            stopped = False
        except (CheckpointError, KeyboardInterrupt) as error:
            stopped = True
            assert isinstance(error, KeyboardInterrupt) or "the disk is full" in str(error)
        reached = faults.disarm()
        if stopped and raised is OSError:
            assert not any(entry.startswith(".") for entry in names(root))
        seen.append(loaded_step(root))
        assert stopped or seen[-1] == 4
        assert read_checkpoint(root / name_of(1)).state == {"step": 1}
        if not reached:
            break
    assert len(seen) > 30
    assert set(seen) == {3, 4}  # not all stop a save: what cannot be removed is left for the next


def test_killed_at_random_times_the_last_finished_save_loads(
    tokenizer: Path, tmp_path: Path
) -> None:
    """A whole checkpoint stays, in the middle of writes too."""
    writer = Writer(tokenizer, hidden=128, vocab_size=2048)
    root = tmp_path / "checkpoints"
    writer.save(root, 1)
    moments = random.Random(0)
    finished = 1
    for _ in range(10):
        reading, writing = os.pipe()

        def save_on_and_on(first: int = finished + 1, writing: int = writing) -> None:
            for step in itertools.count(first):
                writer.save(root, step)
                os.write(writing, b".")

        child = os.fork()
        if child == 0:
            try:
                save_on_and_on()
            finally:
                os._exit(1)
        os.close(writing)
        if moments.random() < 0.5:  # often the first save; sometimes a later one
            finished += len(os.read(reading, 1))
        time.sleep(moments.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as told:
            finished += len(told.read())
        step = loaded_step(root)
        assert step in (finished, finished + 1)  # the last may have been killed before it told
        finished = step
    assert finished > 2


def test_full_disk_is_an_error_and_the_previous_checkpoint_loads(
    tokenizer: Path, tmp_path: Path
) -> None:
    """A whole checkpoint stays on a real file system without room, as root; wherever it ends."""
    writer = Writer(tokenizer, hidden=64, vocab_size=512)
    probe = writer.save(tmp_path / "probe", 1)
    kib = sum(path.stat().st_size for path in probe.rglob("*")) // 1024
    said = set()
    for extra in range(8, kib, kib // 8):
        disk = tmp_path / f"disk{extra}"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib + 64 + extra}k", "tmpfs", str(disk)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("may not mount a file system")
        try:
            root = disk / "checkpoints"
            writer.save(root, 1)
            with pytest.raises(CheckpointError) as caught:
                writer.save(root, 2)
            said.add(caught.value.message.rpartition(": ")[2])
            assert names(root) == [name_of(1)] and loaded_step(root) == 1
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    assert said == {"the disk is full"}


def test_no_file_may_grow_that_large(writer: Writer, started: Path, tmp_path: Path) -> None:
    """A write that really fails, for those who are not root: inside safetensors, then in Python."""
    largest = max(path.stat().st_size for path in started.rglob("*") if path.is_file())
    previous = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number, limit in enumerate((largest // 2, 100)):
        root = tmp_path / str(number)
        shutil.copytree(started, root)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, previous[1]))
        try:
            with pytest.raises(CheckpointError, match="File too large"):
                writer.save(root, 4)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, previous)
        assert names(root) == names(started) and loaded_step(root) == 3


def test_folder_that_cannot_be_made(writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="Not a directory"):
        writer.save(tmp_path / "file" / "checkpoints", 1)


# --- damage --------------------------------------------------------------------------------------


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)


def edit(key: str, value: object) -> Callable[[Path], object]:
    """Somebody sets a key of a `state.json`."""

    def damage(path: Path) -> None:
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {key: value}))

    return damage


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("model/model.safetensors", flip_a_bit, "model/model.safetensors has other contents"),
        ("optimizer.safetensors", flip_a_bit, "optimizer.safetensors has other contents"),
        ("model/model.safetensors", shorten, "bytes, not"),
        ("model/tokenizer.json", Path.unlink, "model/tokenizer.json is missing"),
        ("model/config.json", make_folder, "bytes, not"),
        ("state.json", Path.unlink, "no readable state.json"),
        ("state.json", shorten, "no readable state.json"),
        ("state.json", lambda path: path.write_bytes(b"\xff\x00"), "no readable state.json"),
        ("state.json", lambda path: path.write_text("[]"), "no readable state.json"),
        ("state.json", lambda path: path.write_text('{"format": 1}'), "has format `1`, not 2"),
        ("state.json", lambda path: path.write_text('{"format": 2}'), "state.json was changed"),
        ("state.json", edit("state", {"phase": "bogus"}), "state.json was changed"),
        ("state.json", edit("files", [1]), "state.json was changed"),
        ("state.json", edit("keep", True), "state.json was changed"),
    ],
)
def test_damaged_one_is_passed_over_and_named(
    started: Path, tmp_path: Path, file: str, damage: Callable[[Path], object], said: str
) -> None:
    root = tmp_path / "checkpoints"
    shutil.copytree(started, root)
    damage(root / name_of(3) / file)
    found, passed_over = load_latest(root)
    assert found is not None and found.state == {"step": 2}
    assert len(passed_over) == 1 and name_of(3) in passed_over[0] and said in passed_over[0]


def test_disk_that_cannot_read_is_damage_too(
    started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "_crc32", failing)
    with pytest.raises(CheckpointError, match=r"cannot be read \(Input/output error\)"):
        read_checkpoint(started / name_of(3))


def test_format_of_another_version_is_refused(started: Path, tmp_path: Path) -> None:
    shutil.copytree(started / name_of(3), tmp_path / "a")
    record = json.loads((tmp_path / "a" / "state.json").read_text())
    (tmp_path / "a" / "state.json").write_text(json.dumps(record | {"format": 3}))
    with pytest.raises(CheckpointError, match="has format `3`, not 2"):
        read_checkpoint(tmp_path / "a")


def test_nothing_saved_is_not_the_same_as_nothing_whole(started: Path, tmp_path: Path) -> None:
    assert load_latest(tmp_path / "none") == (None, [])
    (tmp_path / "empty").mkdir()
    assert load_latest(tmp_path / "empty") == (None, [])
    root = tmp_path / "checkpoints"
    shutil.copytree(started, root)
    for state in root.glob("*/state.json"):
        state.unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoint under .* is whole") as caught:
        load_latest(root)
    assert all(name in str(caught.value) for name in names(started))


# --- what stays ----------------------------------------------------------------------------------


def test_newest_two_stay_and_what_was_asked_to(writer: Writer, tmp_path: Path) -> None:
    for step in range(1, 8):
        writer.save(tmp_path, step, keep=step in (2, 4))
    assert names(tmp_path) == [name_of(step) for step in (2, 4, 6, 7)]
    assert loaded_step(tmp_path) == 7


def test_kept_one_stays_kept_when_written_again(writer: Writer, tmp_path: Path) -> None:
    """A stop during the evaluation after SFT saves under the name of the kept SFT model."""
    writer.save(tmp_path, 1, keep=True)
    for step in range(1, 5):
        writer.save(tmp_path, step)
    assert names(tmp_path) == [name_of(step) for step in (1, 3, 4)]


def test_damaged_later_ones_do_not_push_out_good_ones(writer: Writer, tmp_path: Path) -> None:
    """A run that had to go back: what lies ahead did not load, so it does not count as a spare."""
    writer.save(tmp_path, 10)
    writer.save(tmp_path, 20)
    shorten(tmp_path / name_of(20) / "optimizer.safetensors")
    found, passed_over = load_latest(tmp_path)
    assert found is not None and found.state == {"step": 10} and len(passed_over) == 1
    writer.save(tmp_path, 15)
    assert names(tmp_path) == [name_of(step) for step in (10, 15, 20)]
    found, passed_over = load_latest(tmp_path)
    assert found is not None and found.state == {"step": 15} and len(passed_over) == 1
    writer.save(tmp_path, 20)
    assert names(tmp_path) == [name_of(15), name_of(20)] and loaded_step(tmp_path) == 20


def test_unreadable_one_is_not_removed(writer: Writer, tmp_path: Path) -> None:
    """It may have been asked to stay."""
    writer.save(tmp_path, 1, keep=True)
    (tmp_path / name_of(1) / "state.json").write_text("")
    for step in range(2, 5):
        writer.save(tmp_path, step)
    assert names(tmp_path) == [name_of(step) for step in (1, 3, 4)]


# --- going on ------------------------------------------------------------------------------------

SECTION = SftSection(
    micro_tokens=24,
    optimizer=OptimizerSection(
        lr=3e-3, warmup_steps=2, decay="cosine", weight_decay=0.1, max_grad_norm=0.5
    ),
)
STEPS = 6


def sequences_of(step: int) -> list[TrainSequence]:
    """Random tokens, the first third a prompt."""
    random_ = np.random.default_rng(step)
    sequences = []
    for length in random_.integers(6, 20, 5):
        trained = np.arange(length) >= length // 3
        tokens = random_.integers(0, 50, length)
        sequences.append(TrainSequence(tokens, trained, np.zeros(length, np.float32)))
    return sequences


def train(model: Decoder, optimizer: Optimizer, steps: range) -> list[dict[str, float]]:
    return [sft_step(model, optimizer, sequences_of(step), SECTION) for step in steps]


def bits(model: Decoder, optimizer: Optimizer) -> dict[str, bytes]:
    tensors = {**dict(model.named_parameters()), **optimizer.state_dict()}
    return {
        name: tensor.detach().reshape(-1).view(torch.uint8).numpy().tobytes()
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("at", [1, 4])
def test_resumed_run_has_the_bits_of_the_uninterrupted_one(
    tokenizer: Path, tmp_path: Path, dtype: torch.dtype, at: int
) -> None:
    """Weights, moments, schedule and reported numbers."""

    def fresh() -> tuple[Decoder, Optimizer]:
        model = load_model(begin, dtype=dtype)
        return model, Optimizer(model, SECTION.optimizer, STEPS)

    begin, root = tmp_path / "begin", tmp_path / "checkpoints"
    model_folder.save_model(tiny_model(tiny_config("qwen2", **SMALL)), begin)
    model, optimizer = fresh()
    start = bits(model, optimizer)
    whole = train(model, optimizer, range(STEPS))
    expected = bits(model, optimizer)
    assert expected != start and all(line["grad/norm"] > 0 for line in whole)

    model, optimizer = fresh()
    train(model, optimizer, range(at))
    saved = bits(model, optimizer)
    save_checkpoint(root, "a", model, optimizer, {"step": at}, tokenizer_files_from=tokenizer)
    assert bits(model, optimizer) == saved  # saving changes nothing
    found, _ = load_latest(root)
    assert found is not None
    state = found.optimizer_state()
    assert state is not None

    model = load_model(found.model, dtype=dtype)
    optimizer = Optimizer(model, SECTION.optimizer, STEPS)
    optimizer.load_state_dict(state)
    assert bits(model, optimizer) == saved
    assert train(model, optimizer, range(found.state["step"], STEPS)) == whole[at:]
    assert bits(model, optimizer) == expected

    # Without the moments it would be another run, so the comparison sees them.
    model = load_model(found.model, dtype=dtype)
    forgetful = Optimizer(model, SECTION.optimizer, STEPS)
    forgetful.steps = at
    train(model, forgetful, range(at, STEPS))
    assert bits(model, forgetful) != expected


def test_checkpoint_without_optimizer(tokenizer: Path, tmp_path: Path) -> None:
    model = tiny_model(tiny_config("llama", **SMALL))
    save_checkpoint(tmp_path, "a", model, None, {}, tokenizer_files_from=tokenizer)
    found, _ = load_latest(tmp_path)
    assert found is not None and found.optimizer_state() is None
