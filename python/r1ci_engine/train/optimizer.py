"""AdamW with a schedule that is a pure function of the step, and clipping by global norm.

Matrices are decayed; norms, biases and embeddings are not. Weights shorter than fp32 are trained
through an fp32 copy, and their gradients are summed in fp32 over micro-batches: an update of 1e-6
would vanish in the rounding of a bfloat16 weight.

A step without a finite gradient, or without any, changes nothing and is counted: one bad batch
must not end weeks of training, and momentum must not move weights that nothing has judged.
"""

import math
import weakref

import torch
from torch import Tensor, nn

from r1ci_engine.config import OptimizerSection
from r1ci_engine.errors import CheckpointError

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
    """AdamW over a model's parameters, knowing how many steps it has made.

    Gradients reach it by `loss.backward()`, any number of times; `step` uses and clears them.
    """

    def __init__(self, model: nn.Module, section: OptimizerSection, total_steps: int) -> None:
        self.section = section
        self.total_steps = total_steps
        self.steps = 0
        """Calls of `step`, by which the schedule goes: skipped ones count."""
        self.skipped = 0
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._masters = {name: _master_of(w, self) for name, w in self._weights.items()}
        decayed = {n for n, p in self._masters.items() if p.ndim >= 2 and "embed_tokens" not in n}
        groups = [
            {
                "params": [p for n, p in self._masters.items() if (n in decayed) is is_decayed],
                "weight_decay": section.weight_decay if is_decayed else 0.0,
            }
            for is_decayed in (True, False)
        ]
        betas = (section.beta1, section.beta2)
        self._adamw = torch.optim.AdamW(groups, lr=section.lr, betas=betas, fused=True)

    def step(self) -> dict[str, float]:
        """Apply the gathered gradients and clear them; returns `lr`, `grad/norm`, `grad/skipped`.

        `grad/norm` is the norm before clipping.
        """
        masters = self._masters.values()
        norm = float(nn.utils.clip_grad_norm_(masters, self.section.max_grad_norm))
        rate = learning_rate(self.section, self.steps, self.total_steps)
        applied = math.isfinite(norm) and any(p.grad is not None for p in masters)
        if applied:
            for group in self._adamw.param_groups:
                group["lr"] = rate
            self._adamw.step()
            self._round_weights()
        self.steps += 1
        self.skipped += not applied
        self._adamw.zero_grad(set_to_none=True)
        return {"lr": rate, "grad/norm": norm, "grad/skipped": float(not applied)}

    def state_dict(self) -> dict[str, Tensor]:
        """Moments, counters and fp32 copies, by name: flat, so that safetensors can hold it."""
        state = {"steps": torch.tensor(self.steps), "skipped": torch.tensor(self.skipped)}
        for name, master in self._masters.items():
            if master is not self._weights[name]:
                state[f"{name}/master"] = master.detach()
            for key, value in self._adamw.state[master].items():
                state[f"{name}/{key}"] = value
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from `state_dict`. Raises CheckpointError if it belongs to another model."""
        self.steps, self.skipped = int(state["steps"]), int(state["skipped"])
        own = {key.split("/")[0] for key in state} - {"steps", "skipped"}
        if own - self._masters.keys():
            raise CheckpointError(
                f"the optimizer's state names `{min(own - self._masters.keys())}`, "
                "which this model lacks"
            )
        for key, value in state.items():
            name, _, kind = key.partition("/")
            if not kind:
                continue
            master = self._masters[name]
            if value.ndim and value.shape != master.shape:
                raise CheckpointError(
                    f"the optimizer's state `{key}` has shape {tuple(value.shape)}, "
                    f"the model's {tuple(master.shape)}"
                )
            if kind == "master":
                master.data.copy_(value)
            else:
                self._adamw.state[master][kind] = value.to(master.device, copy=True)

    @torch.no_grad()
    def _round_weights(self) -> None:
        for name, weight in self._weights.items():
            if self._masters[name] is not weight:
                weight.copy_(self._masters[name])


def _master_of(weight: nn.Parameter, optimizer: Optimizer) -> nn.Parameter:
    """The fp32 parameter that is really trained: the weight itself, or a copy fed by it."""
    if weight.dtype in (torch.float32, torch.float64):
        return weight
    master = nn.Parameter(weight.detach().float())

    def hand_over(weight: Tensor) -> None:
        assert weight.grad is not None
        gradient = weight.grad.float()
        master.grad = gradient if master.grad is None else master.grad + gradient
        weight.grad = None

    handle = weight.register_post_accumulate_grad_hook(hand_over)
    # A run has an optimizer per phase: when one is gone, the next must get the gradients.
    weakref.finalize(optimizer, handle.remove)
    return master
