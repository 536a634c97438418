"""What the tests of the fused loss share: rows, tokens, a head, and how results are compared."""

from typing import Any

import torch
from torch import Tensor

from r1ci_engine.kernels import (
    LinearLoss,
    Normaliser,
    PolicyLoss,
    Tokens,
    linear_grpo_loss_reference,
    token_weights,
)
from r1ci_engine.kernels.policy_loss import Variant

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
