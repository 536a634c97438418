"""The head operators under `torch.compile` and by the rules of `torch.library`."""

import sys
from typing import Any

import pytest
import torch
from loss_world import (
    TEMPERATURE,
    VARIANTS,
    D,
    full_loss,
    world,
)
from torch import Tensor

from r1ci_engine.kernels import (
    LinearLoss,
    PolicyLoss,
    linear_grpo_loss,
    linear_logprob,
)
from r1ci_engine.kernels.policy_loss import Variant


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


def test_the_operators_keep_torchs_rules(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    operator = torch.ops.r1ci.linear_policy_loss.default

    def arguments(advantage_T: Tensor) -> tuple[Any, ...]:
        known = (advantage_T, tokens.weight_N, tokens.old_N, None, None, None)
        return (
            *leaves, target_T, *known, "grpo", 0.2, 0.2, None, "k3", 0.0, 0.0, "none", 0.5, 2.0,
            0.7, 1, [True, True, True],
        )  # fmt: skip

    torch.library.opcheck(operator, arguments(tokens.advantage_N), test_utils=checks)

    # Eager backward scales the operator's own saved outputs in place, and the check of tracing
    # compares the outputs afterwards: it can only hold for all but that step.
    def scaled(gradient: Tensor, slope: Tensor, like: Tensor) -> Tensor:
        return (gradient * slope).to(like.dtype)

    module = sys.modules[linear_grpo_loss.__module__]
    monkeypatch.setattr(module, "scale_", scaled)
    for advantage_T in (tokens.advantage_N, -tokens.advantage_N):  # slopes of 1 and of -1
        torch.library.opcheck(
            operator, arguments(advantage_T), test_utils="test_aot_dispatch_dynamic"
        )


def test_what_asks_for_a_count_of_rows_is_in_no_cuda_graph() -> None:
    for operator in (torch.ops.r1ci.linear_policy_loss, torch.ops.r1ci.linear_logprob_backward):
        assert torch.Tag.cudagraph_unsafe in operator.default.tags
