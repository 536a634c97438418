"""The fused loss: against fp64 and the plain path, whatever the loss, the mask and the chunks."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from loss_world import (
    BUDGETS,
    LENGTHS,
    TEMPERATURE,
    VARIANTS,
    D,
    T,
    V,
    agree,
    error,
    full_loss,
    in_fp64,
    reference,
    run,
    world,
)

from r1ci_engine.errors import DataError
from r1ci_engine.kernels import (
    PolicyLoss,
    Tokens,
    force_backend,
    linear_cross_entropy,
    linear_grpo_loss,
    linear_grpo_loss_reference,
    linear_logprob_reference,
)
from r1ci_engine.kernels.policy_loss import Variant


@pytest.mark.parametrize("chunk_bytes", BUDGETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_fp64(
    variant: Variant, chunk_bytes: int | None, backend: str, device: torch.device
) -> None:
    """Uneven lengths, tool mask, divergence, bonus, ratios, temperature, bias; no term may go."""
    inputs, tokens = world(variant, device)
    loss = full_loss(variant)
    right = reference(inputs, tokens, loss)
    found = run(linear_grpo_loss, inputs, tokens, loss, chunk_bytes=chunk_bytes)
    agree(found, right, 1e-5)
    assert found["loss"].dtype == found["logprob"].dtype == torch.float32

    assert tokens.old_N is not None
    changes: dict[str, Any] = {
        "divergence": (tokens, replace(loss, kl_coef=0.2)),
        "bonus": (tokens, replace(loss, entropy_coef=0.0)),
        "importance": (tokens, replace(loss, mismatch="none")),
        "clip": (tokens, replace(loss, clip_low=0.9, clip_high=0.3)),
        "ratio": (replace(tokens, old_N=tokens.old_N + 0.1), loss),
        "mask": (replace(tokens, weight_N=tokens.weight_N.clamp(min=1e-3)), loss),
        "advantage": (replace(tokens, advantage_N=tokens.advantage_N.neg()), loss),
    }
    for term, (other_tokens, other_loss) in changes.items():
        broken = run(linear_grpo_loss, inputs, other_tokens, other_loss, chunk_bytes=chunk_bytes)
        for name in ("dhidden", "dweight", "dbias"):
            assert error(broken[name], right[name]) > 1e-4, (term, name)


@pytest.mark.parametrize("rows", [1, 15, 16, 17, 33])
@pytest.mark.parametrize("chunk_bytes", BUDGETS)
def test_any_number_of_rows(
    rows: int, chunk_bytes: int | None, backend: str, device: torch.device
) -> None:
    inputs, tokens = world("dapo", device)
    inputs, tokens = [inputs[0][:rows], *inputs[1:3], inputs[3][:rows]], tokens.at(slice(0, rows))
    right = reference(inputs, tokens, full_loss("dapo"))
    agree(
        run(linear_grpo_loss, inputs, tokens, full_loss("dapo"), chunk_bytes=chunk_bytes),
        right,
        1e-5,
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_truncated_importance_agrees_with_fp64(
    variant: Variant, backend: str, device: torch.device
) -> None:
    inputs, tokens = world(variant, device)
    loss = replace(full_loss(variant), mismatch="tis", kl_coef=0.0, entropy_coef=0.0)
    right = reference(inputs, tokens, loss)
    agree(run(linear_grpo_loss, inputs, tokens, loss), right, 1e-5)
    without = run(linear_grpo_loss, inputs, tokens, replace(loss, mismatch="none"))
    assert error(without["dhidden"], right["dhidden"]) > 1e-3


@pytest.mark.parametrize("variant", [v for v in VARIANTS if v != "cispo"])
def test_the_reference_has_the_slopes_of_its_values(variant: Variant, device: torch.device) -> None:
    """Finite differences; a divergence, weights and cispo have stated slopes instead."""
    (hidden_TD, weight_VD, bias_V, target_T), tokens = in_fp64(*world(variant, device, D=4))
    loss = PolicyLoss(variant, clip_low=0.1, clip_high=0.15, entropy_coef=0.1)
    rows, few = slice(0, 12), 11
    leaves = [x.clone().requires_grad_() for x in (hidden_TD[rows], weight_VD[:few], bias_V[:few])]
    target_T, tokens = target_T[rows] % few, tokens.at(rows)
    present_T, _ = linear_logprob_reference(*leaves[:2], target_T, bias_V=leaves[2])
    apart_T = torch.linspace(-0.3, 0.3, len(target_T), dtype=torch.float64, device=device)
    tokens = replace(tokens, old_N=present_T.detach() + apart_T)
    assert torch.autograd.gradcheck(
        lambda h, w, b: linear_grpo_loss_reference(h, w, target_T, tokens, loss, bias_V=b).loss,
        leaves,
    )


@pytest.mark.parametrize("kl", ["k1", "k2", "k3"])
def test_the_estimate_shows_in_the_loss_and_not_in_the_gradient(
    kl: str, device: torch.device
) -> None:
    inputs, tokens = world("grpo", device)
    loss = replace(full_loss("grpo"), kl=kl)  # pyright: ignore[reportArgumentType]
    found, k3 = (
        run(linear_grpo_loss, inputs, tokens, each) for each in (loss, replace(loss, kl="k3"))
    )
    agree(found, reference(inputs, tokens, loss), 1e-5)
    assert torch.equal(found["dweight"], k3["dweight"])
    assert (found["loss"] == k3["loss"]) == (kl == "k3")


@pytest.mark.parametrize("variant", VARIANTS)
def test_micro_batches_add_up(variant: Variant, device: torch.device) -> None:
    """Gradients of two calls on parts are those of one call on the whole."""
    inputs, tokens = world(variant, device)
    loss = full_loss(variant)
    whole = run(linear_grpo_loss, inputs, tokens, loss)
    cut = LENGTHS[0] + LENGTHS[1]
    parts = []
    for rows in (slice(0, cut), slice(cut, T)):
        part = [inputs[0][rows], inputs[1], inputs[2], inputs[3][rows]]
        parts.append(run(linear_grpo_loss, part, tokens.at(rows), loss))
    for name in ("loss", "dweight", "dbias"):
        assert error(parts[0][name] + parts[1][name], whole[name]) < 1e-5, name
    together = torch.cat([part["dhidden"] for part in parts])
    assert error(together, whole["dhidden"]) < 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
def test_masked_rows_are_never_read(variant: Variant, backend: str, device: torch.device) -> None:
    """Whatever stands there, even what is no number and no token."""
    inputs, tokens = world(variant, device)
    loss = full_loss(variant)
    clean = run(linear_grpo_loss, inputs, tokens, loss)
    masked_T = tokens.weight_N == 0
    assert masked_T.any()
    inputs[0][masked_T] = float("nan")
    inputs[3][masked_T] = -100
    spoilt = {
        name: x.masked_fill(masked_T, float("nan"))
        if x is not None and x.is_floating_point()
        else x
        for name, x in vars(tokens).items()
        if name != "weight_N"
    }
    found = run(linear_grpo_loss, inputs, Tokens(weight_N=tokens.weight_N, **spoilt), loss)  # pyright: ignore
    for name, value in clean.items():
        assert torch.equal(found[name], value), name
    assert (found["dhidden"][masked_T] == 0).all() and (found["logprob"][masked_T] == 0).all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_same_bits_for_any_chunks_and_again(
    variant: Variant, backend: str, device: torch.device
) -> None:
    if device.type != "cpu":
        pytest.skip("holds for a CPU product; cuBLAS chooses its order by shape")
    inputs, tokens = world(variant, device, D=576)
    for loss in (full_loss(variant), PolicyLoss(variant, clip_low=0.1, clip_high=0.15)):
        whole = run(linear_grpo_loss, inputs, tokens, loss)
        chunked = run(linear_grpo_loss, inputs, tokens, loss, chunk_bytes=1)
        again = run(linear_grpo_loss, inputs, tokens, loss)
        for name in ("loss", "logprob", "entropy", "dhidden"):
            assert torch.equal(whole[name], chunked[name]), name
        for name, value in whole.items():
            assert torch.equal(again[name], value), name
        for rows in (1, 17, 33):
            part = [inputs[0][-rows:], *inputs[1:3], inputs[3][-rows:]]
            if variant != "gspo":  # there the neighbours of one's sequence matter
                few = run(linear_grpo_loss, part, tokens.at(slice(T - rows, T)), loss)
                assert torch.equal(few["dhidden"], whole["dhidden"][-rows:]), rows


def test_the_order_of_rows_does_not_matter(backend: str, device: torch.device) -> None:
    inputs, tokens = world("grpo", device)
    order_T = torch.randperm(T, generator=torch.Generator().manual_seed(0)).to(device)
    found = run(linear_grpo_loss, inputs, tokens, full_loss("grpo"))
    shuffled = run(
        linear_grpo_loss,
        [inputs[0][order_T], inputs[1], inputs[2], inputs[3][order_T]],
        tokens.at(order_T),
        full_loss("grpo"),
    )
    assert torch.equal(shuffled["dhidden"], found["dhidden"][order_T])
    assert error(shuffled["dweight"], found["dweight"]) < 1e-5


def test_a_tied_head_gathers_both_gradients(device: torch.device) -> None:
    """The weight is embedding and head at once."""
    inputs, tokens = world("grpo", device)
    loss = full_loss("grpo")
    ids_T = torch.arange(T, device=device) * 3 % V
    gradients = []
    for fn, double in ((linear_grpo_loss, False), (linear_grpo_loss_reference, True)):
        (_, weight_VD, _, target_T), known = in_fp64(inputs, tokens) if double else (inputs, tokens)
        weight_VD = weight_VD.clone().requires_grad_()
        fn(F.embedding(ids_T, weight_VD).tanh(), weight_VD, target_T, known, loss).loss.backward()
        gradients.append(weight_VD.grad)
    assert error(gradients[0], gradients[1]) < 1e-5


def test_a_padded_vocabulary_is_cut_by_a_view(backend: str, device: torch.device) -> None:
    """Rows above the tokenizer's take part on neither side, and their gradient is zero."""
    inputs, tokens = world("grpo", device)
    loss = full_loss("grpo")
    right = reference(inputs, tokens, loss)
    padded_WD = torch.cat([inputs[1], 1e3 * torch.ones(5, D, device=device)]).requires_grad_()
    result = linear_grpo_loss(
        inputs[0], padded_WD[:V], inputs[3], tokens, loss, TEMPERATURE, bias_V=inputs[2]
    )
    result.loss.backward()
    assert padded_WD.grad is not None and (padded_WD.grad[V:] == 0).all()
    assert error(padded_WD.grad[:V], right["dweight"]) < 1e-5


@pytest.mark.parametrize("offset", [1e4, -1e4])
def test_a_common_offset_changes_nothing(offset: float, backend: str, device: torch.device) -> None:
    """Also when all logits are far below zero; fp32 keeps about three digits of them there."""
    inputs, tokens = world("grpo", device)
    right = reference(inputs, tokens, PolicyLoss())
    inputs[2] = inputs[2] + offset
    found = run(linear_grpo_loss, inputs, tokens, PolicyLoss())
    assert error(found["logprob"], right["logprob"]) < 1e-3
    assert error(found["dhidden"], right["dhidden"]) < 1e-2


def test_no_rows_and_no_weights(backend: str, device: torch.device) -> None:
    inputs, tokens = world("grpo", device)
    for variant in VARIANTS:
        empty = [inputs[0][:0], inputs[1], inputs[2], inputs[3][:0]]
        nothing = replace(tokens, weight_N=torch.zeros_like(tokens.weight_N))
        for found in (
            run(linear_grpo_loss, empty, tokens.at(slice(0, 0)), full_loss(variant)),
            run(linear_grpo_loss, inputs, nothing, full_loss(variant)),
        ):
            assert found["loss"] == 0
            assert all((found[name] == 0).all() for name in ("dhidden", "dweight", "dbias"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_weight_below_zero_counts(variant: Variant, device: torch.device) -> None:
    """Also where there is no advantage, and as a token of its sequence."""
    inputs, tokens = world(variant, device)
    signs_T = 1 - 2 * (torch.arange(T, device=device) % 3 == 0).float()
    mixed = replace(tokens, weight_N=signs_T * tokens.weight_N)
    for loss in (full_loss(variant), PolicyLoss(variant, clip_low=0.1, clip_high=0.15)):
        right = reference(inputs, mixed, loss)
        assert ((right["logprob"] != 0) == (mixed.weight_N != 0)).all()
        agree(run(linear_grpo_loss, inputs, mixed, loss), right, 1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.int64])
@pytest.mark.parametrize("variant", ["grpo", "gspo"])
def test_tokens_of_any_type_are_taken_as_fp32(
    variant: Variant, dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    """Whether log-probabilities or advantages and weights; the statistics' type is fp32."""
    inputs, tokens = world(variant, device)
    fields = ["advantage_N", "weight_N"]
    if dtype.is_floating_point:
        fields += ["old_N", "reference_N", "sampler_N"]
    else:
        tokens = replace(tokens, weight_N=2 * (tokens.weight_N != 0).float())
    for names in (fields[:1], fields[1:2], fields[2:]):
        short = replace(tokens, **{name: getattr(tokens, name).to(dtype) for name in names})
        wide = replace(tokens, **{name: getattr(short, name).float() for name in names})
        found, expected = (
            run(linear_grpo_loss, inputs, each, full_loss(variant)) for each in (short, wide)
        )
        for name, value in expected.items():
            assert value.abs().max() > 0 and found[name].dtype == torch.float32
            assert torch.equal(found[name], value), (names, name)


@pytest.mark.parametrize("chunk_bytes", BUDGETS)
def test_cross_entropy_is_the_same_operator(
    chunk_bytes: int | None, backend: str, device: torch.device
) -> None:
    inputs, tokens = world("grpo", device)
    hidden_TD, weight_VD, bias_V = (x.clone().requires_grad_() for x in inputs[:3])
    weight_T = (tokens.weight_N != 0).float() / 7
    found = linear_cross_entropy(
        hidden_TD, weight_VD, inputs[3], weight_T, bias_V=bias_V, chunk_bytes=chunk_bytes
    )
    found.loss.backward()
    wide = [x.detach().double().requires_grad_() for x in inputs[:3]]
    nll_T = F.cross_entropy(wide[0] @ wide[1].T + wide[2], inputs[3], reduction="none")
    right = (nll_T * weight_T).sum()
    right.backward()
    assert error(found.loss.detach(), right.detach()) < 1e-5
    for ours, exact in zip((hidden_TD, weight_VD, bias_V), wide, strict=True):
        assert ours.grad is not None and exact.grad is not None
        assert error(ours.grad, exact.grad) < 1e-5


def test_it_trains_as_the_plain_path_does(backend: str, device: torch.device) -> None:
    """Twenty steps of descent stay together."""
    inputs, tokens = world("cispo", device)
    loss = replace(full_loss("cispo"), mismatch="none")
    weights = [inputs[1].clone().requires_grad_() for _ in range(2)]
    curves: list[list[float]] = []
    for fn, weight in zip((linear_grpo_loss, linear_grpo_loss_reference), weights, strict=True):
        curve = []
        for _ in range(20):
            value = fn(inputs[0], weight, inputs[3], tokens, loss).loss
            (gradient,) = torch.autograd.grad(value, weight)
            weight.data -= gradient
            curve.append(value.item())
        curves.append(curve)
    assert curves[0][-1] < curves[0][0]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3, abs=1e-5)


def test_mistakes_are_named(device: torch.device) -> None:
    (hidden_TD, weight_VD, bias_V, target_T), tokens = world("grpo", device)
    with pytest.raises(DataError, match="`weight_N` has shape"):
        short = replace(tokens, weight_N=tokens.weight_N[1:])
        linear_grpo_loss(hidden_TD, weight_VD, target_T, short, PolicyLoss())
    with pytest.raises(DataError, match="needs `reference_N`"):
        without = replace(tokens, reference_N=None)
        linear_grpo_loss(hidden_TD, weight_VD, target_T, without, PolicyLoss(kl_coef=0.1))
    with pytest.raises(DataError, match="needs `sequence_N`"):
        alone = replace(tokens, sequence_N=None)
        linear_grpo_loss(hidden_TD, weight_VD, target_T, alone, PolicyLoss("gspo"))
    with pytest.raises(DataError, match="bias"):
        linear_grpo_loss(hidden_TD, weight_VD, target_T, tokens, PolicyLoss(), bias_V=bias_V[1:])
    with pytest.raises(DataError, match="V > 0"):
        linear_grpo_loss(hidden_TD, weight_VD[:0], target_T, tokens, PolicyLoss())


@pytest.mark.parametrize("variant", ["grpo", "gspo"])
def test_triton_refuses_fp64(variant: Variant, triton_backend: None, device: torch.device) -> None:
    """It would round it to fp32 unasked."""
    inputs, tokens = in_fp64(*world(variant, device))
    with pytest.raises(DataError, match="float64") as refused:
        run(linear_grpo_loss, inputs, tokens, full_loss(variant))
    assert "torch" in (refused.value.hint or "")
    with force_backend("torch"):
        assert run(linear_grpo_loss, inputs, tokens, full_loss(variant))["loss"] != 0
