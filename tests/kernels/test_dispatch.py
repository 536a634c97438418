"""The choice of implementation: once, with a reason, and never quietly another one."""

import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
