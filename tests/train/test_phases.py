"""One model through supervision and then reinforcement, as a run takes it."""

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pytest
import torch
from tiny_models import tiny_config, tiny_folder, tiny_model
from train_world import BUDGET, MODEL, PROMPT, TWO_TURNS, make_trajectory, record_logprobs

from r1ci_engine.config import GrpoSection, OptimizerSection, SftSection
from r1ci_engine.kernels.policy_loss import Variant
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.model.folder import load_model
from r1ci_engine.train.batch import from_trajectory
from r1ci_engine.train.checkpoint import load_latest, save_checkpoint
from r1ci_engine.train.grpo import grpo_step
from r1ci_engine.train.optimizer import Optimizer
from r1ci_engine.train.sft import sft_step
from r1ci_engine.trajectory import Trajectory

RATE = OptimizerSection(lr=3e-3)


def lessons(model: Decoder, optimizer: Optimizer) -> dict[str, float]:
    sequences = [from_trajectory(make_trajectory(TWO_TURNS, sample=i)) for i in range(3)]
    return sft_step(model, optimizer, sequences, SftSection(micro_tokens=40))


def answers(item: str = "item", rewards: Sequence[float] = (1.0, 0.0, 0.0)) -> list[Trajectory]:
    return [
        make_trajectory(((PROMPT, 5), (MODEL, 6 + i)), item=item, sample=i, reward=reward)
        for i, reward in enumerate(rewards)
    ]


def reinforce(
    model: Decoder, optimizer: Optimizer, trajectories: list[Trajectory], **changes: object
) -> dict[str, float]:
    section = GrpoSection.model_validate({"kl_coef": 0.0, "micro_tokens": 40} | changes)
    return grpo_step(
        model, None, optimizer, trajectories, section, temperature=1.0, token_budget=BUDGET
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_each_phase_has_an_optimizer_of_its_own(tmp_path: Path, dtype: torch.dtype) -> None:
    """What the first one left on the weights must not take the second one's gradients."""
    model = load_model(tiny_folder(tmp_path), dtype=dtype)
    optimizer = Optimizer(model, RATE, 10)
    for _ in range(2):
        assert lessons(model, optimizer)["grad/skipped"] == 0
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = Optimizer(model, RATE, 10)
    trajectories = answers()
    record_logprobs(model, trajectories)
    made = reinforce(model, optimizer, trajectories)
    assert made["grad/skipped"] == 0 and made["grad/norm"] > 0
    moved = [not torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True)]
    assert all(moved)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_reinforcement_goes_on_with_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    """With several updates per batch: state, schedule and divergence."""
    start = tiny_folder(tmp_path / "start", layers=1)
    reference = load_model(start, dtype=dtype).requires_grad_(False)
    section = GrpoSection(
        kl_coef=0.1, micro_tokens=64, updates_per_step=2, optimizer=RATE.model_copy(
            update={"warmup_steps": 3, "decay": "linear", "weight_decay": 0.1}
        ),
    )  # fmt: skip

    def steps(model: Decoder, optimizer: Optimizer, numbers: range) -> list[float]:
        norms = []
        for number in numbers:
            trajectories = answers(f"item {number}")
            record_logprobs(model, trajectories)
            metrics = grpo_step(
                model, reference, optimizer, trajectories, section,
                temperature=1.0, token_budget=BUDGET,
            )  # fmt: skip
            norms += [metrics["grad/norm"], metrics["lr"], metrics["kl/reference"]]
        return norms

    model = load_model(start, dtype=dtype)
    optimizer = Optimizer(model, section.optimizer, 8)
    expected = steps(model, optimizer, range(2))
    root = tmp_path / "checkpoints"
    save_checkpoint(root, "a", model, optimizer, {"step": 2}, tokenizer_files_from=start)
    expected = steps(model, optimizer, range(2, 4))
    assert min(expected) > 0

    found, _ = load_latest(root)
    assert found is not None
    resumed = load_model(found.model, dtype=dtype)
    going_on = Optimizer(resumed, section.optimizer, 8)
    state = found.optimizer_state()
    assert state is not None
    going_on.load_state_dict(state)
    assert steps(resumed, going_on, range(2, 4)) == expected
    for one, other in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_silent_batch_moves_nothing_although_there_is_momentum() -> None:
    """All right or all wrong, and no divergence: the weights keep every bit."""
    model = tiny_model(tiny_config(layers=1))
    optimizer = Optimizer(model, OptimizerSection(lr=1e-2, weight_decay=0.1), 10)
    trajectories = answers()
    record_logprobs(model, trajectories)
    assert reinforce(model, optimizer, trajectories)["grad/skipped"] == 0
    before = [parameter.detach().clone() for parameter in model.parameters()]
    silent = answers("right", (1.0, 1.0)) + answers("wrong", (0.0, 0.0))
    record_logprobs(model, silent)
    metrics = reinforce(model, optimizer, silent, updates_per_step=2)
    assert metrics["grad/skipped"] == 2 and metrics["loss"] == 0.0
    assert metrics["group/all_right"] == metrics["group/all_wrong"] == 0.5
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


@pytest.mark.parametrize("variant", get_args(Variant))
def test_what_was_rewarded_becomes_likelier_and_the_rest_less(variant: str) -> None:
    """The sign of it all, as a user would see it."""
    model = tiny_model(tiny_config(layers=1))
    optimizer = Optimizer(model, OptimizerSection(lr=1e-3), 10)
    trajectories = answers(rewards=(0.0, 1.1, 0.0, -0.1))

    def likelihoods() -> list[float]:
        record_logprobs(model, trajectories)
        return [sum(trajectory.logprobs) for trajectory in trajectories]

    before = likelihoods()
    for _ in range(3):
        reinforce(model, optimizer, trajectories, variant=variant)
        after = likelihoods()
    gained = [new - old for new, old in zip(after, before, strict=True)]
    assert gained[1] > 1.0
    assert max(gained[0], gained[2], gained[3]) < 0
