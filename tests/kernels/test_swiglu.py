"""SwiGLU: both twins against fp64, and element by element."""

import pytest
import torch
from row_world import DTYPES, compiled_agrees, differentiate, is_close, normal, outcome, poisoned
from torch import Tensor

from r1ci_engine.errors import DataError
from r1ci_engine.kernels import force_backend
from r1ci_engine.kernels.swiglu import (
    BLOCK,
    _backward,
    _forward,
    _silu_of_slices,
    swiglu,
    swiglu_reference,
)


def projections(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(gate, up, slope of the result)."""
    gate, up, slope = (normal(shape, dtype, device, seed) for seed in (1, 2, 3))
    return gate * 3, up, slope


def exact(gate: Tensor, up: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(y, dgate, dup) in fp64, term by term."""
    gate, up, slope = (x.double() for x in (gate, up, slope))
    p = torch.sigmoid(gate)
    return gate * p * up, slope * up * (p + gate * p * (1 - p)), slope * gate * p


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(0, 9), (1, 1), (5, 37), (2, 3, 40), (2, BLOCK - 1), (1, BLOCK), (2, BLOCK + 1)]
)
def test_agrees_with_fp64(
    shape: tuple[int, ...], dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    gate, up, slope = projections(shape, dtype, device)
    with poisoned():
        (y,), (dgate, dup) = differentiate(swiglu, (gate, up), (slope,))
    assert y.dtype == dgate.dtype == dup.dtype == dtype
    expected = exact(gate, up, slope)
    assert is_close(y, expected[0], roundings=2)
    assert is_close(dgate, expected[1], roundings=2)
    assert is_close(dup, expected[2], roundings=2)


def test_no_term_of_the_gradients_may_go_missing(backend: str, device: torch.device) -> None:
    gate, up, slope = projections((3, 37), torch.float32, device)
    _, (dgate, dup) = differentiate(swiglu, (gate, up), (slope,))
    gate, up, slope = (x.double() for x in (gate, up, slope))
    p = torch.sigmoid(gate)
    assert is_close(dgate, slope * up * (p + gate * p * (1 - p)))
    assert not is_close(dgate, slope * up * p), "the gate's own slope is missing"
    assert not is_close(dgate, slope * up * gate * p * (1 - p)), "the linear part is missing"
    assert not is_close(dgate, slope * (p + gate * p * (1 - p))), "up is missing"
    assert not is_close(dup, slope * p), "the gate is missing"


def test_the_reference_is_differentiable(device: torch.device) -> None:
    gate, up, _ = (x.requires_grad_() for x in projections((3, 5), torch.float64, device))
    assert torch.autograd.gradcheck(swiglu_reference, (gate, up))


def test_rounding_points_are_those_of_the_reference(
    triton_backend: None, device: torch.device
) -> None:
    # fp16, because the interpreter does not round bf16.
    gate, up, slope = projections((4, 500), torch.float16, device)
    inputs, wide = (gate, up), (gate.float(), up.float())
    found, expected, once = (
        differentiate(function, arguments, (slope,))
        for function, arguments in (
            (swiglu, inputs),
            (swiglu_reference, inputs),
            (swiglu_reference, wide),
        )
    )

    def alike(x: Tensor, y: Tensor) -> float:
        return (x == y.half()).double().mean().item()

    (y,), (_, dup) = found
    for x, right, wrong in ((y, expected[0][0], once[0][0]), (dup, expected[1][1], once[1][1])):
        assert alike(x, right) > 0.995 > 0.9 > alike(x, wrong)


@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # to inf, as on a GPU
def test_far_gates_give_finite_results(backend: str, device: torch.device) -> None:
    gate = torch.tensor([[-1e4, -100.0, -88.0, 0.0, 88.0, 1e4]], device=device)
    one = torch.ones_like(gate)
    (y,), (dgate, dup) = differentiate(swiglu, (gate, one), (one,))
    assert y[0, :3].abs().max() < 1e-30 and torch.equal(y[0, 4:], gate[0, 4:])
    assert torch.equal(dup, y)
    assert dgate[0, :3].abs().max() < 1e-30 and dgate[0, 3:].tolist() == [0.5, 1.0, 1.0]


def test_a_row_depends_on_itself_alone_and_runs_repeat(backend: str, device: torch.device) -> None:
    # Whole vectors of the processor: in the rest torch rounds an exponential in another way.
    gate, up, slope = projections((9, 96), torch.float32, device)

    def run(order: Tensor) -> list[Tensor]:
        return outcome(swiglu, (gate[order], up[order]), (slope[order],))

    everything = torch.arange(9, device=device)
    whole = run(everything)
    for order in (everything, everything.flip(0), everything[4:5]):
        for alone, together in zip(run(order), whole, strict=True):
            assert torch.equal(alone, together[order])


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("shape", [(40, 11_008), (375, 96), (205, 576), (9, 500), (2, 2, 500)])
def test_threads_share_out_no_part_of_a_row(shape: tuple[int, ...], threads: int) -> None:
    gate, up, slope = projections(shape, torch.float32, torch.device("cpu"))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        (together,), gradients = differentiate(swiglu, (gate, up), (slope,))
        rows = zip(gate.flatten(0, -2).split(1), up.flatten(0, -2).split(1), strict=True)
        alone = torch.cat([swiglu(*row) for row in rows]).view(shape)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone, together)
    for found, expected in zip((together, *gradients), exact(gate, up, slope), strict=True):
        assert is_close(found, expected, roundings=2)


def test_strides_change_nothing_and_inputs_stay(triton_backend: None, device: torch.device) -> None:
    fused = normal((7, 2 * 37), torch.float32, device, seed=3)
    before = fused.clone()
    one = torch.ones((), device=device)
    views = [fused[:, n : n + 9] for n in (0, 9, 18)]
    strided, packed = (
        outcome(swiglu, (gate, up), (slope,))
        for gate, up, slope in (views, [x.contiguous() for x in views])
    )
    assert all(torch.equal(x, y) for x, y in zip(strided, packed, strict=True))
    for gate, up in (
        fused.chunk(2, -1),
        (fused[:, ::2], fused[:, 1::2]),
        (fused.T, (fused + 1).T),
        (fused.unflatten(0, (7, 1))[:, :, :9], fused.unflatten(0, (7, 1))[:, :, 9:18]),
    ):
        slope = one.expand(gate.shape)  # strides of 0, as a sum sends them
        strided, packed = (
            outcome(swiglu, inputs, (slope,))
            for inputs in ((gate, up), (gate.contiguous(), up.contiguous()))
        )
        for x, y in zip(strided, packed, strict=True):
            assert torch.equal(x, y)
    assert torch.equal(fused, before)


@pytest.mark.parametrize("narrow", [0, 1, 2])
def test_every_tensor_has_a_stride_of_its_own(
    narrow: int, backend: str, device: torch.device
) -> None:
    wide = [normal((7, 9 if n == narrow else 40 + n), torch.float32, device, n) for n in range(3)]
    gate, up, slope = (x[:, :9] for x in wide)
    (y,), (dgate, dup) = differentiate(swiglu, (gate, up), (slope,))
    for found, expected in zip((y, dgate, dup), exact(gate, up, slope), strict=True):
        assert is_close(found, expected, roundings=2)


@pytest.mark.parametrize("shape", [(3, 0), (0, 0), (2, 0, 5), (0,)])
def test_no_columns_or_no_rows_give_nothing(
    shape: tuple[int, ...], backend: str, device: torch.device
) -> None:
    empty = torch.empty(shape, device=device)
    for x in outcome(swiglu, (empty, empty), (empty,)):
        assert x.shape == shape and x.dtype == torch.float32


def test_it_compiles_whole(backend: str, device: torch.device) -> None:
    gate, up, slope = projections((5, 37), torch.float32, device)
    operators = compiled_agrees(lambda gate, up: swiglu(gate, up), (gate, up), (slope,))
    wanted = "r1ci.swiglu" if backend == "triton" else "r1ci.silu_of_slices"
    assert any(wanted in operator for operator in operators), operators


def test_one_graph_of_slices_serves_any_number_of_rows() -> None:
    """Traced one by one, slices would make a graph of each number, and none of no rows."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(swiglu, backend=backend, dynamic=True, fullgraph=True)
    with force_backend("torch"):
        for T in (40, 3, 1100, 0):
            gate, up, _ = projections((T, 33), torch.float32, torch.device("cpu"))
            assert torch.equal(compiled(gate, up), swiglu(gate, up))
    assert len(graphs) <= 2  # no rows are a case of their own


def test_slices_of_rows_compile_whole() -> None:
    gate, up, slope = projections((700, 64), torch.float32, torch.device("cpu"))
    compiled_agrees(lambda gate, up: swiglu(gate, up), (gate, up), (slope,))


def test_the_operators_keep_their_promises(triton_backend: None, device: torch.device) -> None:
    gate, up, slope = projections((5, 37), torch.float32, device)
    torch.library.opcheck(_forward, (gate.requires_grad_(), up.requires_grad_()))
    torch.library.opcheck(_backward, (slope, gate.detach(), up.detach()))


def test_the_operator_of_slices_keeps_its_promises() -> None:
    for T in (5, 0):
        gate, _, _ = projections((T, 37), torch.float32, torch.device("cpu"))
        torch.library.opcheck(_silu_of_slices, (gate.requires_grad_(),))


def test_differentiating_twice_is_an_error(triton_backend: None, device: torch.device) -> None:
    gate, up, _ = (x.requires_grad_() for x in projections((2, 5), torch.float32, device))
    (dgate,) = torch.autograd.grad(swiglu(gate, up).sum(), gate, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        torch.autograd.grad(dgate.sum(), gate)


def test_mistakes_are_named(backend: str, device: torch.device) -> None:
    gate, up, _ = projections((5, 37), torch.float32, device)
    with pytest.raises(DataError, match="expected one shape"):
        swiglu(gate, up[:, 1:])
    with pytest.raises(DataError, match="expected one shape"):
        swiglu(gate, up.half())
    with pytest.raises(DataError, match="expected one shape"):
        swiglu(gate[0, 0], up[0, 0])
