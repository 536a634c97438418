"""What the trainer's tests share: trajectories of random tokens, and the step in plain torch.

`plain_step_gradient` is a second, deliberately naive implementation of the whole reinforcement
step: one sequence at a time, full logits, a Python loop over tokens. It shares no code with
`train/` but the model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from tiny_models import VOCAB_SIZE, tiny_config, tiny_model
from torch import Tensor

from r1ci_engine.config import GrpoSection
from r1ci_engine.model.attention import PackedAttention
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.trajectory import RewardParts, Segment, SegmentKind, StopReason, Trajectory

PROMPT, MODEL, TOOL = SegmentKind.PROMPT, SegmentKind.MODEL, SegmentKind.TOOL
TWO_TURNS = ((PROMPT, 5), (MODEL, 4), (TOOL, 6), (MODEL, 3))
BUDGET = 64
"""Token budget of the tests' trajectories (Dr. GRPO's constant)."""


def make_trajectory(
    parts: Sequence[tuple[SegmentKind, int]] = TWO_TURNS,
    *,
    item: str = "item",
    sample: int = 0,
    reward: float = 0.0,
    faulty: bool = False,
    seed: int = 0,
) -> Trajectory:
    """Random tokens by the given writers; log-probabilities are 0 until `record_logprobs`."""
    segments, end = [], 0
    for kind, length in parts:
        segments.append(Segment(kind, end, end + length))
        end += length
    generator = np.random.default_rng([seed, sample, *item.encode()])
    return Trajectory(
        task="test/tokens",
        item_id=item,
        sample_index=sample,
        agent="code",
        tokens=generator.integers(0, VOCAB_SIZE, end).tolist(),
        logprobs=[0.0] * end,
        segments=segments,
        text="",
        stop_reason=StopReason.INFRASTRUCTURE if faulty else StopReason.END,
        turns=1,
        policy_version=0,
        correct=reward >= 1,
        reward=RewardParts(correct=reward),
    )


def uneven_batch(items: int = 2, samples: int = 4) -> list[Trajectory]:
    """Groups with rewards 1, 0, 0, ... and answers of quite different lengths."""
    lengths = (3, 17, 8, 30, 5, 11, 23, 2)
    return [
        make_trajectory(
            ((PROMPT, 4 + row), (MODEL, lengths[(row + sample) % 8]), (TOOL, 3), (MODEL, 2)),
            item=f"item-{row}",
            sample=sample,
            reward=float(sample <= row),
        )
        for row in range(items)
        for sample in range(samples)
    ]


def logits_alone(model: Decoder, tokens: Sequence[int]) -> Tensor:
    """`[T, V]` of one sequence that has the forward pass to itself."""
    tokens_T = torch.tensor(tokens)
    hidden_TD = model(tokens_T, torch.arange(len(tokens)), PackedAttention([0, len(tokens)]))
    return hidden_TD @ model.head_weight.T


@torch.no_grad()
def record_logprobs(
    model: Decoder, trajectories: Sequence[Trajectory], temperature: float = 1.0, noise: float = 0.0
) -> None:
    """Fill in what the sampler would have recorded; `noise` moves ratios away from 1."""
    for number, trajectory in enumerate(trajectories):
        generator = torch.Generator().manual_seed(number)
        logprob_TV = torch.log_softmax(logits_alone(model, trajectory.tokens) / temperature, -1)
        for at, written in enumerate(trajectory.model_mask()):
            if written:
                shift = noise * float(torch.randn((), generator=generator))
                exact = float(logprob_TV[at - 1, trajectory.tokens[at]])
                trajectory.logprobs[at] = exact + shift


def tiny_pair() -> tuple[Decoder, Decoder]:
    """A policy, and a reference that is near it but not equal."""
    policy, reference = tiny_model(tiny_config()), tiny_model(tiny_config())
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return policy, reference.requires_grad_(False)


@dataclass
class GradientCatcher:
    """Stands where an optimizer would: keeps the gradient of every step, changes nothing."""

    model: Decoder
    caught: list[dict[str, Tensor]] = field(default_factory=list)

    def step(self) -> dict[str, float]:
        """Take the gradients away."""
        self.caught.append(take_gradient(self.model))
        return {"lr": 0.0, "grad/norm": 0.0, "grad/skipped": 0.0}


def take_gradient(model: Decoder) -> dict[str, Tensor]:
    """The gradients by name, zeros where there are none; clears them."""
    caught = {}
    for name, parameter in model.named_parameters():
        caught[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = None
    return caught


def flat(gradient: dict[str, Tensor]) -> Tensor:
    """One vector in fp64, to compare."""
    return torch.cat([gradient[name].flatten() for name in sorted(gradient)]).double()


def relative_error(found: Tensor, right: Tensor) -> float:
    """Norm of the difference by the norm of what is right, which must not be 0."""
    assert float(right.norm()) > 0, "a parity test of zeros shows nothing"
    return float((found - right).norm() / right.norm())


def plain_step_gradient(
    model: Decoder,
    reference: Decoder | None,
    trajectories: Sequence[Trajectory],
    section: GrpoSection,
    temperature: float = 1.0,
) -> Tensor:
    """The step's gradient as a flat fp64 vector, from the formulas alone."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.item_id, []).append(trajectory)
    answered = [t for t in trajectories if any(t.model_mask()[1:])]
    tokens = sum(sum(t.model_mask()[1:]) for t in answered)
    total = torch.zeros(())
    for trajectory in answered:
        rewards = [t.reward.total for t in groups[trajectory.item_id]]
        mean = sum(rewards) / len(rewards)
        variance = sum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1)
        advantage = trajectory.reward.total - mean
        if section.variant != "dr_grpo":
            advantage /= math.sqrt(variance) + 1e-6
        logprob_TV = torch.log_softmax(logits_alone(model, trajectory.tokens) / temperature, -1)
        written = [at for at, flag in enumerate(trajectory.model_mask()) if flag and at]
        divisor = {
            "grpo": len(answered) * len(written),
            "dr_grpo": len(answered) * BUDGET,
            "dapo": tokens,
            "gspo": len(answered) * len(written),
            "cispo": tokens,
        }[section.variant]
        logs = [
            logprob_TV[at - 1, trajectory.tokens[at]] - trajectory.logprobs[at] for at in written
        ]
        for at in written:
            logprob = logprob_TV[at - 1, trajectory.tokens[at]]
            own = (logprob - trajectory.logprobs[at]).exp()
            ratio = (sum(logs) / len(logs)).exp() if section.variant == "gspo" else own
            clipped = ratio.clamp(1 - section.clip_low, 1 + section.clip_high)
            gain = min(ratio * advantage, clipped * advantage)
            if section.variant == "cispo":
                gain = clipped.detach() * advantage * logprob
            total = total - gain / divisor
            if reference is not None:
                with torch.no_grad():
                    row_V = logits_alone(reference, trajectory.tokens)[at - 1]
                    d = torch.log_softmax(row_V / temperature, -1)[trajectory.tokens[at]] - logprob
                # Autograd of own * (exp(d) - d - 1) with both alive gives -own * d.
                total = total + section.kl_coef * (-own.detach() * d) * logprob / divisor
    total.backward()
    return flat(take_gradient(model))
