"""The gradients that the fused loss hands over: their slope, their types, who gets them, once."""

from dataclasses import replace

import pytest
import torch
from loss_world import (
    BUDGETS,
    TEMPERATURE,
    T,
    error,
    full_loss,
    reference,
    repeated,
    run,
    world,
)

from r1ci_engine.errors import DataError, R1ciError
from r1ci_engine.kernels import (
    PolicyLoss,
    linear_grpo_loss,
    linear_grpo_loss_reference,
)
from r1ci_engine.kernels.policy_loss import Variant


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_follow_the_slope_of_the_loss(dtype: torch.dtype, device: torch.device) -> None:
    """As an accumulation or a scaler asks; powers of two are exact in any type."""
    inputs, tokens = world("dapo", device, dtype)
    loss = full_loss("dapo")
    once, quarter = (run(linear_grpo_loss, inputs, tokens, loss, slope) for slope in (1.0, 0.25))
    for name in ("dhidden", "dweight", "dbias"):
        assert torch.equal(4 * quarter[name], once[name]) and once[name].abs().max() > 0
    thrice = run(linear_grpo_loss, inputs, tokens, loss, 3.0)
    for name in ("dhidden", "dweight", "dbias"):
        assert error(thrice[name], 3 * once[name].double()) < 2 * torch.finfo(dtype).eps


def test_the_gradients_are_handed_over_once(device: torch.device) -> None:
    """A second backward through a kept graph is refused; what was handed over stays whole."""
    inputs, tokens = world("dapo", device)
    hidden_TD = inputs[0].clone().requires_grad_()
    value = linear_grpo_loss(hidden_TD, inputs[1], inputs[3], tokens, full_loss("dapo")).loss
    value.backward(retain_graph=True)
    assert hidden_TD.grad is not None
    first = hidden_TD.grad.clone()
    with pytest.raises(R1ciError, match="handed over"):
        value.backward()
    assert torch.equal(hidden_TD.grad, first)


def test_only_the_loss_carries_a_gradient(device: torch.device) -> None:
    inputs, tokens = world("grpo", device)
    hidden_TD = inputs[0].clone().requires_grad_()
    old_T = torch.zeros(T, device=device, requires_grad=True)
    for fn in (linear_grpo_loss, linear_grpo_loss_reference):
        result = fn(hidden_TD, inputs[1], inputs[3], replace(tokens, old_N=old_T * 1), PolicyLoss())
        assert result.loss.requires_grad
        assert not result.logprob_T.requires_grad and not result.entropy_T.requires_grad
        found = torch.autograd.grad(result.loss, (hidden_TD, old_T), allow_unused=True)
        assert found[0] is not None and found[1] is None


def test_fp16_gradients_survive_small_weights(device: torch.device) -> None:
    """A token in a million: with a scaled loss, as such training has it, nothing is lost."""
    inputs, tokens = world("grpo", device, torch.float16)
    tiny = replace(tokens, weight_N=tokens.weight_N * 1e-6)
    loss = replace(full_loss("grpo"), entropy_coef=0.0)
    right = reference(inputs, tiny, loss)
    found = run(linear_grpo_loss, inputs, tiny, loss, slope=2.0**20)
    for name in ("dhidden", "dweight", "dbias"):
        assert error(found[name], 2.0**20 * right[name]) < 5e-3, name


@pytest.mark.parametrize("variant", ["grpo", "gspo"])
def test_differentiating_twice_is_refused(variant: Variant, device: torch.device) -> None:
    inputs, tokens = world(variant, device)
    hidden_TD = inputs[0].clone().requires_grad_()
    value = linear_grpo_loss(hidden_TD, inputs[1], inputs[3], tokens, full_loss(variant)).loss
    (slope_TD,) = torch.autograd.grad(value, hidden_TD, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        slope_TD.square().sum().backward()


@pytest.mark.parametrize("variant", ["grpo", "gspo"])
@pytest.mark.parametrize("trained", [(0,), (1,), (2,), ()])
def test_a_frozen_side_gets_nothing(
    variant: Variant, trained: tuple[int, ...], backend: str, device: torch.device
) -> None:
    inputs, tokens = world(variant, device)
    loss = full_loss(variant)
    right = reference(inputs, tokens, loss)
    leaves = [x.clone().requires_grad_(at in trained) for at, x in enumerate(inputs[:3])]
    result = linear_grpo_loss(
        leaves[0], leaves[1], inputs[3], tokens, loss, TEMPERATURE, bias_V=leaves[2]
    )
    assert error(result.loss.detach(), right["loss"]) < 1e-4
    assert result.loss.requires_grad == bool(trained)
    if trained:
        result.loss.backward()
    for at, name in enumerate(("dhidden", "dweight", "dbias")):
        gradient = leaves[at].grad
        assert (gradient is not None) == (at in trained)
        if gradient is not None:
            assert error(gradient, right[name]) < 1e-5


@pytest.mark.parametrize("chunk_bytes", BUDGETS)
def test_bf16_is_no_worse_than_the_plain_path(
    chunk_bytes: int | None, device: torch.device
) -> None:
    """Also in many chunks: the head's gradients are summed in fp32."""
    inputs, tokens = repeated(*world("grpo", device, torch.bfloat16), times=16)
    loss = full_loss("grpo")
    right = reference(inputs, tokens, loss)
    plain = run(linear_grpo_loss_reference, inputs, tokens, loss)
    found = run(linear_grpo_loss, inputs, tokens, loss, chunk_bytes=chunk_bytes)
    assert found["loss"].dtype == torch.float32 and found["dweight"].dtype == torch.bfloat16
    for name in ("logprob", "dhidden", "dweight", "dbias"):
        ours, eager = ((x[name].double() - right[name]).norm().item() for x in (found, plain))
        assert ours <= 1.1 * eager, name


@pytest.mark.parametrize("variant", ["grpo", "gspo"])
def test_autocast_rounds_nothing_inside(variant: Variant, device: torch.device) -> None:
    inputs, tokens = world(variant, device)
    outside = run(linear_grpo_loss, inputs, tokens, full_loss(variant))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = run(linear_grpo_loss, inputs, tokens, full_loss(variant))
        assert (inputs[0] @ inputs[1].T).dtype == torch.bfloat16, "it is at work"
    for name, value in outside.items():
        assert torch.equal(inside[name], value), name
    with pytest.raises(DataError, match="one type") as refused:
        linear_grpo_loss(inputs[0].bfloat16(), inputs[1], inputs[3], tokens, full_loss(variant))
    assert "weight.to" in (refused.value.hint or "")


@pytest.mark.parametrize("again", [False, True])
def test_a_third_is_a_third_in_bf16(again: bool, device: torch.device) -> None:
    """The slope keeps its digits, in place and where a graph of backward is wanted.

    In bf16 it would be 1/500 too large, the same for every element: a training rate of its own.
    """
    inputs, tokens = world("dapo", device, torch.bfloat16, D=256)
    hidden_TD, weight_VD, bias_V = (x.clone().requires_grad_() for x in inputs[:3])
    value = linear_grpo_loss(
        hidden_TD, weight_VD, inputs[3], tokens, full_loss("dapo"), TEMPERATURE, bias_V=bias_V
    ).loss
    _, *sums = value.grad_fn.saved_tensors[:4]  # pyright: ignore
    exact = [x.double() / 3 for x in sums]  # a copy: the sums are scaled in place
    found = torch.autograd.grad(value / 3, (hidden_TD, weight_VD, bias_V), create_graph=again)
    eps = torch.finfo(torch.bfloat16).eps
    for name, ours, right in zip(("dhidden", "dweight", "dbias"), found, exact, strict=True):
        assert ours.dtype == torch.bfloat16
        ours, right = ours.detach().double()[right != 0], right[right != 0]
        deviation = ours / right - 1
        assert deviation.abs().max() <= 0.5001 * eps, name
        assert len(right) > 5000 or name == "dbias"
        assert deviation.mean().abs() < 1e-4 or name == "dbias", name


def test_fp16_gradients_turn_with_the_sign_of_the_weights(device: torch.device) -> None:
    """They are made for weights of at most 1, whatever their sign."""
    inputs, tokens = world("grpo", device, torch.float16)
    opposite = replace(tokens, weight_N=-tokens.weight_N)
    loss = full_loss("grpo")
    found, turned = (run(linear_grpo_loss, inputs, each, loss) for each in (tokens, opposite))
    for name in ("loss", "dhidden", "dweight", "dbias"):
        assert torch.equal(turned[name], -found[name]) and found[name].abs().max() > 0, name


@pytest.mark.parametrize("again", [False, True])
def test_fp16_survives_the_first_slope_of_a_scaler(again: bool, device: torch.device) -> None:
    """2^16 is no fp16, but what it makes of these gradients is."""
    inputs, tokens = world("dapo", device, torch.float16)
    tokens = replace(
        tokens, weight_N=(tokens.weight_N != 0).float(), advantage_N=0.02 * tokens.advantage_N
    )
    loss = PolicyLoss("dapo")
    right = reference(inputs, tokens, loss)
    leaves = [x.clone().requires_grad_() for x in inputs[:3]]
    value = linear_grpo_loss(
        *leaves[:2], inputs[3], tokens, loss, TEMPERATURE, bias_V=leaves[2]
    ).loss
    found = torch.autograd.grad(65536 * value, leaves, create_graph=again)
    for name, ours in zip(("dhidden", "dweight", "dbias"), found, strict=True):
        exact = 65536 * right[name]
        assert 1000 < exact.abs().max() < torch.finfo(torch.float16).max, name
        assert ours.isfinite().all() and error(ours.detach(), exact) < 5e-3, name


@pytest.mark.parametrize("variant", ["grpo", "gspo"])
def test_the_heads_gradients_are_summed_in_fp32(variant: Variant, device: torch.device) -> None:
    """Forty chunks are as exact as one; sums in bf16 would be off four times as far."""
    inputs, tokens = repeated(*world(variant, device, torch.bfloat16), times=20)
    loss = full_loss(variant)
    right = reference(inputs, tokens, loss)
    one, many = (run(linear_grpo_loss, inputs, tokens, loss, chunk_bytes=b) for b in BUDGETS)
    for name in ("dweight", "dbias"):
        whole, summed = ((x[name].double() - right[name]).norm().item() for x in (one, many))
        assert 0 < summed <= 1.1 * whole, name


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("dtype", "bias_dtype"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)]
)
def test_a_bias_keeps_its_own_type(
    dtype: torch.dtype, bias_dtype: torch.dtype, again: bool, backend: str, device: torch.device
) -> None:
    """Its gradient is rounded to that type and no other."""
    inputs, tokens = world("grpo", device, dtype)
    inputs[2] = inputs[2].to(bias_dtype)
    loss = full_loss("grpo")
    right = reference(inputs, tokens, loss)
    leaves = [x.clone().requires_grad_() for x in inputs[:3]]
    value = linear_grpo_loss(
        *leaves[:2], inputs[3], tokens, loss, TEMPERATURE, bias_V=leaves[2]
    ).loss
    dhidden_TD, dweight_VD, dbias_V = torch.autograd.grad(value / 3, leaves, create_graph=again)
    assert dhidden_TD.dtype == dweight_VD.dtype == dtype and dbias_V.dtype == bias_dtype
    assert error(3 * dbias_V.detach(), right["dbias"]) < 1e-2
    short = (dbias_V.bfloat16() == dbias_V).all()
    assert short == (bias_dtype == torch.bfloat16), "rounded on the way"
