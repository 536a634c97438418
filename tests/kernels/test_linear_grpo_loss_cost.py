"""What the fused loss costs: rows that need no product, and memory that does not grow with rows."""

import sys
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from allocations import peak_bytes
from loss_world import (
    BUDGETS,
    TEMPERATURE,
    VARIANTS,
    V,
    agree,
    error,
    full_loss,
    in_fp64,
    reference,
    repeated,
    run,
    world,
)
from torch import Tensor

from r1ci_engine.kernels import (
    PolicyLoss,
    Tokens,
    linear_cross_entropy,
    linear_grpo_loss,
    linear_grpo_loss_reference,
)
from r1ci_engine.kernels import linear_grpo_loss as module_function
from r1ci_engine.kernels.head import ROW_MULTIPLE, HeadGradients
from r1ci_engine.kernels.policy_loss import Variant, may_learn


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


class Counted:
    """Rows that went into each product: of logits, and of gradients.

    And how many tensors of earlier chunks were alive when a chunk asked for its logits.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = sys.modules[module_function.__module__]
        self.looked: list[int] = []
        self.multiplied: list[int] = []
        self.left: list[int] = []
        self.made: list[weakref.ref[Tensor]] = []
        logits, add = module.head_logits, HeadGradients.add

        def counted_logits(hidden_CD: Tensor, *others: Any) -> Tensor:
            self.looked.append(len(hidden_CD))
            self.left.append(sum(made() is not None for made in self.made))
            logits_CV = logits(hidden_CD, *others)
            self.made.append(weakref.ref(logits_CV))
            return logits_CV

        def counted_add(sums: HeadGradients, C: Any, dlogits_CV: Tensor, *others: Any) -> None:
            self.multiplied.append(len(dlogits_CV))
            self.made.append(weakref.ref(dlogits_CV))
            add(sums, C, dlogits_CV, *others)

        monkeypatch.setattr(module, "head_logits", counted_logits)
        monkeypatch.setattr(HeadGradients, "add", counted_add)


def no_gradients(how: str) -> AbstractContextManager[Any]:
    return {
        "no_grad": torch.no_grad, "inference_mode": torch.inference_mode, "frozen": nullcontext
    }[how]()  # fmt: skip


@pytest.mark.parametrize("how", ["no_grad", "inference_mode", "frozen"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_without_gradients_it_only_looks(
    variant: Variant,
    how: str,
    backend: str,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once at each row that has a weight; loss and statistics are the reference's."""
    inputs, tokens = world(variant, device)
    for loss in (full_loss(variant), PolicyLoss(variant, clip_low=0.1)):
        right = reference(inputs, tokens, loss)
        leaves = [x.clone().requires_grad_(how != "frozen") for x in inputs[:3]]
        with monkeypatch.context() as patched, no_gradients(how):
            counted = Counted(patched)
            result = linear_grpo_loss(
                leaves[0], leaves[1], inputs[3], tokens, loss, TEMPERATURE, bias_V=leaves[2]
            )
        assert sum(counted.looked) == int((tokens.weight_N != 0).sum())
        assert counted.multiplied == []
        assert not result.loss.requires_grad
        agree(
            dict(zip(("loss", "logprob", "entropy"), result, strict=True)),
            {name: right[name] for name in ("loss", "logprob", "entropy")},
            1e-5,
        )


@pytest.mark.parametrize("variant", ["grpo", "gspo", "cispo"])
def test_a_bonus_moves_what_the_policy_term_does_not(
    variant: Variant, backend: str, device: torch.device
) -> None:
    """Clipped or without advantage, a row still learns its entropy."""
    inputs, tokens = repeated(*world(variant, device), times=4)
    plain = PolicyLoss(variant, clip_low=0.1, clip_high=0.15)
    loss = replace(plain, entropy_coef=0.05)
    right, without = reference(inputs, tokens, loss), reference(inputs, tokens, plain)
    still_T = (tokens.weight_N != 0) & (without["dhidden"] == 0).all(-1)
    assert int(still_T.sum()) > ROW_MULTIPLE
    for chunk_bytes in BUDGETS:
        found = run(linear_grpo_loss, inputs, tokens, loss, chunk_bytes=chunk_bytes)
        agree(found, right, 1e-5)
        assert (found["dhidden"][still_T] != 0).any(-1).all()


@pytest.mark.parametrize("active", [64, 60])
@pytest.mark.parametrize("variant", ["grpo", "gspo", "cispo"])
def test_at_the_reference_only_an_advantage_costs(
    variant: Variant,
    active: int,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A divergence has no slope where policy and reference agree, as at first all rows do."""
    inputs, tokens = repeated(*world(variant, device), times=16)
    count = len(inputs[3])
    loss = PolicyLoss(variant, kl_coef=0.1)
    apart_T = torch.arange(count, device=device) * 7 % count < active  # here and there
    tokens = Tokens(
        advantage_N=apart_T * 0.5,
        weight_N=torch.full((count,), 1 / count, device=device),
        sequence_N=torch.arange(count, device=device) % count,
    )
    with torch.no_grad():
        present = linear_grpo_loss(
            inputs[0], inputs[1], inputs[3], tokens, PolicyLoss(variant), TEMPERATURE,
            bias_V=inputs[2],
        )  # fmt: skip
    tokens = replace(tokens, reference_N=present.logprob_T)
    counted = Counted(monkeypatch)
    found = run(linear_grpo_loss, inputs, tokens, loss)
    filled = ROW_MULTIPLE if device.type == "cpu" and variant != "gspo" else 1
    assert count == 640 and sum(counted.multiplied) == -(-active // filled) * filled
    wide_inputs, wide_tokens = in_fp64(inputs, replace(tokens, reference_N=None))
    right = run(linear_grpo_loss_reference, wide_inputs, wide_tokens, PolicyLoss(variant))
    for name in ("dhidden", "dweight", "dbias"):
        assert error(found[name], right[name]) < 1e-5, name
    assert torch.equal((found["dhidden"] != 0).any(-1), apart_T)


@pytest.mark.parametrize("variant", ["grpo", "cispo"])
def test_what_icepop_drops_costs_no_product_without_an_old_policy_either(
    variant: Variant, backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is the present one that disagrees with the sampler: seen at the row, not before."""
    inputs, tokens = repeated(*world(variant, device), times=4)
    tokens = replace(tokens, old_N=None)
    loss = PolicyLoss(variant, mismatch="icepop", mismatch_low=0.85, mismatch_high=1.3)
    right = reference(inputs, tokens, loss)
    moves_T = (right["dhidden"] != 0).any(-1)
    learning = int(may_learn(tokens, loss).sum())
    counted = Counted(monkeypatch)
    agree(run(linear_grpo_loss, inputs, tokens, loss), right, 1e-5)
    filled = 1 if device.type == "cuda" else ROW_MULTIPLE
    assert sum(counted.multiplied) == -(-int(moves_T.sum()) // filled) * filled
    assert 0 < sum(counted.multiplied) < learning - ROW_MULTIPLE


@pytest.mark.parametrize("mismatch", ["none", "tis"])
def test_where_no_row_can_stop_none_is_looked_for(
    mismatch: Any, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On-policy: to count them would make the CPU wait for the GPU at every chunk."""
    inputs, tokens = world("grpo", device)
    module, asked = sys.modules[module_function.__module__], []
    found = module._moving_rows
    monkeypatch.setattr(module, "_moving_rows", lambda g_C: (asked.append(len(g_C)), found(g_C))[1])
    loss = PolicyLoss(mismatch=mismatch)
    run(linear_grpo_loss, inputs, tokens, loss)
    assert asked == [int(may_learn(tokens, loss).sum())], "the clip may stop some"
    tokens = replace(tokens, old_N=None)
    agree(run(linear_grpo_loss, inputs, tokens, loss), reference(inputs, tokens, loss), 1e-5)
    assert len(asked) == 1


@pytest.mark.parametrize("loss", [PolicyLoss("grpo"), PolicyLoss("gspo", entropy_coef=0.1)])
def test_a_chunk_is_gone_before_the_next_asks_for_as_much(
    loss: PolicyLoss, backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its logits and their gradients, or two chunks would be alive at once."""
    inputs, tokens = world(loss.variant, device)
    counted = Counted(monkeypatch)
    run(linear_grpo_loss, inputs, tokens, loss, chunk_bytes=1)
    assert len(counted.multiplied) > 1 and len(counted.made) > len(counted.multiplied) + 1
    assert counted.left == [0] * len(counted.looked)


def test_supervised_learning_keeps_to_the_budget_too(
    backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hidden_TD, weight_VD, _, target_T), _ = world("cispo", device)
    weight_T = torch.full((len(target_T),), 0.5, device=device)
    counted = Counted(monkeypatch)
    losses = []
    for chunk_bytes, rows in ((None, [40]), (1, [16, 16, 8])):
        counted.looked.clear()
        weight_VD.requires_grad_()
        result = linear_cross_entropy(
            hidden_TD, weight_VD, target_T, weight_T, chunk_bytes=chunk_bytes
        )
        losses.append(float(result.loss.detach()))
        assert counted.looked == rows
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] > 1


@pytest.mark.parametrize("variant", ["grpo", "gspo"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_rows_cost_nothing_in_16_bits(
    variant: Variant,
    dtype: torch.dtype,
    backend: str,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fp16 takes a unit for its gradients from the weights, of which there are none."""
    inputs, tokens = world(variant, device, dtype)
    inputs = [inputs[0][:0], inputs[1], inputs[2], inputs[3][:0]]
    counted = Counted(monkeypatch)
    found = run(linear_grpo_loss, inputs, tokens.at(slice(0)), PolicyLoss(variant))
    assert found["loss"] == 0 and counted.looked == counted.multiplied == []
    assert found["dhidden"].shape == inputs[0].shape
    for name in ("dweight", "dbias"):
        assert found[name].dtype == dtype and (found[name] == 0).all()


class Unheard(torch.autograd.Function):
    """A use of the loss by which nothing flows back."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * loss

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> None:  # type: ignore[override]
        return None


def test_a_loss_that_nobody_hears_of_hands_nothing_over(backend: str, device: torch.device) -> None:
    """Its gradients stay where they are, and nothing is made of them: not even zeros."""
    inputs, tokens = world("grpo", device)
    right = reference(inputs, tokens, PolicyLoss())
    leaves = [x.clone().requires_grad_() for x in inputs[:3]]
    loss = linear_grpo_loss(
        leaves[0], leaves[1], inputs[3], tokens, PolicyLoss(), TEMPERATURE, bias_V=leaves[2]
    ).loss
    Unheard.apply(loss).backward(retain_graph=True)  # pyright: ignore
    assert [x.grad for x in leaves] == [None] * 3
    loss.backward()
    agree({"dhidden": leaves[0].grad}, {"dhidden": right["dhidden"]}, 1e-5)  # pyright: ignore


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
