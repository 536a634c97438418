"""RMSNorm with and without a residual: both twins against fp64, and row by row."""

import pytest
import torch
from row_world import DTYPES, compiled_agrees, differentiate, is_close, normal, outcome, poisoned
from torch import Tensor

from r1ci_engine.errors import DataError
from r1ci_engine.kernels.rms_norm import (
    _backward,
    _forward,
    add_rms_norm,
    add_rms_norm_reference,
    rms_norm,
    rms_norm_reference,
)

EPS = 1e-5
TILE = 64
"""Rows of one tile at the widths below."""


def rows(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """(x, weight, slope of the result); the slope leans on x, so that the projection is large."""
    x = normal(shape, dtype, device, seed=sum(shape)) * 2
    x[:1] *= 2e-3  # here eps is felt
    weight_D = 1 + normal(shape[-1:], torch.float32, device, seed=1) / 4
    slope = x + normal(shape, dtype, device, seed=2)
    return x, weight_D.to(dtype), slope


def exact(x: Tensor, weight_D: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(y, dx, dweight) in fp64."""
    doubles = [t.double() for t in (x, weight_D, slope)]
    (y,), (dx, dweight_D) = differentiate(
        lambda x, w: rms_norm_reference(x, w, EPS), doubles[:2], doubles[2:]
    )
    return y, dx, dweight_D


def cut(x: Tensor, slope: Tensor) -> Tensor:
    """How far dweight may be off because each normed value is rounded before it counts."""
    normed = rms_norm_reference(x.double(), torch.ones(1, device=x.device), EPS)
    return torch.finfo(x.dtype).eps * (normed * slope.double()).abs().flatten(0, -2).sum(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "shape", [(0, 40), (1, 40), (TILE - 1, 40), (TILE + 1, 40), (5 * TILE + 3, 40), (7, 6, 24)]
)
def test_agrees_with_fp64(
    shape: tuple[int, ...], dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    x, weight_D, slope = rows(shape, dtype, device)
    with poisoned():
        (y,), (dx, dweight_D) = differentiate(
            lambda x, w: rms_norm(x, w, EPS), (x, weight_D), (slope,)
        )
    assert y.dtype == dx.dtype == dweight_D.dtype == dtype
    if not shape[0]:
        assert y.shape == dx.shape == shape and (dweight_D == 0).all()
        return
    expected = exact(x, weight_D, slope)
    assert is_close(y, expected[0], roundings=2)
    # The plain path rounds the slope of the normed rows on the way; the kernel does not.
    whole = expected[1].abs().amax(-1, keepdim=True) * torch.finfo(dtype).eps
    assert is_close(dx, expected[1], slack=whole * 3 if backend == "torch" else 0.0)
    assert is_close(dweight_D, expected[2], slack=cut(x, slope) * 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_wide_row_is_one_tile(
    dtype: torch.dtype, triton_backend: None, device: torch.device
) -> None:
    x, weight_D, slope = rows((6, 5120), dtype, device)
    found = differentiate(lambda x, w: rms_norm(x, w, EPS), (x, weight_D), (slope,))
    expected = exact(x, weight_D, slope)
    assert is_close(found[0][0], expected[0], roundings=2)
    assert is_close(found[1][0], expected[1])
    assert is_close(found[1][1], expected[2], slack=cut(x, slope))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", [0, 1, TILE + 1])
def test_the_residual_is_added_first_and_gets_the_same_gradient(
    T: int, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    x_TD, weight_D, slope_TD = rows((T, 40), dtype, device)
    residual_TD, after_TD = (normal((T, 40), dtype, device, seed) for seed in (5, 6))
    with poisoned():
        (y_TD, total_TD), (dx_TD, dresidual_TD, dweight_D) = differentiate(
            lambda x, r, w: add_rms_norm(x, r, w, EPS),
            (x_TD, residual_TD, weight_D),
            (slope_TD, after_TD),
        )
    assert torch.equal(dx_TD, dresidual_TD)
    if not T:
        return
    assert is_close(total_TD, x_TD.double() + residual_TD.double())
    # What follows is a function of the rounded sum.
    expected = exact(total_TD, weight_D, slope_TD)
    eps = torch.finfo(dtype).eps
    whole = eps * (expected[1].abs().amax(-1, keepdim=True) + after_TD.double().abs())
    slack = whole * 3 if backend == "torch" else 0.0
    assert is_close(y_TD, expected[0], roundings=2)
    assert is_close(dx_TD, expected[1] + after_TD.double(), slack=slack)
    assert is_close(dweight_D, expected[2], slack=cut(total_TD, slope_TD) * 2)
    assert not is_close(dx_TD, expected[1], slack=slack), "the sum's own gradient is missing"
    assert not is_close(dx_TD, after_TD.double(), slack=slack), "the norm's gradient is missing"


def test_no_term_of_the_gradients_may_go_missing(backend: str, device: torch.device) -> None:
    x_TD, weight_D, slope_TD = rows((TILE + 5, 40), torch.float32, device)
    _, (dx_TD, dweight_D) = differentiate(
        lambda x, w: rms_norm(x, w, EPS), (x_TD, weight_D), (slope_TD,)
    )
    x_TD, weight_D, slope_TD = (t.double() for t in (x_TD, weight_D, slope_TD))
    r_T1 = torch.rsqrt(x_TD.square().mean(-1, keepdim=True) + EPS)
    n_TD = x_TD * r_T1

    def dx(dn_TD: Tensor, mean_T1: Tensor | float) -> Tensor:
        return r_T1 * (dn_TD - n_TD * mean_T1)

    dn_TD = slope_TD * weight_D
    mean_T1 = (dn_TD * n_TD).mean(-1, keepdim=True)
    assert is_close(dx_TD, dx(dn_TD, mean_T1))
    assert not is_close(dx_TD, dx(dn_TD, 0.0)), "no projection"
    assert not is_close(dx_TD, dx(dn_TD, mean_T1 * 40 / 64)), "mean over the tile's width"
    assert not is_close(dx_TD, dx(slope_TD, mean_T1)), "no weight"
    assert is_close(dweight_D, (slope_TD * n_TD).sum(0))
    assert not is_close(dweight_D, (slope_TD * n_TD)[:-1].sum(0)), "a row lost"
    assert not is_close(dweight_D, (slope_TD * x_TD).sum(0)), "rows not normed"


def test_the_references_are_differentiable(device: torch.device) -> None:
    x_TD, weight_D, residual_TD = (
        normal(shape, torch.float64, device, seed).requires_grad_()
        for seed, shape in enumerate([(3, 5), (5,), (3, 5)])
    )
    assert torch.autograd.gradcheck(lambda x, w: rms_norm_reference(x, w, EPS), (x_TD, weight_D))
    assert torch.autograd.gradcheck(
        lambda x, r, w: add_rms_norm_reference(x, r, w, EPS), (x_TD, residual_TD, weight_D)
    )


def test_rounding_points_are_those_of_the_reference(
    triton_backend: None, device: torch.device
) -> None:
    # fp16, because the interpreter does not round bf16.
    x_TD, weight_D, residual_TD = rows((50, 320), torch.float16, device)
    inputs = (x_TD, residual_TD, weight_D)
    found_TD, total_TD = add_rms_norm(*inputs, EPS)
    expected_TD, expected_total_TD = add_rms_norm_reference(*inputs, EPS)
    assert torch.equal(total_TD, expected_total_TD)

    def alike(other_TD: Tensor) -> float:
        return (found_TD == other_TD.half()).double().mean().item()

    assert alike(expected_TD) > 0.995
    wide_TD = x_TD.float() + residual_TD.float()
    unit_D = torch.ones_like(weight_D)
    for wrong_TD in (
        rms_norm_reference(total_TD.float(), weight_D.float(), EPS),  # normed rows not rounded
        weight_D * rms_norm_reference(wide_TD, unit_D.float(), EPS).half(),  # the sum not rounded
    ):
        assert alike(wrong_TD) < 0.95


def test_a_row_depends_on_itself_alone_and_runs_repeat(backend: str, device: torch.device) -> None:
    x_TD, weight_D, slope_TD = rows((2 * TILE + 9, 40), torch.float32, device)

    def run(order: Tensor) -> list[Tensor]:
        inputs = (x_TD[order], weight_D)
        return outcome(lambda x, w: rms_norm(x, w, EPS), inputs, (slope_TD[order],))

    everything = torch.arange(len(x_TD), device=device)
    whole = run(everything)
    assert all(torch.equal(one, other) for one, other in zip(whole, run(everything), strict=True))
    for order in (everything.flip(0), everything[70:], everything[5:6]):
        y_TD, dx_TD, _ = run(order)
        assert torch.equal(y_TD, whole[0][order]) and torch.equal(dx_TD, whole[1][order])


def test_strides_change_nothing_and_inputs_stay(triton_backend: None, device: torch.device) -> None:
    # Of another width, a GPU reads packed rows in other pieces, and adds them in another order.
    fused_THD = normal((9, 6, 32), torch.float32, device, seed=3)
    before_THD = fused_THD.clone()
    weight_D = normal((32,), torch.float32, device, seed=4)
    slope = torch.ones((), device=device)
    for view in (
        fused_THD[:, 1:4],
        fused_THD[:, 2],
        fused_THD[::2, 0],
        fused_THD.mT[:, :, :, None],
    ):
        weight = weight_D[: view.shape[-1]]
        strided, packed = (
            outcome(lambda x, w: rms_norm(x, w, EPS), (x, weight), (slope.expand(x.shape),))
            for x in (view, view.contiguous())
        )
        for one, other in zip(strided, packed, strict=True):
            assert torch.equal(one, other)
    views = [fused_THD[:, n] for n in range(4)]
    strided, packed = (
        outcome(lambda *x: add_rms_norm(*x, EPS), (x_TD, residual_TD, weight_D), slopes)
        for x_TD, residual_TD, *slopes in (views, [x.contiguous() for x in views])
    )
    for one, other in zip(strided, packed, strict=True):
        assert torch.equal(one, other)
    assert torch.equal(fused_THD, before_THD)


def test_a_wider_weight_widens_the_result(backend: str, device: torch.device) -> None:
    x_TD, weight_D, _ = rows((5, 40), torch.float16, device)
    y_TD = rms_norm(x_TD, weight_D.float(), EPS)
    assert y_TD.dtype == torch.float32
    assert is_close(y_TD.half(), exact(x_TD, weight_D, x_TD)[0], roundings=2)


def test_one_result_may_go_unused(triton_backend: None, device: torch.device) -> None:
    x_TD, weight_D, _ = rows((5, 40), torch.float32, device)
    for unused in (0, 1):
        leaves = [t.clone().requires_grad_() for t in (x_TD, x_TD, weight_D)]
        found, expected = (
            torch.autograd.grad(f(*leaves, EPS)[1 - unused].sum(), leaves[:2])
            for f in (add_rms_norm, add_rms_norm_reference)
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_it_compiles_whole(backend: str, device: torch.device) -> None:
    x_TD, weight_D, slope_TD = rows((5, 40), torch.float32, device)

    def both(x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor) -> tuple[Tensor, Tensor]:
        y_TD, total_TD = add_rms_norm(x_TD, residual_TD, weight_D, EPS)
        return rms_norm(y_TD, weight_D, EPS), total_TD

    operators = compiled_agrees(both, (x_TD, x_TD + 1, weight_D), (slope_TD, slope_TD + 1))
    assert any("r1ci" in operator for operator in operators) == (backend == "triton")


def test_the_operators_keep_their_promises(triton_backend: None, device: torch.device) -> None:
    x_TD, weight_D, slope_TD = rows((5, 40), torch.float32, device)
    leaves = [t.clone().requires_grad_() for t in (x_TD, weight_D)]
    torch.library.opcheck(_forward, (leaves[0], None, leaves[1], EPS))
    torch.library.opcheck(_forward, (leaves[0], x_TD, leaves[1], EPS))
    torch.library.opcheck(_backward, (slope_TD, None, x_TD, weight_D, EPS))
    short = [t.half() for t in (slope_TD, slope_TD, x_TD, weight_D)]  # sums are of another type
    torch.library.opcheck(_backward, (*short, EPS))


def test_differentiating_twice_is_an_error(triton_backend: None, device: torch.device) -> None:
    x_TD, weight_D, _ = (t.requires_grad_() for t in rows((3, 8), torch.float32, device))
    (dx_TD,) = torch.autograd.grad(rms_norm(x_TD, weight_D, EPS).sum(), x_TD, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        torch.autograd.grad(dx_TD.sum(), x_TD)


@pytest.mark.parametrize("narrow", range(4))
def test_every_tensor_has_a_stride_of_its_own(
    narrow: int, backend: str, device: torch.device
) -> None:
    wide = [normal((7, 24 if n == narrow else 40 + n), torch.float32, device, n) for n in range(4)]
    x_TD, residual_TD, slope_TD, after_TD = (t[:, :24] for t in wide)
    weight_D = normal((48,), torch.float32, device, seed=9)[::2]
    found = outcome(
        lambda *t: add_rms_norm(*t, EPS), (x_TD, residual_TD, weight_D), (slope_TD, after_TD)
    )
    (y_TD,), (dx_TD, dweight_D) = differentiate(
        lambda x, w: rms_norm(x, w, EPS), (x_TD, weight_D), (slope_TD,)
    )
    total_TD = x_TD + residual_TD
    y, dx, dweight = exact(total_TD, weight_D, slope_TD)
    expected = (y, total_TD.double(), *(dx + after_TD.double(),) * 2, dweight)
    alone = exact(x_TD, weight_D, slope_TD)
    for one, other in zip([*found, y_TD, dx_TD, dweight_D], [*expected, *alone], strict=True):
        assert is_close(one, other, roundings=8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_weights_gradient_is_rounded_once_after_all_is_summed(
    dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    # Four programs, whose shares cancel but for a hundredth.
    x_TD, weight_D, _ = rows((TILE, 40), torch.float32, device)
    slope_TD = x_TD.sign() + normal((TILE, 40), torch.float32, device, seed=2)
    x_TD = x_TD.repeat(4, 1)
    slope_TD = torch.cat([slope_TD, slope_TD * -0.99, slope_TD, slope_TD * -0.99])
    weight_D = weight_D.to(dtype)
    _, (_, dweight_D) = differentiate(
        lambda x, w: rms_norm(x, w, EPS), (x_TD, weight_D), [slope_TD]
    )
    normed_TD = rms_norm_reference(x_TD.double(), torch.ones_like(weight_D), EPS)
    shares_PD = (normed_TD * slope_TD.double()).unflatten(0, (4, TILE)).sum(1)
    exact_D = shares_PD.sum(0)
    slack = 2e-6 * shares_PD.abs().sum(0)  # of fp32 sums
    assert dweight_D.dtype == dtype
    assert is_close(dweight_D, exact_D, slack=slack)
    assert not is_close(shares_PD.to(dtype).double().sum(0).to(dtype), exact_D, slack=slack)


def test_the_weights_gradient_counts_what_the_weight_multiplied(
    triton_backend: None, device: torch.device
) -> None:
    # fp16, because the interpreter does not round bf16; a wide weight, so that nothing hides it.
    x_TD, weight_D, slope_TD = rows((30, 60), torch.float16, device)
    _, (_, dweight_D) = differentiate(
        lambda x, w: rms_norm(x, w, EPS), (x_TD, weight_D.float()), (slope_TD,)
    )
    normed_TD = rms_norm_reference(x_TD.float(), torch.ones_like(weight_D), EPS)

    def alike(n_TD: Tensor) -> float:
        each_TD = n_TD.double() * slope_TD.double()
        off_D = (dweight_D.double() - each_TD.sum(0)).abs()
        return (off_D < 2e-6 * each_TD.abs().sum(0)).double().mean().item()

    assert alike(normed_TD.half()) > 0.9 > 0.2 > alike(normed_TD)


@pytest.mark.parametrize("shape", [(3, 0), (0, 0), (2, 0, 5), (0,)])
def test_no_columns_or_no_rows_give_nothing(
    shape: tuple[int, ...], backend: str, device: torch.device
) -> None:
    empty, weight_D = torch.empty(shape, device=device), torch.ones(shape[-1:], device=device)
    alone = outcome(lambda x, w: rms_norm(x, w, EPS), (empty, weight_D), (empty,))
    added = outcome(lambda *x: add_rms_norm(*x, EPS), (empty, empty, weight_D), (empty, empty))
    for *rows_like, dweight_D in (alone, added):
        assert all(x.shape == shape for x in rows_like) and len(rows_like) in (2, 4)
        assert dweight_D.shape == weight_D.shape and (dweight_D == 0).all()


def test_mistakes_are_named(backend: str, device: torch.device) -> None:
    x_TD, weight_D, _ = rows((5, 40), torch.float32, device)
    with pytest.raises(DataError, match=r"expected \[..., D\] and \[D\]"):
        rms_norm(x_TD, weight_D[1:], EPS)
    with pytest.raises(DataError, match=r"expected \[..., D\] and \[D\]"):
        rms_norm(x_TD[0, 0], weight_D[0], EPS)
    with pytest.raises(DataError, match="the residual is"):
        add_rms_norm(x_TD, x_TD[:1], weight_D, EPS)
    for eps in (0.0, -1e-6, float("nan")):
        with pytest.raises(DataError, match=f"eps is `{eps}"):
            rms_norm(x_TD, weight_D, eps)


def test_fp64_is_not_rounded_quietly(backend: str, device: torch.device) -> None:
    x_TD, weight_D, _ = rows((5, 40), torch.float64, device)
    if backend == "torch":
        assert rms_norm(x_TD, weight_D, EPS).dtype == torch.float64
        return
    with pytest.raises(DataError, match="round to fp32"):
        rms_norm(x_TD, weight_D, EPS)
    with pytest.raises(DataError, match="round to fp32"):
        add_rms_norm(x_TD.float(), x_TD, weight_D, EPS)


def test_a_residual_of_another_type_is_added_as_torch_adds(
    backend: str, device: torch.device
) -> None:
    x_TD, weight_D, slope = rows((5, 40), torch.float16, device)
    residual_TD = normal((5, 40), torch.float32, device, seed=9)
    slopes = (slope, slope.flip(0))
    for inputs in ((x_TD, residual_TD, weight_D), (residual_TD, x_TD, weight_D)):
        found = outcome(lambda *x: add_rms_norm(*x, EPS), inputs, slopes)
        expected = outcome(lambda *x: add_rms_norm_reference(*x, EPS), inputs, slopes)
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype and other.abs().max() > 0.1
            torch.testing.assert_close(
                one, other, rtol=2e-3 if one.dtype == torch.half else 1e-5, atol=1e-5
            )
        assert found[1].dtype == torch.float32 and found[2].dtype == inputs[0].dtype


def test_backward_hands_each_gradient_over_in_its_own_type(
    triton_backend: None, device: torch.device
) -> None:
    """Asked without autograd's engine, which would put a wrong type right in silence."""
    x_TD, weight_D, slope_TD = rows((5, 40), torch.float16, device)
    residual_TD = normal((5, 40), torch.float32, device, seed=9)
    for inputs in ((x_TD, residual_TD, weight_D), (residual_TD, x_TD, weight_D)):
        leaves = [t.clone().requires_grad_() for t in inputs]
        y_TD, _ = add_rms_norm(*leaves, EPS)
        for after_TD in (slope_TD.float(), None):
            slopes = (slope_TD.to(y_TD.dtype), after_TD)
            gradients = [g for g in y_TD.grad_fn.apply(*slopes) if g is not None]  # type: ignore
            assert [g.dtype for g in gradients] == [t.dtype for t in inputs]
