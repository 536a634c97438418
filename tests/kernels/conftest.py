"""What the kernel tests share: where they run, and which twin they run."""

from collections.abc import Iterator

import pytest
import torch

from r1ci_engine.kernels.dispatch import HAS_TRITON, force_backend, interpreting

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def why_no_triton() -> str | None:
    if not HAS_TRITON:
        return "triton is not installed"
    if DEVICE.type == "cpu" and not interpreting():
        return "no CUDA device, and TRITON_INTERPRET was not set before triton was imported"
    return None


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """New tensors without contents are NaN, so that an element nobody writes shows."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def device() -> torch.device:
    return DEVICE


@pytest.fixture(params=["torch", "triton"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once with each twin; skips the Triton one, with the reason, where it cannot."""
    reason = why_no_triton()
    if request.param == "triton" and reason is not None:
        pytest.skip(reason)
    with force_backend(request.param):
        yield request.param


@pytest.fixture
def triton_backend() -> Iterator[None]:
    reason = why_no_triton()
    if reason is not None:
        pytest.skip(reason)
    with force_backend("triton"):
        yield
