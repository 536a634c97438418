"""Advantages: groups by name, pinned formulas, and groups that teach nothing."""

import random

import pytest
from train_world import make_trajectory

from r1ci_engine.train.advantages import DEVIATION_FLOOR, group_advantages


def group(rewards: list[float], item: str = "item") -> list:
    return [make_trajectory(item=item, sample=i, reward=r) for i, r in enumerate(rewards)]


@pytest.mark.parametrize("variant", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("right", [1, 4])
def test_closed_form_of_one_and_four_right_of_eight(variant: str, right: int) -> None:
    """The deviation has n - 1 below it and the floor is added, not maximised."""
    trajectories = group([1.0] * right + [0.0] * (8 - right))
    group_advantages(trajectories, variant)
    share = right / 8
    deviation = (8 / 7 * share * (1 - share)) ** 0.5
    scale = 1.0 if variant == "dr_grpo" else deviation + DEVIATION_FLOOR
    assert trajectories[0].advantage == pytest.approx((1 - share) / scale, rel=1e-12)
    assert trajectories[-1].advantage == pytest.approx(-share / scale, rel=1e-12)
    assert sum(t.advantage for t in trajectories) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("variant", ["grpo", "dapo", "dr_grpo"])
@pytest.mark.parametrize("rewards", [[1.0], [0.0], [1.1] * 5, [-0.1, -0.1]])
def test_a_group_of_one_and_equal_rewards_give_zero(variant: str, rewards: list[float]) -> None:
    """Neither NaN nor a division by nothing."""
    trajectories = group(rewards)
    group_advantages(trajectories, variant)
    assert [t.advantage for t in trajectories] == [0.0] * len(rewards)


def test_rewards_equal_to_a_billionth_are_equal() -> None:
    """0.1 + 0.2 is not a better answer than 0.3."""
    trajectories = group([0.3, 0.1 + 0.2, 0.3, 0.3 - 5e-10])
    group_advantages(trajectories, "grpo")
    assert [t.advantage for t in trajectories] == [0.0] * 4
    different = group([0.3, 0.3 + 1e-6])
    group_advantages(different, "grpo")
    assert different[1].advantage > 0.1


def test_advantages_follow_items_not_positions() -> None:
    """Shuffled rows keep their advantages."""
    trajectories = group([1, 0, 0], "a") + group([1, 1, 0], "b") + group([0, 0, 0], "c")
    group_advantages(trajectories, "grpo")
    before = {(t.item_id, t.sample_index): t.advantage for t in trajectories}
    random.Random(3).shuffle(trajectories)
    group_advantages(trajectories, "grpo")
    assert {(t.item_id, t.sample_index): t.advantage for t in trajectories} == before
    assert any(before.values())


def test_one_fault_takes_its_group_out_of_the_statistics() -> None:
    """A sandbox failure is not a wrong answer; its siblings lose their baseline with it."""
    sound = group([1, 0], "sound")
    spoilt = [*group([1, 0], "spoilt"), make_trajectory(item="spoilt", sample=2, faulty=True)]
    kept, counts = group_advantages(sound + spoilt, "grpo")
    assert kept == sound
    assert all(t.advantage == 0.0 for t in spoilt)
    assert (counts.mixed, counts.faulty) == (1, 1)
    assert counts.shares()["group/mixed"] == 1.0


def test_agents_are_not_compared_with_each_other() -> None:
    """The same item answered with and without code makes two groups."""
    with_code, in_text = group([1, 1]), group([0, 0])
    for trajectory in in_text:
        trajectory.agent = "text"
    group_advantages(with_code + in_text, "grpo")
    assert not any(t.advantage for t in with_code + in_text)


def test_counts_are_shares_of_the_sound_groups() -> None:
    trajectories = group([1, 1], "a") + group([0, 0], "b") + group([1, 0], "c") + group([0, 0], "d")
    _, counts = group_advantages(trajectories, "grpo")
    assert counts.shares() == {
        "group/all_right": 0.25,
        "group/all_wrong": 0.5,
        "group/mixed": 0.25,
        "group/faulty": 0.0,
    }
