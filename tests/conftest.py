"""What has to be true before any test module is imported."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

_COUNT_GPUS = """
import ctypes
cuda, count = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
failed = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
raise SystemExit(1 if failed or count.value == 0 else 0)
"""


def _has_gpu() -> bool:
    """Asked of the driver: files in /dev may come only with CUDA's first use, or be left over.

    By another process, because this one will fork, which who has started CUDA cannot.
    """
    try:
        ctypes.CDLL("libcuda.so.1")  # by itself it starts nothing
    except OSError:
        return False
    return subprocess.run([sys.executable, "-c", _COUNT_GPUS], check=False).returncode == 0


# Without a GPU the Triton kernels are tested under the interpreter. Triton reads the variable when
# a kernel is defined, so it has to be set before the first import of the kernels by any test.
if "TRITON_INTERPRET" not in os.environ and not _has_gpu():
    os.environ["TRITON_INTERPRET"] = "1"


def pytest_configure(config: pytest.Config) -> None:
    # Triton's interpreter converts one-element arrays in a way that NumPy is about to forbid.
    config.addinivalue_line(
        "filterwarnings", "ignore:Conversion of an array with ndim > 0:DeprecationWarning"
    )


@pytest.fixture(autouse=True, scope="module")
def _no_maker_of_items_stays() -> Iterator[None]:
    """Tests of the sandbox look at all children of this process, and kill some."""
    yield
    if gym := sys.modules.get("r1ci_engine.tasks.reasoning_gym"):
        gym.close_workshop()
