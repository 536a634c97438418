"""The reinforcement step, whole: advantages, packing, reference, loss, update.

Left out: sampling, code and judging; they are over when this begins. The formulas are in
`kernels/policy_loss.py`; `kernels/linear_grpo_loss.py` computes them together with the head.

Old log-probabilities are those of sampling time (with `mismatch`, the trainer's own from before the
first update) and stay fixed over all updates of the step: the ratio is 1 before the first update
and leaves it with the second, where the clip begins to act. Every update uses the whole rollout
batch.

A trajectory without advantage (its group was all right or all wrong) has no policy gradient. With
`kl_coef` or `entropy_coef` above 0 it is trained all the same, because these hold there as
everywhere. Without both it only has its forward pass, so that entropy and mismatch speak of all
that was sampled. Either way it counts in the normaliser: a hopeless item does not make the others
louder.

Shape suffix: N trained token of a micro-batch.
"""

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from r1ci_engine.config import GrpoSection
from r1ci_engine.kernels import (
    Normaliser,
    PolicyLoss,
    Tokens,
    linear_grpo_loss,
    token_metrics,
    token_weights,
)
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.train.advantages import group_advantages
from r1ci_engine.train.batch import PackedBatch, from_trajectory, micro_batches
from r1ci_engine.train.optimizer import Optimizer
from r1ci_engine.train.policy import target_logprobs, trained_rows
from r1ci_engine.train.tally import Tally
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
    is that of sampling, `token_budget` the most model tokens a trajectory may have. Raises
    DataError if a trajectory lacks log-probabilities or does not fit a micro-batch.
    """
    assert (reference is None) == (section.kl_coef == 0)
    started = time.perf_counter()
    device = model.head_weight.device

    # Who did better than the other answers to the same item?
    sound, groups = group_advantages(trajectories, section.variant)
    sequences = [from_trajectory(trajectory) for trajectory in sound]
    held = section.kl_coef or section.entropy_coef  # what moves a token without an advantage
    if section.variant == "bnpo":  # whose divisor is what stands in a micro-batch
        held = held or any(sequence.advantage for sequence in sequences)
    taught = [s for s in sequences if s.advantage or held]
    silent = [s for s in sequences if not (s.advantage or held)]
    batches = micro_batches(taught, section.micro_tokens, device)
    norm = Normaliser(
        sequences=sum(sequence.targets > 0 for sequence in sequences),
        tokens=sum(sequence.targets for sequence in sequences),
        budget=token_budget,
        micro_batches=len(batches),
    )

    # What needs no gradient: the reference, and the trajectories that are only looked at.
    tally = Tally()
    references: list[Tensor | None] = [None] * len(batches)
    olds = [batch.old_logprob_N for batch in batches]
    with torch.no_grad():
        if reference is not None:
            references = [target_logprobs(reference, batch, temperature)[0] for batch in batches]
        if section.mismatch != "none":
            olds = [target_logprobs(model, batch, temperature)[0] for batch in batches]
        for batch in micro_batches(silent, section.micro_tokens, device):
            tally.add(_as_sampled(batch, *target_logprobs(model, batch, temperature)))

    # Every micro-batch adds its share of one loss; then one step.
    policy_loss = policy_loss_of(section)
    metrics: dict[str, float] = {}
    loss = torch.zeros((), device=device)
    skipped = 0.0
    for update in range(section.updates_per_step):
        for batch, reference_N, old_N in zip(batches, references, olds, strict=True):
            tokens = Tokens(
                advantage_N=batch.advantage_N,
                weight_N=token_weights(section.variant, batch.length_N, norm),
                old_N=old_N,
                reference_N=reference_N,
                sampler_N=batch.old_logprob_N,
                sequence_N=batch.sequence_N,
            )
            hidden_ND = trained_rows(model, batch)
            share, logprob_N, entropy_N = linear_grpo_loss(
                hidden_ND, model.head_weight, batch.target_N, tokens, policy_loss, temperature
            )
            share.backward()
            loss += share.detach() / section.updates_per_step
            tally.add(token_metrics(logprob_N, tokens, policy_loss))
            if update == 0:
                tally.add(_as_sampled(batch, logprob_N, entropy_N))
        made = optimizer.step()
        skipped += made["grad/skipped"]
        metrics |= made

    metrics |= tally.result() | groups.shares()
    metrics["loss"], metrics["grad/skipped"] = float(loss), skipped
    metrics["time/train"] = time.perf_counter() - started
    return metrics


def policy_loss_of(section: GrpoSection) -> PolicyLoss:
    """The loss that a configuration asks for."""
    return PolicyLoss(
        variant=section.variant,
        clip_low=section.clip_low,
        clip_high=section.clip_high,
        clip_dual=section.clip_dual or None,
        kl=section.kl,
        kl_coef=section.kl_coef,
        entropy_coef=section.entropy_coef,
        mismatch=section.mismatch,
        mismatch_low=section.mismatch_low,
        mismatch_high=section.mismatch_high,
    )


def _as_sampled(batch: PackedBatch, logprob_N: Tensor, entropy_N: Tensor) -> dict[str, Tensor]:
    """What only makes sense before the first update, while the policy is the one that sampled."""
    return {
        "entropy": entropy_N.detach(),
        "mismatch/mean": (logprob_N.detach() - batch.old_logprob_N).abs(),
    }
