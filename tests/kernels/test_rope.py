"""Rotation of query and key heads: both twins against fp64 and against complex numbers."""

from importlib import import_module

import pytest
import torch
from row_world import DTYPES, compiled_agrees, differentiate, is_close, normal, outcome, poisoned
from torch import Tensor

from r1ci_engine.errors import DataError
from r1ci_engine.kernels import force_backend
from r1ci_engine.kernels.rope import _rope, rope, rope_reference

H, K, D = 5, 2, 24


def heads(T: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    q_THD, k_TKD = (normal((T, n, D), dtype, device, seed=n) for n in (H, K))
    return q_THD, k_TKD


def tables(T: int, device: torch.device, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    angle_TF = torch.arange(T)[:, None] * 0.7 ** torch.arange(D // 2)[None, :] + 0.1
    return (angle_TF.cos() * factor).to(device), (angle_TF.sin() * factor).to(device)


def turned(x_THD: Tensor, cos_TF: Tensor, sin_TF: Tensor) -> Tensor:
    """The same in complex numbers and fp64."""
    first_THF, second_THF = x_THD.double().chunk(2, -1)
    angle_TF = torch.complex(cos_TF.double(), sin_TF.double())
    y_THF = torch.complex(first_THF, second_THF) * angle_TF[:, None]
    return torch.cat([y_THF.real, y_THF.imag], -1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("T", [0, 1, 7])
@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_agrees_with_fp64(
    T: int, factor: float, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    q_THD, k_TKD = heads(T, dtype, device)
    dq_THD, dk_TKD = (x.roll(1, -1) for x in heads(T, dtype, device))
    cos_TF, sin_TF = tables(T, device, factor)
    with poisoned():
        found, gradients = differentiate(
            lambda q, k: rope(q, k, cos_TF, sin_TF), (q_THD, k_TKD), (dq_THD, dk_TKD)
        )
    for x, y, dy, dx in zip((q_THD, k_TKD), found, (dq_THD, dk_TKD), gradients, strict=True):
        assert y.dtype == dx.dtype == dtype
        assert is_close(y, turned(x, cos_TF, sin_TF))
        assert is_close(dx, turned(dy, cos_TF, -sin_TF))
        if T:  # each of these is a bug that the comparisons above have to notice
            assert not is_close(y, turned(x, cos_TF, -sin_TF)), "the wrong way"
            assert not is_close(dx, turned(dy, cos_TF, sin_TF)), "not the transpose"
            assert not is_close(dx, turned(dy, cos_TF, 0 * sin_TF)), "a term lost"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_twins_agree_in_every_bit(
    dtype: torch.dtype, triton_backend: None, device: torch.device
) -> None:
    # Not in bf16, which the interpreter does not round.
    inputs, angles = heads(6, dtype, device), tables(6, device)

    def run() -> list[Tensor]:
        return outcome(lambda q, k: rope(q, k, *angles), inputs, inputs)

    by_triton = run()
    with force_backend("torch"):
        by_torch = run()
    assert all(torch.equal(one, other) for one, other in zip(by_triton, by_torch, strict=True))


def test_turning_back_gives_the_heads_again(backend: str, device: torch.device) -> None:
    inputs = heads(6, torch.float32, device)
    cos_TF, sin_TF = tables(6, device)
    back = rope(*rope(*inputs, cos_TF, sin_TF), cos_TF, -sin_TF)
    for x, y in zip(inputs, back, strict=True):
        assert is_close(y, x.double(), roundings=4)


def test_the_reference_is_differentiable(device: torch.device) -> None:
    q_THD, k_TKD = (x.requires_grad_() for x in heads(2, torch.float64, device))
    cos_TF, sin_TF = (x.double() for x in tables(2, device))
    assert torch.autograd.gradcheck(
        lambda q, k: rope_reference(q, k, cos_TF, sin_TF), (q_THD, k_TKD)
    )


def test_a_token_depends_on_itself_alone_and_runs_repeat(
    backend: str, device: torch.device
) -> None:
    inputs, angles = heads(9, torch.float32, device), tables(9, device)

    def run(order: Tensor) -> list[Tensor]:
        q_THD, k_TKD, cos_TF, sin_TF = (x[order] for x in (*inputs, *angles))
        slopes = (q_THD + 1, k_TKD - 1)
        return outcome(lambda q, k: rope(q, k, cos_TF, sin_TF), (q_THD, k_TKD), slopes)

    everything = torch.arange(9, device=device)
    whole = run(everything)
    for order in (everything, everything.flip(0), everything[4:5]):
        for alone, together in zip(run(order), whole, strict=True):
            assert torch.equal(alone, together[order])


def test_strides_change_nothing_and_inputs_stay(backend: str, device: torch.device) -> None:
    fused_TXD = normal((7, H + 2 * K, D), torch.float32, device, seed=3)
    before_TXD = fused_TXD.clone()
    cos_TF, sin_TF = (torch.cat([x, x], -1) for x in tables(7, device))
    tight = [x[:, : D // 2].contiguous() for x in (cos_TF, sin_TF)]
    wide = [x[:, : D // 2] for x in (cos_TF, sin_TF)]
    one = torch.ones((), device=device)
    for q_THD, k_TKD in (
        (fused_TXD[:, :H], fused_TXD[:, H : H + K]),
        (fused_TXD[:, ::2], fused_TXD[:, 1:3]),
        (fused_TXD.mT.contiguous().mT, fused_TXD.transpose(0, 1).contiguous().transpose(0, 1)),
    ):
        slopes = [one.expand(x.shape) for x in (q_THD, k_TKD)]  # strides of 0, as a sum sends them
        strided, packed = (
            outcome(lambda q, k, t=t: rope(q, k, *t), inputs, slopes)
            for inputs, t in (
                ((q_THD, k_TKD), wide),
                ((q_THD.contiguous(), k_TKD.contiguous()), tight),
            )
        )
        for x, y in zip(strided, packed, strict=True):
            assert torch.equal(x, y)
    assert torch.equal(fused_TXD, before_TXD)


def test_every_table_has_strides_of_its_own(backend: str, device: torch.device) -> None:
    inputs, (cos_TF, sin_TF) = heads(7, torch.float32, device), tables(7, device)
    slopes = [x.roll(1, -1) for x in inputs]
    wide_TF = cos_TF.repeat(1, 2)[:, : D // 2]
    for cosines_TF, sines_TF in (
        (wide_TF, sin_TF),
        (cos_TF, sin_TF.repeat(1, 3)[:, : D // 2]),
        (cos_TF.repeat_interleave(2, 1)[:, ::2], sin_TF),
        (cos_TF, sin_TF.T.contiguous().T),
        (cos_TF[:1].expand(7, -1), sin_TF[:1].expand(7, -1)),
    ):
        found, gradients = differentiate(
            lambda q, k, c=cosines_TF, s=sines_TF: rope(q, k, c, s), inputs, slopes
        )
        for x, y, dy, dx in zip(inputs, found, slopes, gradients, strict=True):
            assert is_close(y, turned(x, cosines_TF, sines_TF))
            assert is_close(dx, turned(dy, cosines_TF, -sines_TF))


def test_it_is_linear_however_often_it_is_differentiated(
    backend: str, device: torch.device
) -> None:
    """Slopes of slopes turn forward again, and theirs back again."""
    angles = cos_TF, sin_TF = tables(5, device, factor=1.3)
    inputs = [x.requires_grad_() for x in heads(5, torch.float32, device)]
    slopes = [(x + 1).detach().requires_grad_() for x in inputs]
    others = [x.detach().flip(-1).requires_grad_() for x in inputs]
    results = rope(*inputs, *angles)
    first = torch.autograd.grad(results, inputs, slopes, create_graph=True)
    second = torch.autograd.grad(first, slopes, others, create_graph=True)
    third = torch.autograd.grad(second, others, slopes)
    for slope, other, by_x, by_slope, by_other in zip(
        slopes, others, first, second, third, strict=True
    ):
        slope, other = slope.detach(), other.detach()
        assert is_close(by_x.detach(), turned(slope, cos_TF, -sin_TF))
        assert is_close(by_slope.detach(), turned(other, cos_TF, sin_TF))
        assert not is_close(by_slope.detach(), turned(other, cos_TF, -sin_TF)), "the wrong way"
        assert is_close(by_other, turned(slope, cos_TF, -sin_TF))
        assert not is_close(by_other, turned(slope, cos_TF, sin_TF)), "the wrong way"


def test_no_tokens_start_no_kernel(
    backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_module(rope.__module__), "launch", None)
    inputs, angles = heads(0, torch.float32, device), tables(0, device)
    for x, like in zip(
        outcome(lambda q, k: rope(q, k, *angles), inputs, inputs), inputs * 2, strict=True
    ):
        assert x.shape == like.shape


def test_one_result_may_go_unused(backend: str, device: torch.device) -> None:
    q_THD, k_TKD = (x.requires_grad_() for x in heads(4, torch.float32, device))
    cos_TF, sin_TF = tables(4, device)
    (dq_THD,) = torch.autograd.grad(rope(q_THD, k_TKD, cos_TF, sin_TF)[0].sum(), q_THD)
    assert is_close(dq_THD, turned(torch.ones_like(q_THD), cos_TF, -sin_TF))


def test_it_compiles_whole(backend: str, device: torch.device) -> None:
    inputs, angles = heads(5, torch.float32, device), tables(5, device)
    slopes = [x + 1 for x in inputs]
    operators = compiled_agrees(lambda q, k: rope(q, k, *angles), inputs, slopes)
    assert any("r1ci" in operator for operator in operators) == (backend == "triton")


def test_the_operator_keeps_its_promises(triton_backend: None, device: torch.device) -> None:
    q_THD, k_TKD = (x.requires_grad_() for x in heads(3, torch.float32, device))
    torch.library.opcheck(_rope, (q_THD, k_TKD, *tables(3, device), False))


def test_mistakes_are_named(backend: str, device: torch.device) -> None:
    (q_THD, k_TKD), (cos_TF, sin_TF) = heads(4, torch.float32, device), tables(4, device)
    with pytest.raises(DataError, match="queries and keys have shapes"):
        rope(q_THD[:3], k_TKD, cos_TF, sin_TF)
    for q, k in (
        (q_THD[0], k_TKD[0]),
        (q_THD[..., None], k_TKD),
        (q_THD, k_TKD[..., None]),
        (q_THD[..., None], k_TKD[..., None]),
        (q_THD, k_TKD[..., 2:]),
    ):
        with pytest.raises(DataError, match="queries and keys have shapes"):
            rope(q, k, cos_TF, sin_TF)
    with pytest.raises(DataError, match="expected one type"):
        rope(q_THD, k_TKD.half(), cos_TF, sin_TF)
    with pytest.raises(DataError, match="a table of angles"):
        rope(q_THD, k_TKD, cos_TF, sin_TF[:3])
    with pytest.raises(DataError, match="a table of angles"):
        rope(q_THD, k_TKD, cos_TF[:, 1:], sin_TF)
    with pytest.raises(DataError, match="D even"):
        rope(q_THD[..., 1:], k_TKD[..., 1:], cos_TF, sin_TF)
