"""Checkpoints under kills, full disks and damage (pitfall 54), and exact resumption from one.

Failures are not left to chance: an audit hook hears every file operation that Python makes, and a
save is repeated with the process killed, or an error raised, at the first, the second, ... of them.
"""

import errno
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_config, tiny_model, write_tokenizer

from r1ci_engine.config import OptimizerSection
from r1ci_engine.errors import CheckpointError
from r1ci_engine.model import folder as model_folder
from r1ci_engine.model.folder import load_model
from r1ci_engine.train import checkpoint
from r1ci_engine.train.checkpoint import load_latest, read_checkpoint, save_checkpoint
from r1ci_engine.train.optimizer import Optimizer

SMALL = {"hidden": 16, "intermediate": 16, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 8}
OPERATIONS = {
    "open", "os.listdir", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.scandir",
    "shutil.copyfile", "shutil.rmtree", "test.fsync", "test.save_file",
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

    def announced(function: Callable[..., Any], event: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            sys.audit(event)  # before it, and when it is done
            result = function(*args, **kwargs)
            sys.audit(event)
            return result

        return call

    monkeypatch.setattr(os, "fsync", announced(os.fsync, "test.fsync"))
    for module in (checkpoint, model_folder):
        monkeypatch.setattr(module, "save_file", announced(module.save_file, "test.save_file"))
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


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("name", [name_of(4), name_of(3)], ids=["new", "again"])
def test_killed_at_any_operation_a_whole_checkpoint_loads(
    writer: Writer, faults: Faults, started: Path, tmp_path: Path, name: str
) -> None:
    """Pitfall 54. `again` replaces the newest checkpoint, as a stop right after a save does."""
    seen = []
    for operation in itertools.count():
        root = tmp_path / str(operation)
        shutil.copytree(started, root)

        def save(root: Path = root, operation: int = operation) -> None:
            faults.arm(operation, kill_me)
            writer.save(root, 4, name=name)

        status = in_child(save)
        assert status in (0, signal.SIGKILL)
        seen.append(loaded_step(root))
        assert all(not entry.startswith(".") for entry in names(root))
        writer.save(root, 5)
        assert loaded_step(root) == 5
        assert names(root) == [name_of(1), name, name_of(5)] or seen[-1] == 3
        read_checkpoint(root / name_of(1))
        shutil.rmtree(root)
        if status == 0:
            break
    assert len(seen) > 30
    assert seen == sorted(seen) and set(seen) == {3, 4}  # first the old, from one moment on the new


@pytest.mark.parametrize("name", [name_of(4), name_of(3)], ids=["new", "again"])
@pytest.mark.parametrize("raised", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()], ids=repr)
def test_failed_at_any_operation_the_previous_is_untouched(
    writer: Writer, faults: Faults, started: Path, tmp_path: Path, name: str, raised: BaseException
) -> None:
    """Pitfall 54, for a process that lives on: a full disk, an impatient person."""

    def strike() -> None:
        raise raised

    seen = []
    for operation in itertools.count():
        root = tmp_path / str(operation)
        shutil.copytree(started, root)
        faults.arm(operation, strike)
        try:
            writer.save(root, 4, name=name)
            stopped = False
        except (CheckpointError, KeyboardInterrupt) as error:
            stopped = True
            assert isinstance(error, KeyboardInterrupt) or "the disk is full" in str(error)
        reached = faults.disarm()
        if stopped and isinstance(raised, OSError):
            assert all(not entry.startswith(".") for entry in names(root))
        seen.append(loaded_step(root))
        assert stopped or seen[-1] == 4
        read_checkpoint(root / name_of(1))
        shutil.rmtree(root)
        if not reached:
            break
    assert len(seen) > 30
    assert seen == sorted(seen) and set(seen) == {3, 4}


def test_killed_at_random_times_the_last_finished_save_loads(
    tokenizer: Path, tmp_path: Path
) -> None:
    """Pitfall 54, in the middle of writes too."""
    writer = Writer(tokenizer, hidden=128, vocab_size=2048)
    root = tmp_path / "checkpoints"
    writer.save(root, 1)
    moments, finished = random.Random(0), 1
    for _ in range(10):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            for step in itertools.count(finished + 1):
                writer.save(root, step)
                os.write(writing, b".")
        os.close(writing)
        if moments.random() < 0.5:
            os.read(reading, 1)  # sometimes in a later save than the first
        signal.pthread_sigmask(signal.SIG_BLOCK, [])
        subprocess.run(["sleep", str(moments.uniform(0, 0.06))], check=True)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told = finished
        while blocks := os.read(reading, 1024):
            told += len(blocks)
        os.close(reading)
        step = loaded_step(root)
        assert step >= told
        finished = step
    assert finished > 1
