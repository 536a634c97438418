"""Which implementation runs: Triton on CUDA, torch elsewhere, decided once and logged.

Every kernel file asks `backend_for(device)`; none looks at the hardware itself. A choice is forced
by `R1CI_KERNELS=triton|torch` for a whole process, or by `force_backend` in a test. A forced
choice that cannot run is an error, never a quiet fallback.

Triton also runs on CPU tensors, slowly, under its interpreter. That is for tests only, so it is
taken only when forced, with `TRITON_INTERPRET=1` set before Triton is imported; on CUDA that
variable by itself means torch.
"""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Literal

import torch

from r1ci_engine.errors import ConfigError, DataError, KernelUnavailable

PACKAGE = "r1ci_engine.kernels"

if __package__ != PACKAGE:
    # In the top folder of a checkout this package is also found as `kernels`, a name that
    # `transformers` tries to import. Executed a second time, every file would register its
    # operators anew, which frees those that are in use: so the second name gets the same modules.
    import_module(PACKAGE)
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        sys.modules[name.replace(PACKAGE, __package__ or "", 1)] = sys.modules[name]

Backend = Literal["triton", "torch"]

HAS_TRITON = find_spec("triton") is not None

_log = logging.getLogger(__name__)
# Of the process, not of a context: backward on CUDA runs in a thread of autograd's own.
_forced: list[list[Backend]] = []


def backend_for(device: torch.device) -> Backend:
    """The implementation for tensors on `device`.

    `torch.compile` asks once, while it traces, and keeps the answer; what is an operator on both
    backends (the head's) asks at each call. Raises KernelUnavailable when a forced backend cannot
    run there.
    """
    if not _forced:
        return _choose(device)
    (backend,) = _forced[-1]
    if backend == "triton":
        _require_triton(device)
    return backend


# What `torch.compiler.assume_constant_result` does, without the 0.7 s that it takes to import the
# compiler for everybody who never compiles.
backend_for.__dict__["_dynamo_marked_constant"] = True


@contextmanager
def force_backend(backend: Backend) -> Iterator[None]:
    """Inside the block every kernel uses `backend`, in all threads.

    What `torch.compile` traced before keeps its answer, and what it traces inside keeps this one:
    `torch.compiler.reset()` forgets both.
    """
    entry: list[Backend] = [backend]  # an object of its own: blocks of two threads may overlap
    _forced.append(entry)
    try:
        yield
    finally:
        _forced[:] = [other for other in _forced if other is not entry]


def launch(
    kernel: Any, grid: tuple[int, ...], device: torch.device, *arguments: Any, **options: Any
) -> None:
    """Starts a Triton kernel on `device`: by itself Triton takes whichever GPU is current."""
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        kernel[grid](*arguments, **options)


def refuse_fp64(x: torch.Tensor) -> None:
    """Raises DataError, because the Triton kernels compute in fp32."""
    if x.dtype == torch.float64:
        raise DataError(
            "the tensors are `torch.float64`, which the Triton kernels would round to fp32",
            hint="R1CI_KERNELS=torch, or `force_backend`, computes in it",
        )


def interpreting() -> bool:
    """Whether Triton kernels run in the interpreter instead of being compiled."""
    if not HAS_TRITON:
        return False
    from triton import knobs

    return bool(knobs.runtime.interpret)


@cache  # looking into the environment takes as long as a small kernel, and each one asks
def _choose(device: torch.device) -> Backend:
    backend, reason = choice(device)
    _log.info("kernels for %s: %s, because %s", device, backend, reason)
    return backend


def choice(device: torch.device) -> tuple[Backend, str]:
    """What runs on `device` outside any `force_backend`, and why. Raises as `backend_for` does."""
    forced = _from_environment()
    if forced == "triton":
        _require_triton(device)
    if forced is not None:
        return forced, "`R1CI_KERNELS` says so"
    if device.type != "cuda":
        return "torch", f"tensors live on `{device.type}`"
    if not HAS_TRITON:
        return "torch", "triton is not installed"
    if interpreting():
        return "torch", "`TRITON_INTERPRET` is set: kernels would not be compiled"
    return "triton", "tensors live on `cuda`"


def _from_environment() -> Backend | None:
    value = os.environ.get("R1CI_KERNELS", "auto")
    match value:
        case "auto" | "":
            return None
        case "triton" | "torch":
            return value
    raise ConfigError(f"`R1CI_KERNELS` is `{value}`", hint="set it to `auto`, `triton` or `torch`")


def _require_triton(device: torch.device) -> None:
    if not HAS_TRITON:
        raise KernelUnavailable(
            "the Triton kernels were asked for, but triton is not installed",
            hint="pip install triton (Linux only), or set R1CI_KERNELS=auto",
        )
    if device.type != "cuda" and not interpreting():
        raise KernelUnavailable(
            f"the Triton kernels were asked for, but the tensors live on `{device.type}`",
            hint="set TRITON_INTERPRET=1 before Triton is imported, or R1CI_KERNELS=auto",
        )
