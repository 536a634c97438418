"""The fused loss: against fp64 and the plain path, whatever the loss, the mask and the chunks."""

import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from allocations import peak_bytes
from torch import Tensor

from r1ci_engine.errors import DataError, R1ciError
from r1ci_engine.kernels import (
    LinearLoss,
    Normaliser,
    PolicyLoss,
    Tokens,
    linear_cross_entropy,
    linear_grpo_loss,
    linear_grpo_loss_reference,
    linear_logprob,
    linear_logprob_reference,
    token_weights,
)
from r1ci_engine.kernels import linear_grpo_loss as module_function
from r1ci_engine.kernels.head import ROW_MULTIPLE
from r1ci_engine.kernels.policy_loss import Variant, may_learn

V, D = 203, 24
LENGTHS = (5, 17, 1, 9, 8)
T = sum(LENGTHS)
VARIANTS: tuple[Variant, ...] = ("grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo")
NORM = Normaliser(sequences=len(LENGTHS), tokens=31, budget=20)
BUDGETS = [None, 1]
"""Everything in one chunk, and chunks of sixteen rows."""
TEMPERATURE = 0.7


def full_loss(variant: Variant) -> PolicyLoss:
    """Every term on, with bounds that some tokens of `world` are beyond."""
    return PolicyLoss(
        variant=variant, clip_low=0.1, clip_high=0.15, kl_coef=0.3, entropy_coef=0.05,
        clip_dual=None if variant == "cispo" else 1.4, mismatch="icepop", mismatch_low=0.8,
        mismatch_high=1.3,
    )  # fmt: skip


def world(
    variant: Variant, device: torch.device, dtype: torch.dtype = torch.float32, D: int = D
) -> tuple[list[Tensor], Tokens]:
    """([hidden, weight, bias, target], tokens): uneven sequences, a tool mask, ratios around 1."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    hidden_TD, weight_VD, bias_V = normal(T, D), normal(V, D) * (6 / D) ** 0.5, normal(V)
    target_T = torch.randint(V, (T,), generator=generator)
    with torch.no_grad():
        logits_TV = (hidden_TD @ weight_VD.T + bias_V) / TEMPERATURE
        present_T = logits_TV.log_softmax(-1).gather(-1, target_T[:, None]).squeeze(-1)
    sequence_T = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    masked_T = torch.arange(T) % 5 == 2  # tool output in the midst of an answer
    own_B = torch.zeros(len(LENGTHS)).index_add(0, sequence_T, (~masked_T).float())
    weight_T = token_weights(variant, own_B[sequence_T].clamp(min=1), NORM) * ~masked_T
    advantage_B = torch.tensor([1.0, -0.7, 0.4, 0.0, -1.2])
    # One shift a sequence, so that its mean ratio leaves the clip as well.
    shift_B = torch.tensor([0.25, 0.1, 0.1, 0.0, -0.3])
    old_T = present_T - shift_B[sequence_T] + 0.2 * normal(T)
    tokens = Tokens(
        advantage_N=advantage_B[sequence_T],
        weight_N=weight_T,
        old_N=old_T,
        reference_N=present_T + 0.3 * normal(T),
        sampler_N=old_T + 0.2 * normal(T),
        sequence_N=sequence_T,
    )
    moved = {n: None if x is None else x.to(device) for n, x in vars(tokens).items()}
    head = [x.to(device, dtype) for x in (hidden_TD, weight_VD, bias_V)]
    return [*head, target_T.to(device)], Tokens(**moved)  # pyright: ignore[reportArgumentType]


def repeated(inputs: list[Tensor], tokens: Tokens, times: int) -> tuple[list[Tensor], Tokens]:
    """The rows so many times over."""
    order_T = torch.arange(T, device=inputs[0].device).repeat(times)
    return [inputs[0][order_T], *inputs[1:3], inputs[3][order_T]], tokens.at(order_T)


def in_fp64(inputs: list[Tensor], tokens: Tokens) -> tuple[list[Tensor], Tokens]:
    wide = {
        name: x.double() if x is not None and x.is_floating_point() else x
        for name, x in vars(tokens).items()
    }
    return [*(x.double() for x in inputs[:3]), inputs[3]], Tokens(**wide)


def run(
    fn: Any, inputs: list[Tensor], tokens: Tokens, loss: PolicyLoss, slope: float = 1.0, **options
) -> dict[str, Tensor]:
    """Loss, statistics and the gradients of slope * loss."""
    hidden_TD, weight_VD, bias_V = (x.detach().clone().requires_grad_() for x in inputs[:3])
    result: LinearLoss = fn(
        hidden_TD, weight_VD, inputs[3], tokens, loss, TEMPERATURE, bias_V=bias_V, **options
    )
    (slope * result.loss).backward()
    found = {"loss": result.loss.detach(), "logprob": result.logprob_T, "entropy": result.entropy_T}
    for name, x in (("dhidden", hidden_TD), ("dweight", weight_VD), ("dbias", bias_V)):
        assert x.grad is not None, name
        found[name] = x.grad
    return found


def reference(inputs: list[Tensor], tokens: Tokens, loss: PolicyLoss) -> dict[str, Tensor]:
    return run(linear_grpo_loss_reference, *in_fp64(inputs, tokens), loss)


def error(found: Tensor, right: Tensor) -> float:
    scale = right.abs().max().item()
    assert scale > 0, "a comparison of nothing with nothing"
    return (found.double() - right.double()).abs().max().item() / scale


def agree(found: dict[str, Tensor], right: dict[str, Tensor], relative: float) -> None:
    for name, expected in right.items():
        # The terms of a loss nearly cancel, so its error is relative to a tenth of theirs.
        assert error(found[name], expected) <= relative * (10 if name == "loss" else 1), name


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


def test_rows_that_cannot_learn_cost_no_backward(
    backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No advantage, or dropped by IcePop: seen, with an exact zero for a gradient, no product."""
    inputs, tokens = repeated(*world("grpo", device), times=8)
    loss = PolicyLoss(mismatch="icepop", mismatch_low=0.8, mismatch_high=1.3)
    module = sys.modules[module_function.__module__]
    seen: list[int] = []
    whole = module.row_stats_backward

    def counted(*arguments: Any) -> Tensor:
        dlogits_NV = whole(*arguments)
        seen.append(len(dlogits_NV))
        return dlogits_NV

    monkeypatch.setattr(module, "row_stats_backward", counted)
    found = run(linear_grpo_loss, inputs, tokens, loss)
    agree(found, reference(inputs, tokens, loss), 1e-5)
    whole_count = sum(seen)
    # Several chunks, each with rows to leave out.
    ninety_six_rows = 96 * V * (8 if backend == "triton" else 16)
    in_chunks = run(linear_grpo_loss, inputs, tokens, loss, chunk_bytes=ninety_six_rows)
    agree(in_chunks, reference(inputs, tokens, loss), 1e-5)
    assert len(seen) > 2 and sum(seen) - whole_count < int(may_learn(tokens, loss).sum())
    learns_T = may_learn(tokens, loss)
    moves_T = (found["dhidden"] != 0).any(-1)
    assert not moves_T[~learns_T].any()
    assert 0 < int(moves_T.sum()) < int(learns_T.sum()), "the clip stops some more"
    filled = 1 if device.type == "cuda" else ROW_MULTIPLE
    assert whole_count == -(-int(moves_T.sum()) // filled) * filled
    silent_T = (tokens.advantage_N == 0) & (tokens.weight_N != 0)
    assert silent_T.any() and not learns_T[silent_T].any()
    assert (found["logprob"][silent_T] != 0).all(), "they are looked at all the same"
    assert int(learns_T.sum()) < int((tokens.weight_N * tokens.advantage_N != 0).sum()), "IcePop"


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


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("slope", [1.0, 1 / 3])
@pytest.mark.parametrize("variant", ["grpo", "gspo"])
def test_memory_beyond_the_outputs_does_not_grow_with_rows(variant: Variant, slope: float) -> None:
    """Allocations of forward and backward on CPU, as the profiler counts them.

    The outputs are one gradient of the rows and one of the head; both are larger than the slack.
    """
    wide_V, wide_D, budget = 3000, 256, 1 << 20
    weight_VD = torch.randn(wide_V, wide_D, requires_grad=True)

    def peak(T: int, fn: Any, **options: Any) -> int:
        hidden_TD = torch.randn(T, wide_D, requires_grad=True)
        target_T = torch.arange(T) % wide_V
        one_T = torch.ones(T)
        tokens = Tokens(one_T, one_T / T, sequence_N=torch.arange(T) // 64)

        def step() -> None:
            loss = fn(hidden_TD, weight_VD, target_T, tokens, PolicyLoss(variant), **options).loss
            (slope * loss).backward()

        step()
        hidden_TD.grad = weight_VD.grad = None
        return peak_bytes(step)

    small, large = (peak(T, linear_grpo_loss, chunk_bytes=budget) for T in (256, 4096))
    numbers = 4 * 32  # a few for each token
    assert large - small <= (4096 - 256) * (4 * wide_D + numbers)
    outputs = 4 * wide_D * (wide_V + 4096)
    assert large <= outputs + 1.5 * budget + 4096 * numbers
    plain = peak(4096, linear_grpo_loss_reference)
    assert plain > outputs + 3 * 4096 * wide_V * 4, "the probe sees full logits"
    assert large - outputs < (plain - outputs) / 25


# --- as an operator of torch ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("variant", VARIANTS)
def test_compiled_whole_it_is_the_same(
    variant: Variant, dtype: torch.dtype, device: torch.device
) -> None:
    torch.compiler.reset()  # each case is one more function to the compiler
    inputs, tokens = world(variant, device, dtype)
    loss = full_loss(variant)

    def step(hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor) -> LinearLoss:
        return linear_grpo_loss(
            hidden_TD * 1.5, weight_VD, inputs[3], tokens, loss, TEMPERATURE, bias_V=bias_V
        )

    results = []
    for fn in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaves = [x.clone().requires_grad_() for x in inputs[:3]]
        result = fn(*leaves)
        (2 * result.loss).backward()
        results.append([*result, *(x.grad for x in leaves)])
    for eager, compiled in zip(*results, strict=True):
        assert eager is not None and eager.abs().max() > 0
        assert torch.equal(eager, compiled)


def test_compiled_without_rows_it_is_the_same(device: torch.device) -> None:
    inputs, tokens = world("grpo", device)

    def step(hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor) -> Tensor:
        return linear_grpo_loss(
            hidden_TD, weight_VD, target_T, tokens.at(slice(0, 0)), PolicyLoss()
        ).loss

    hidden_TD, weight_VD = (x.clone().requires_grad_() for x in (inputs[0][:0], inputs[1]))
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    compiled(hidden_TD, weight_VD, inputs[3][:0]).backward()
    assert hidden_TD.grad is not None and hidden_TD.grad.shape == (0, D)
    assert weight_VD.grad is not None and not weight_VD.grad.any()


def test_linear_logprob_compiles_whole(device: torch.device) -> None:
    inputs, _ = world("grpo", device)

    def step(hidden_TD: Tensor, weight_VD: Tensor) -> Tensor:
        logprob_T, entropy_T = linear_logprob(hidden_TD * 1.5, weight_VD, inputs[3], chunk_bytes=1)
        return (logprob_T * 2 + entropy_T).sum()

    gradients = []
    for fn in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        leaves = [x.clone().requires_grad_() for x in inputs[:2]]
        gradients.append(torch.autograd.grad(fn(*leaves), leaves))
    for eager, compiled in zip(*gradients, strict=True):
        assert eager.abs().max() > 0 and torch.equal(eager, compiled)


def test_the_operators_keep_torchs_rules(device: torch.device) -> None:
    """Schemas, shapes without data, and gradients as `torch.library.opcheck` wants them."""
    inputs, tokens = world("grpo", device)
    hidden_TD, weight_VD, bias_V, target_T = inputs
    leaves = [x.clone().requires_grad_() for x in (hidden_TD, weight_VD, bias_V)]
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.r1ci.linear_logprob.default,
        (*leaves, target_T, 0.7, 1, True),
        test_utils=checks,
    )
    known = (tokens.advantage_N, tokens.weight_N, tokens.old_N, None, None, None)
    torch.library.opcheck(
        torch.ops.r1ci.linear_policy_loss.default,
        (
            *leaves, target_T, *known, "grpo", 0.2, 0.2, None, "k3", 0.0, 0.0, "none", 0.5, 2.0,
            0.7, 1, [True, True, True],
        ),
        test_utils=checks,
    )  # fmt: skip


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
