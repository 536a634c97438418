"""The choice of implementation: once, with a reason, and never quietly another one."""

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from r1ci_engine.errors import ConfigError, KernelUnavailable
from r1ci_engine.kernels import backend_for, dispatch, force_backend

CPU = torch.device("cpu")
CUDA = torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("R1CI_KERNELS", raising=False)
    dispatch._choose.cache_clear()
    yield
    dispatch._choose.cache_clear()


def test_the_choice_is_made_once_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="r1ci_engine.kernels"):
        assert [backend_for(CPU) for _ in range(3)] == ["torch"] * 3
    assert [record.getMessage() for record in caplog.records] == [
        "kernels for cpu: torch, because tensors live on `cpu`"
    ]


def test_cuda_takes_triton_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    assert backend_for(CUDA) == "triton"
    dispatch._choose.cache_clear()
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    assert backend_for(CUDA) == "torch"


def test_the_interpreter_is_never_taken_by_itself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "interpreting", lambda: True)
    with caplog.at_level(logging.INFO, logger="r1ci_engine.kernels"):
        assert backend_for(CUDA) == "torch"
    assert "`TRITON_INTERPRET` is set" in caplog.text


def test_a_forced_choice_ends_with_its_block() -> None:
    with force_backend("torch"):
        assert backend_for(CUDA) == "torch"
    assert backend_for(CPU) == "torch"


def test_the_innermost_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    with force_backend("triton"):
        with force_backend("torch"):
            assert backend_for(CUDA) == "torch"
            with force_backend("triton"):
                assert backend_for(CUDA) == "triton"
            assert backend_for(CUDA) == "torch"
        assert backend_for(CUDA) == "triton"


def test_an_error_ends_a_block_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    with pytest.raises(KeyError), force_backend("torch"):
        raise KeyError
    assert backend_for(CUDA) == "triton"
    assert not dispatch._forced


def test_blocks_of_threads_may_overlap_and_each_ends_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    # In each order of leaving: what holds after every step.
    for order, after in {
        (0, 1, 2): ["torch", "torch", "triton"],
        (1, 0, 2): ["torch", "torch", "triton"],
        (2, 0, 1): ["triton", "triton", "triton"],
        (2, 1, 0): ["triton", "torch", "triton"],
    }.items():
        blocks = [force_backend(name) for name in ("torch", "triton", "torch")]
        found = []
        with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
            for n, block in enumerate(blocks):
                (one, other)[n % 2].submit(block.__enter__).result()
            for n in order:
                (one, other)[n % 2].submit(blocks[n].__exit__, None, None, None).result()
                found.append(backend_for(CUDA))
        assert found == after, order
        assert not dispatch._forced


def test_a_forced_choice_holds_in_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backward on a GPU runs in one that autograd has started."""
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    with force_backend("torch"), ThreadPoolExecutor(1) as elsewhere:
        assert elsewhere.submit(backend_for, CUDA).result() == "torch"


def test_the_environment_forces_a_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1CI_KERNELS", "torch")
    assert backend_for(CUDA) == "torch"
    monkeypatch.setenv("R1CI_KERNELS", "cuda")
    with pytest.raises(ConfigError, match="`R1CI_KERNELS` is `cuda`"):
        backend_for(CPU)


def test_the_environment_forces_triton_or_says_why_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    monkeypatch.setenv("R1CI_KERNELS", "triton")
    with caplog.at_level(logging.INFO, logger="r1ci_engine.kernels"):
        assert backend_for(CUDA) == "triton"
    assert "`R1CI_KERNELS` says so" in caplog.text
    with pytest.raises(KernelUnavailable, match="live on `cpu`"):
        backend_for(CPU)
    monkeypatch.setattr(dispatch, "interpreting", lambda: True)
    assert backend_for(CPU) == "triton"
    dispatch._choose.cache_clear()
    assert backend_for(CUDA) == "triton", "asked for, so the interpreter is taken"
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    dispatch._choose.cache_clear()
    for device in (CPU, CUDA):
        with pytest.raises(KernelUnavailable, match="not installed"):
            backend_for(device)


@pytest.mark.parametrize("value", ["", "auto"])
def test_an_environment_that_says_nothing_forces_nothing(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    monkeypatch.setenv("R1CI_KERNELS", value)
    assert [backend_for(device) for device in (CPU, CUDA)] == ["torch", "triton"]


def test_interpreting_is_what_triton_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not dispatch.interpreting()
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert dispatch.interpreting()


def test_nothing_interprets_where_triton_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    monkeypatch.setitem(sys.modules, "triton", None)  # importing it fails
    assert dispatch.interpreting() is False


class FakeKernel:
    """Takes notes instead of starting."""

    def __init__(self, notes: list[object]) -> None:
        self.notes = notes

    def __getitem__(self, grid: tuple[int, ...]) -> "FakeKernel":
        self.notes.append(grid)
        return self

    def __call__(self, *arguments: object, **options: object) -> None:
        self.notes += [arguments, options]


def test_a_kernel_starts_while_the_gpu_of_its_tensors_is_current(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    notes: list[object] = []

    @contextmanager
    def current(device: torch.device) -> Iterator[None]:
        notes.append(device)
        yield
        notes.append("left")

    monkeypatch.setattr(torch.cuda, "device", current)
    dispatch.launch(FakeKernel(notes), (3, 2), CPU, 1, "two", BLOCK=4)
    started = [(3, 2), (1, "two"), {"BLOCK": 4}]
    assert notes == started, "nothing is entered for a CPU"
    notes.clear()
    second = torch.device("cuda:1")
    dispatch.launch(FakeKernel(notes), (3, 2), second, 1, "two", BLOCK=4)
    assert notes == [second, *started, "left"]


def test_a_forced_backend_that_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    with force_backend("triton"):
        assert backend_for(CUDA) == "triton"
        with pytest.raises(KernelUnavailable, match="live on `cpu`"):
            backend_for(CPU)
        monkeypatch.setattr(dispatch, "HAS_TRITON", False)
        with pytest.raises(KernelUnavailable, match="not installed"):
            backend_for(CUDA)


@pytest.mark.parametrize("kind", ["mps", "xpu", "meta"])
def test_no_other_device_runs_triton_either(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forced, it is refused there as on a CPU."""
    monkeypatch.setattr(dispatch, "HAS_TRITON", True)
    monkeypatch.setattr(dispatch, "interpreting", lambda: False)
    device = torch.device(kind)
    assert backend_for(device) == "torch"
    with (
        force_backend("triton"),
        pytest.raises(KernelUnavailable, match=f"live on `{kind}`") as refused,
    ):
        backend_for(device)
    assert "TRITON_INTERPRET=1" in (refused.value.hint or "")
    dispatch._choose.cache_clear()
    monkeypatch.setenv("R1CI_KERNELS", "triton")
    with pytest.raises(KernelUnavailable, match=f"live on `{kind}`"):
        backend_for(device)


@pytest.mark.parametrize("first", ["kernels", "r1ci_engine.kernels"])
def test_a_second_name_of_the_package_registers_nothing_again(first: str) -> None:
    program = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import {first}, kernels.linear_logprob, r1ci_engine.kernels.linear_logprob, torch
both = [sys.modules[name] for name in ("kernels", "r1ci_engine.kernels")]
assert both[0].linear_logprob is both[1].linear_logprob
assert sys.modules["kernels.dispatch"] is sys.modules["r1ci_engine.kernels.dispatch"]
both[1].linear_logprob(torch.ones(3, 8), torch.ones(9, 8), torch.arange(3))
"""
    # An operator that was registered again would be called through freed memory.
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
