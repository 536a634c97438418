"""AdamW with a schedule that is a pure function of the step, and clipping by global norm.

Norms, biases and embeddings are not decayed. A step whose gradient is not finite is skipped and
counted, never applied: one bad batch must not end weeks of training.
"""

import math
from typing import Any

import torch
from torch import nn

from r1ci_engine.config import OptimizerSection

FLOOR = 0.1
"""Share of the peak that `cosine` and `linear` fall to."""


def learning_rate(section: OptimizerSection, step: int, total_steps: int) -> float:
    """Rate of optimizer step `step` (from 0) out of `total_steps`."""
    if step < section.warmup_steps:
        return section.lr * (step + 1) / section.warmup_steps
    if section.decay == "constant":
        return section.lr
    span = max(1, total_steps - section.warmup_steps)
    progress = min(1.0, (step - section.warmup_steps) / span)
    fall = progress if section.decay == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return section.lr * (1 - (1 - FLOOR) * fall)


class Optimizer:
    """AdamW over a model's parameters, knowing how many steps it has made."""

    def __init__(self, model: nn.Module, section: OptimizerSection, total_steps: int) -> None:
        self.section = section
        self.total_steps = total_steps
        self.steps = 0
        self.skipped = 0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        decayed = [
            p
            for name, p in model.named_parameters()
            if p.requires_grad and p.ndim >= 2 and "embed_tokens" not in name
        ]
        chosen = {id(p) for p in decayed}
        self._adamw = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": section.weight_decay},
                {
                    "params": [p for p in self.parameters if id(p) not in chosen],
                    "weight_decay": 0.0,
                },
            ],
            lr=section.lr,
            betas=(section.beta1, section.beta2),
            fused=True,
        )

    def step(self) -> dict[str, float]:
        """Apply the accumulated gradients and clear them; returns `lr`, `grad/norm`, `skipped`."""
        norm = float(nn.utils.clip_grad_norm_(self.parameters, self.section.max_grad_norm))
        rate = learning_rate(self.section, self.steps, self.total_steps)
        applied = math.isfinite(norm)
        if applied:
            for group in self._adamw.param_groups:
                group["lr"] = rate
            self._adamw.step()
        else:
            self.skipped += 1
        self.steps += 1
        self._adamw.zero_grad(set_to_none=True)
        return {"lr": rate, "grad/norm": norm, "grad/skipped": float(not applied)}

    def state_dict(self) -> dict[str, Any]:
        """Moments and counters, for a checkpoint."""
        return {"adamw": self._adamw.state_dict(), "steps": self.steps, "skipped": self.skipped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._adamw.load_state_dict(state["adamw"])
        self.steps, self.skipped = state["steps"], state["skipped"]
