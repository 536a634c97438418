"""What the fused loss costs: rows that need no product, and memory that does not grow with rows."""

import sys
from typing import Any

import pytest
import torch
from allocations import peak_bytes
from loss_world import (
    V,
    agree,
    reference,
    repeated,
    run,
    world,
)
from torch import Tensor

from r1ci_engine.kernels import (
    PolicyLoss,
    Tokens,
    linear_grpo_loss,
    linear_grpo_loss_reference,
)
from r1ci_engine.kernels import linear_grpo_loss as module_function
from r1ci_engine.kernels.head import ROW_MULTIPLE
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
