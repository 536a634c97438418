"""The reinforcement step, whole: advantages, packing, reference, loss, update.

Old log-probabilities are those of sampling time and stay fixed over all updates of the step, so
the ratio is 1 only before the first of them. Trajectories without advantage have no policy
gradient; without a divergence term they are not even run. With one they are: they hold the model
near the reference, and they count in the normaliser either way.

Shape suffixes: N trained token of a micro-batch, B sequence of the step.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from r1ci_engine.config import GrpoSection
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.train.advantages import group_advantages
from r1ci_engine.train.batch import PackedBatch, from_trajectory, micro_batches
from r1ci_engine.train.losses import LOSSES, Normaliser, TokenTerms, token_metrics
from r1ci_engine.train.optimizer import Optimizer
from r1ci_engine.train.policy import target_logprobs
from r1ci_engine.trajectory import Trajectory


def grpo_step(
    model: Decoder,
    reference: Decoder | None,
    optimizer: Optimizer,
    trajectories: Sequence[Trajectory],
    section: GrpoSection,
    *,
    temperature: float,
    token_budget: int,
) -> dict[str, float]:
    """Learn from one rollout batch; sets `advantage` on the trajectories, returns metrics.

    `reference` is the model before reinforcement, None exactly when `kl_coef` is 0. `temperature`
    is that of sampling, `token_budget` the most model tokens a trajectory may have.
    """
    started = time.perf_counter()
    device = model.head_weight.device
    sound, groups = group_advantages(trajectories, section.variant)
    norm = Normaliser(
        sequences=len(sound),
        tokens=sum(trajectory.response_length for trajectory in sound),
        budget=token_budget,
    )
    taught = [t for t in sound if t.response_length and (section.kl_coef or t.advantage)]
    metrics: dict[str, float] = defaultdict(float)
    metrics |= {f"group/{name}": float(count) for name, count in asdict(groups).items()}
    if taught:
        sequences = [from_trajectory(trajectory) for trajectory in taught]
        batches = micro_batches(sequences, section.micro_tokens, device)
        advantage_B = torch.tensor([t.advantage for t in taught], device=device)
        length_B = torch.tensor([s.targets for s in sequences], device=device)
        references = [_reference_logprobs(reference, batch, temperature) for batch in batches]
        loss_of = LOSSES[section.variant]
        for _ in range(section.updates_per_step):
            sums: dict[str, float] = defaultdict(float)
            for batch, reference_N in zip(batches, references, strict=True):
                logprob_N, entropy_N = target_logprobs(model, batch, temperature)
                terms = TokenTerms(
                    logprob_N=logprob_N,
                    old_logprob_N=batch.old_logprob_N,
                    reference_N=reference_N,
                    advantage_N=advantage_B[batch.sequence_N],
                    length_N=length_B[batch.sequence_N],
                )
                loss = loss_of(terms, norm, section)
                loss.backward()
                sums["loss"] += float(loss.detach())
                sums["entropy"] += float(entropy_N.detach().sum())
                _add_metrics(sums, token_metrics(terms, section))
            metrics |= optimizer.step()
        tokens = sum(len(batch.target_N) for batch in batches)
        per_token = ("entropy", "clip/fraction", "mismatch/mean", "kl/reference")
        metrics |= {k: v / tokens if k in per_token else v for k, v in sums.items()}
    metrics["time/train"] = time.perf_counter() - started
    return dict(metrics)


@torch.no_grad()
def _reference_logprobs(
    reference: Decoder | None, batch: PackedBatch, temperature: float
) -> Tensor | None:
    return None if reference is None else target_logprobs(reference, batch, temperature)[0]


def _add_metrics(sums: dict[str, float], parts: dict[str, Tensor]) -> None:
    for name, value in parts.items():
        if name == "ratio/max_deviation":
            sums[name] = max(sums[name], float(value))
        else:
            sums[name] += float(value)
