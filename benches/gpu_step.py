"""One step of training a head, as our operator does it and as plain torch does.

    one pass        linear_grpo_loss and its gradients         products: 6 T D V
    two passes      linear_logprob, a loss on it, gradients             8 T D V
    log-prob only   linear_logprob without gradients                    2 T D V

Full logits are the leanest that plain torch can do: a product in bf16, fp32 from there, no entropy.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from gpu_measure import Bench, Model, head_inputs
from torch import Tensor

from r1ci_engine.kernels import (
    PolicyLoss,
    Tokens,
    linear_grpo_loss,
    linear_logprob,
    policy_loss,
)

LOSS = PolicyLoss("dapo", clip_high=0.28)
UNITS = {"one pass": 3, "two passes": 4, "log-prob only": 1}  # products of 2 T D V
MODES = tuple(UNITS)


def full_logprob(hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor) -> Tensor:
    """What a trainer without a fused head does, at its leanest."""
    logits_TV = (hidden_TD @ weight_VD.T).float()
    return -F.cross_entropy(logits_TV, target_T, reduction="none")


class Step(NamedTuple):
    """One loss and its two gradients."""

    hidden_TD: Tensor
    weight_VD: Tensor
    target_T: Tensor
    tokens: Tokens

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, (self.hidden_TD, self.weight_VD))

    def one_pass(self) -> tuple[Tensor, ...]:
        head = (self.hidden_TD, self.weight_VD, self.target_T)
        return self.gradients(linear_grpo_loss(*head, self.tokens, LOSS).loss)

    def two_passes(self) -> tuple[Tensor, ...]:
        logprob_T, entropy_T = linear_logprob(self.hidden_TD, self.weight_VD, self.target_T)
        return self.gradients(policy_loss(logprob_T, entropy_T, self.tokens, LOSS))

    def plain(self, logprob: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        logprob_T = logprob(self.hidden_TD, self.weight_VD, self.target_T)
        return self.gradients(policy_loss(logprob_T, logprob_T, self.tokens, LOSS))

    @torch.no_grad()
    def forward(self, call: Callable[..., object]) -> object:
        return call(self.hidden_TD, self.weight_VD, self.target_T)


def make_step(model: Model, T: int, bench: Bench) -> Step:
    """On policy, every token trained: no row may be skipped."""
    advantage_T = torch.randn(T, device=bench.device)
    advantage_T = torch.where(advantage_T < 0, advantage_T - 0.1, advantage_T + 0.1)
    weight_T = torch.full((T,), 1 / T, device=bench.device)
    return Step(*head_inputs(model, T, bench), Tokens(advantage_T, weight_T))


def with_vocabulary(step: Step, V: int) -> Step:
    """The same step on the first V rows of the head."""
    weight_VD = step.weight_VD.detach()[:V].requires_grad_()
    return step._replace(weight_VD=weight_VD, target_T=step.target_T % V)
