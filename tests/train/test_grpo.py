"""The reinforcement step against a naive second implementation, and at its edges."""

import math
import random
from typing import Any

import pytest
import torch
from tiny_models import tiny_config, tiny_model
from torch import Tensor
from train_world import (
    BUDGET,
    MODEL,
    PROMPT,
    TOOL,
    TWO_TURNS,
    GradientCatcher,
    flat,
    make_trajectory,
    plain_step_gradient,
    record_logprobs,
    relative_error,
    tiny_pair,
    uneven_batch,
)

from r1ci_engine.config import GrpoSection, OptimizerSection
from r1ci_engine.kernels import (
    Normaliser,
    PolicyLoss,
    Tokens,
    linear_grpo_loss_reference,
    policy_loss,
    token_weights,
)
from r1ci_engine.kernels.policy_loss import Variant
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.exact import rows_are_exact
from r1ci_engine.train import grpo
from r1ci_engine.train.advantages import group_advantages
from r1ci_engine.train.batch import from_trajectory, micro_batches
from r1ci_engine.train.grpo import grpo_step, policy_loss_of
from r1ci_engine.train.optimizer import Optimizer
from r1ci_engine.train.policy import target_logprobs
from r1ci_engine.trajectory import Trajectory

VARIANTS: tuple[Variant, ...] = ("grpo", "dr_grpo", "dapo", "gspo", "cispo")
CLOSE = 2e-5
"""Relative error of an fp32 gradient against another order of the same sums."""


def step_gradient(
    model: Decoder,
    reference: Decoder | None,
    trajectories: list[Trajectory],
    section: GrpoSection,
    temperature: float = 1.0,
) -> Tensor:
    catcher = GradientCatcher(model)
    grpo_step(
        model,
        reference,
        catcher,  # pyright: ignore[reportArgumentType]
        trajectories,
        section,
        temperature=temperature,
        token_budget=BUDGET,
    )
    return flat(catcher.caught[0])


def real_step(
    model: Decoder, trajectories: list[Trajectory], section: GrpoSection, optimizer: Any = None
) -> dict[str, float]:
    return grpo_step(
        model,
        None,
        optimizer or Optimizer(model, section.optimizer, 10),
        trajectories,
        section,
        temperature=1.0,
        token_budget=BUDGET,
    )


def sampled(model: Decoder, *, noise: float = 0.0, temperature: float = 1.0) -> list[Trajectory]:
    trajectories = uneven_batch()
    record_logprobs(model, trajectories, temperature, noise)
    return trajectories


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("micro_tokens", [48, 4096])
def test_the_step_is_the_naive_one(variant: Variant, micro_tokens: int) -> None:
    """Packing, accumulation, tool mask, divergence, ratios, temperature.

    Leaving out any one of them would show.
    """
    model, reference = tiny_pair()
    trajectories = sampled(model, noise=0.2, temperature=0.7)
    section = GrpoSection(
        variant=variant,
        kl_coef=0.3,
        micro_tokens=micro_tokens,
        **({"clip_low": 0.01, "clip_high": 0.01} if variant == "gspo" else {}),
    )
    right = plain_step_gradient(model, reference, trajectories, section, temperature=0.7)
    found = step_gradient(model, reference, trajectories, section, temperature=0.7)
    assert relative_error(found, right) < CLOSE

    other_variant = VARIANTS[VARIANTS.index(variant) - 1]
    broken = {
        "variant": (section.model_copy(update={"variant": other_variant}), reference, 0.7),
        "divergence": (section.model_copy(update={"kl_coef": 0.0}), None, 0.7),
        "temperature": (section, reference, 1.0),
        "clip": (section.model_copy(update={"clip_low": 1.0, "clip_high": 9.0}), reference, 0.7),
    }
    for term, (changed, other, temperature) in broken.items():
        wrong = step_gradient(model, other, trajectories, changed, temperature)
        assert relative_error(wrong, right) > 1e-3, term
    for trajectory in trajectories:
        trajectory.logprobs = [0.0] * len(trajectory.logprobs)
    wrong = step_gradient(model, reference, trajectories, section, temperature=0.7)
    assert relative_error(wrong, right) > 1e-3, "ratio"


@pytest.mark.parametrize("variant", VARIANTS)
def test_fused_and_full_logits_agree(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """One loss function serves both paths."""
    model, reference = tiny_pair()
    trajectories = sampled(model, noise=0.2)
    section = GrpoSection(variant=variant, kl_coef=0.3, micro_tokens=64)
    fused = step_gradient(model, reference, trajectories, section)
    monkeypatch.setattr(grpo, "linear_grpo_loss", linear_grpo_loss_reference)
    assert relative_error(fused, step_gradient(model, reference, trajectories, section)) < CLOSE


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_add_up_to_one_process(variant: Variant, world: int) -> None:
    """With global counts the sum over ranks is the gradient; a mean would not be."""
    model, _ = tiny_pair()
    section = GrpoSection(variant=variant, kl_coef=0.0)
    trajectories = sampled(model, noise=0.2)
    right = step_gradient(model, None, trajectories, section)
    group_advantages(trajectories, variant)
    sequences = [from_trajectory(trajectory) for trajectory in trajectories]
    norm = Normaliser(len(sequences), sum(s.targets for s in sequences), BUDGET)
    catcher = GradientCatcher(model)
    for rank in range(world):
        for batch in micro_batches(sequences[rank::world], 64):
            logprob_N, _ = target_logprobs(model, batch)
            tokens = Tokens(
                batch.advantage_N,
                token_weights(variant, batch.length_N, norm),
                batch.old_logprob_N,
                sequence_N=batch.sequence_N,
            )
            policy_loss(logprob_N, logprob_N, tokens, policy_loss_of(section)).backward()
        catcher.step()
    by_rank = [flat(gradient) for gradient in catcher.caught]
    assert relative_error(torch.stack(by_rank).sum(0), right) < CLOSE
    assert relative_error(torch.stack(by_rank).mean(0), right) > 0.1


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_without_a_word_change_nothing(variant: Variant) -> None:
    """They have no tokens, so they are in no divisor either."""
    model, _ = tiny_pair()
    section = GrpoSection(variant=variant, kl_coef=0.0)
    trajectories = sampled(model)
    before = step_gradient(model, None, trajectories, section)
    empty = [make_trajectory(((PROMPT, 9),), item="empty", sample=i) for i in range(3)]
    assert relative_error(step_gradient(model, None, [*trajectories, *empty], section), before) == 0


def test_dr_grpo_divides_by_the_budget_not_by_what_was_used() -> None:
    """A longer neighbour leaves the gradient of a short answer alone."""
    model, _ = tiny_pair()
    section = GrpoSection(variant="dr_grpo", kl_coef=0.0)
    short = [
        make_trajectory(((PROMPT, 4), (MODEL, 3)), sample=i, reward=float(i)) for i in range(2)
    ]

    def with_neighbours(length: int) -> Tensor:
        neighbours = [
            make_trajectory(((PROMPT, 4), (MODEL, length)), item="other", sample=i)
            for i in range(2)
        ]
        record_logprobs(model, short + neighbours)
        return step_gradient(model, None, short + neighbours, section)

    assert relative_error(with_neighbours(40), with_neighbours(3)) < CLOSE


def test_nothing_but_masked_tokens_is_a_skipped_step() -> None:
    """A finite zero loss, unchanged weights, and it is counted."""
    model, _ = tiny_pair()
    before = [p.detach().clone() for p in model.parameters()]
    empty = [make_trajectory(((PROMPT, 5),), sample=i, reward=float(i)) for i in range(3)]
    faulty = [make_trajectory(TWO_TURNS, item="faulty", sample=i, faulty=True) for i in range(3)]
    for trajectories in (empty, faulty, []):
        metrics = real_step(model, trajectories, GrpoSection(kl_coef=0.0))
        assert metrics["loss"] == 0.0 and metrics["grad/skipped"] == 1.0
        assert metrics["grad/norm"] == 0.0
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_garbage_at_masked_positions_does_not_leak(value: float) -> None:
    """Not through a multiplication by 0 either."""
    model, _ = tiny_pair()
    section = GrpoSection(kl_coef=0.0)
    trajectories = sampled(model)
    clean = step_gradient(model, None, trajectories, section)
    for trajectory in trajectories:
        for at, written in enumerate(trajectory.model_mask()):
            if not written:
                trajectory.logprobs[at] = value
    assert relative_error(step_gradient(model, None, trajectories, section), clean) == 0


def test_the_ratio_leaves_one_with_the_second_update() -> None:
    """Old log-probabilities are those of sampling, so the clip begins to act."""
    optimizer = OptimizerSection(lr=3e-2)
    model, _ = tiny_pair()
    once = real_step(
        model, sampled(model), GrpoSection(kl_coef=0.0, micro_tokens=64, optimizer=optimizer)
    )
    assert once["ratio/max_deviation"] < 1e-4 and once["clip/fraction"] == 0.0
    model, _ = tiny_pair()
    section = GrpoSection(kl_coef=0.0, micro_tokens=64, optimizer=optimizer, updates_per_step=3)
    trice = real_step(model, sampled(model), section)
    assert trice["ratio/max_deviation"] > 0.1 and trice["clip/fraction"] > 0.01
    assert trice["mismatch/mean"] < 1e-5, "speaks of the policy that sampled"


def test_the_first_ratio_is_exactly_one() -> None:
    """In fp32 on a CPU, sampled alone and trained in a pack, not one bit differs."""
    model, _ = tiny_pair()
    trajectories = uneven_batch()
    for trajectory in trajectories:
        (alone,) = micro_batches([from_trajectory(trajectory)], 4096)
        logprob_N, _ = target_logprobs(model, alone)
        for row, value in zip(alone.rows_N.tolist(), logprob_N.tolist(), strict=True):
            trajectory.logprobs[row + 1] = value
    metrics = real_step(model, trajectories, GrpoSection(kl_coef=0.0, micro_tokens=96))
    assert metrics["ratio/max_deviation"] <= (0.0 if rows_are_exact() else 1e-4)
    assert metrics["grad/norm"] > 0


def test_a_loss_of_zero_has_a_gradient() -> None:
    """Equal lengths cancel in the loss; the metrics beside it show that it learns."""
    model, _ = tiny_pair()
    trajectories = [make_trajectory(TWO_TURNS, sample=i, reward=float(i % 2)) for i in range(4)]
    record_logprobs(model, trajectories)
    metrics = real_step(model, trajectories, GrpoSection(kl_coef=0.0))
    assert abs(metrics["loss"]) < 1e-6 < 1e-3 < metrics["grad/norm"]
    assert "clip/fraction" in metrics


def test_the_divergence_changes_the_gradient() -> None:
    """Also where no answer is better than another."""
    model, reference = tiny_pair()
    trajectories = sampled(model)
    without = step_gradient(model, None, trajectories, GrpoSection(kl_coef=0.0))
    with_it = step_gradient(model, reference, trajectories, GrpoSection(kl_coef=0.1))
    assert relative_error(with_it, without) > 1e-3
    for trajectory in trajectories:
        trajectory.reward = type(trajectory.reward)()
    only = step_gradient(model, reference, trajectories, GrpoSection(kl_coef=0.1))
    assert float(only.norm()) > 0


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_tool_output_changes_no_loss_of_its_own(kl_coef: float) -> None:
    """Tool tokens at the end condition nothing, so they must not matter at all."""
    model, reference = tiny_pair()
    trajectories = [
        make_trajectory(((PROMPT, 4), (MODEL, 6), (TOOL, 5)), sample=i, reward=float(i))
        for i in range(3)
    ]
    record_logprobs(model, trajectories)
    section = GrpoSection(kl_coef=kl_coef)
    other = reference if kl_coef else None
    before = step_gradient(model, other, trajectories, section)
    for trajectory in trajectories:
        trajectory.tokens[-5:] = [3, 1, 4, 1, 5]
    assert relative_error(step_gradient(model, other, trajectories, section), before) == 0


def test_the_stop_token_is_learnt() -> None:
    """Its own log-probability rises when the answer was right."""
    model = tiny_model(tiny_config())
    section = GrpoSection(kl_coef=0.0, optimizer=OptimizerSection(lr=1e-2))
    stop = 273
    right, wrong = (
        make_trajectory(((PROMPT, 4), (MODEL, 1)), sample=i, reward=float(i == 0)) for i in range(2)
    )
    wrong.tokens = [*right.tokens[:4], 7]
    right.tokens[4] = stop
    record_logprobs(model, [right, wrong])
    before = right.logprobs[4]
    real_step(model, [right, wrong], section)
    record_logprobs(model, [right])
    assert right.logprobs[4] > before + 0.01


def test_shuffled_rows_are_the_same_step() -> None:
    """Advantages belong to answers, wherever these stand in the batch."""
    model, reference = tiny_pair()
    trajectories = sampled(model, noise=0.1)
    section = GrpoSection(kl_coef=0.1)
    before = step_gradient(model, reference, trajectories, section)
    random.Random(1).shuffle(trajectories)
    assert relative_error(step_gradient(model, reference, trajectories, section), before) < CLOSE


def test_a_faulty_group_counts_nowhere() -> None:
    """The step is that of the other groups."""
    model, _ = tiny_pair()
    section = GrpoSection(kl_coef=0.0)
    trajectories = sampled(model)
    before = step_gradient(model, None, trajectories, section)
    spoilt = [make_trajectory(item="x", sample=i, faulty=i == 0, reward=i % 2) for i in range(3)]
    together = trajectories + spoilt
    assert relative_error(step_gradient(model, None, together, section), before) == 0
    assert real_step(model, together, section)["group/faulty"] == 1.0


@pytest.mark.parametrize("variant", [*VARIANTS, "bnpo"])
def test_silent_groups_are_seen_but_not_trained(variant: Variant) -> None:
    """Without a divergence they weigh in entropy and divisor, and have no backward pass."""
    model, _ = tiny_pair()
    section = GrpoSection(variant=variant, kl_coef=0.0)
    trajectories = sampled(model)
    silent = [make_trajectory(TWO_TURNS, item="silent", sample=i) for i in range(4)]
    record_logprobs(model, silent)
    alone = step_gradient(model, None, trajectories, section)
    together = step_gradient(model, None, trajectories + silent, section)
    tokens = [sum(sum(t.model_mask()[1:]) for t in some) for some in (trajectories, silent)]
    by_tokens = (tokens[0] + tokens[1]) / tokens[0]
    factor = by_tokens if variant in ("dapo", "cispo", "bnpo") else 12 / 8
    assert relative_error(together * factor, alone) < CLOSE
    only_silent = real_step(model, silent, section)
    assert only_silent["entropy"] > 0 and only_silent["grad/skipped"] == 1.0


@pytest.mark.parametrize(
    ("changes", "factor"),
    [
        ({"mismatch": "tis", "mismatch_high": 2.0}, 1.5),
        ({"mismatch": "tis", "mismatch_high": 1.2}, 1.2),
        ({"mismatch": "icepop", "mismatch_high": 2.0}, 1.5),
        ({"mismatch": "icepop", "mismatch_high": 1.4}, 0.0),
    ],
)
def test_where_the_sampler_disagrees_tokens_are_weighed(
    changes: dict[str, Any], factor: float
) -> None:
    """The ratio starts from the trainer's own log-probability, and so at 1, inside the clip."""
    model, _ = tiny_pair()
    heat = 0.7
    trajectories = sampled(model, temperature=heat)
    section = GrpoSection(kl_coef=0.0, micro_tokens=64)
    right = step_gradient(model, None, trajectories, section, heat)
    for trajectory in trajectories:  # the sampler found every token less likely by a third
        trajectory.logprobs = [value - math.log(1.5) for value in trajectory.logprobs]
    found = step_gradient(model, None, trajectories, section.model_copy(update=changes), heat)
    if factor:
        assert relative_error(found, factor * right) < CLOSE
    else:
        assert float(found.norm()) == 0.0
    left_alone = step_gradient(model, None, trajectories, section, heat)
    assert relative_error(left_alone, right) > 0.1, "without it the ratio is 1.5 and is clipped"


def test_a_configuration_reaches_the_loss_field_by_field() -> None:
    changed = {
        "variant": "dapo", "clip_low": 0.1, "clip_high": 0.3, "clip_dual": 2.5, "kl": "k2",
        "kl_coef": 0.5, "entropy_coef": 0.25, "mismatch": "icepop", "mismatch_low": 0.75,
        "mismatch_high": 4.0,
    }  # fmt: skip
    made = vars(policy_loss_of(GrpoSection.model_validate(changed)))
    assert made == changed
    assert all(made[name] != default for name, default in vars(PolicyLoss()).items())
    assert policy_loss_of(GrpoSection()).clip_dual is None


def test_updates_share_one_loss() -> None:
    """The loss of a step is the mean over its updates, so that it does not grow with them."""
    values = []
    for updates in (1, 4):
        model, _ = tiny_pair()
        section = GrpoSection(
            variant="dapo",
            kl_coef=0.0,
            updates_per_step=updates,
            optimizer=OptimizerSection(lr=1e-12),
        )
        values.append(real_step(model, sampled(model, noise=0.2), section)["loss"])
    assert values[0] != 0 and values[1] == pytest.approx(values[0], rel=1e-5)


def test_an_entropy_bonus_teaches_silent_groups_too() -> None:
    model, _ = tiny_pair()
    silent = [make_trajectory(TWO_TURNS, item="silent", sample=i) for i in range(4)]
    record_logprobs(model, silent)
    section = GrpoSection(kl_coef=0.0, entropy_coef=0.1, optimizer=OptimizerSection(lr=1e-2))
    before = real_step(model, silent, section)
    assert before["grad/skipped"] == 0.0 and before["grad/norm"] > 0
    assert real_step(model, silent, section)["entropy"] > before["entropy"]


def test_metrics_carry_the_names_users_look_for() -> None:
    model, reference = tiny_pair()
    section = GrpoSection(kl_coef=0.1)
    metrics = grpo_step(
        model,
        reference,
        Optimizer(model, section.optimizer, 10),
        sampled(model),
        section,
        temperature=1.0,
        token_budget=BUDGET,
    )
    assert set(metrics) == {
        "loss", "lr", "grad/norm", "grad/skipped", "clip/fraction", "kl/reference",
        "ratio/max_deviation", "mismatch/mean", "entropy", "group/all_right", "group/all_wrong",
        "group/mixed", "group/faulty", "time/train",
    }  # fmt: skip
    assert metrics["group/mixed"] == 1.0 and metrics["kl/reference"] > 0
