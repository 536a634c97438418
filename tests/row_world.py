"""What the tests of the row kernels share: comparison with fp64 by roundings, gradients, compiling.

Under the interpreter a cast to bf16 cuts bits off instead of rounding, so a value that is rounded
n times may be n units in the last place away from the exact one, not n halves.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

DTYPES = [torch.float32, torch.float16, torch.bfloat16]

Function = Callable[..., Any]


def normal(shape: Sequence[int], dtype: torch.dtype, device: torch.device, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator).to(device, dtype)


def is_close(
    found: Tensor, exact: Tensor, roundings: float = 1, slack: Tensor | float = 0.0
) -> bool:
    """Whether `found` is `exact` but for so many roundings, `slack` and the noise of fp32 sums."""
    assert found.shape == exact.shape and exact.dtype == torch.float64
    if not exact.numel():
        return True
    scale = exact.abs().amax(-1, keepdim=True)
    assert (scale > 0).all(), "a comparison of nothing with nothing"
    allowed = roundings * torch.finfo(found.dtype).eps * exact.abs() + slack + 4e-6 * scale
    return bool(((found.double() - exact).abs() <= allowed).all())  # False for NaN


def differentiate(
    function: Function, inputs: Sequence[Tensor], slopes: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Results of `function`, and the gradients of sum(slope result) by the inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    results = function(*leaves)
    results = [results] if isinstance(results, Tensor) else list(results)
    gradients = torch.autograd.grad(
        results, leaves, [slope.to(y.dtype) for slope, y in zip(slopes, results, strict=True)]
    )
    return [y.detach() for y in results], list(gradients)


def outcome(function: Function, inputs: Sequence[Tensor], slopes: Sequence[Tensor]) -> list[Tensor]:
    """Results and gradients in one list."""
    results, gradients = differentiate(function, inputs, slopes)
    return results + gradients


def compiled_agrees(
    function: Function, inputs: Sequence[Tensor], slopes: Sequence[Tensor]
) -> Sequence[str]:
    """Asserts that `function` compiles whole to the same bits; returns the operators it became."""
    operators: list[str] = []

    def keep(graph: torch.fx.GraphModule, example: list[Tensor]) -> Function:
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    torch.compiler.reset()  # or the code found for another backend would be taken again
    compiled = torch.compile(function, fullgraph=True, backend=keep)
    plain = outcome(function, inputs, slopes)
    found = outcome(compiled, inputs, slopes)
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for expected, *others in zip(plain, found, outcome(compiled, inputs, slopes), strict=True):
        assert all(torch.equal(expected, other) for other in others)
    return operators


@contextmanager
def poisoned() -> Iterator[None]:
    """Inside the block, memory without a value holds NaN."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.empty(2).isnan().all() and torch.zeros(2).new_empty(2).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(before)
