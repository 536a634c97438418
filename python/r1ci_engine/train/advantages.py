"""Group-relative advantages: how much better than its siblings an answer was.

A group is all trajectories of one item by one agent, found by name and never by position. A group
in which the sandbox failed once leaves the statistics as a whole: dropping only the failed sample
would bias the baseline towards whatever does not strain the sandbox.
"""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from r1ci_engine.trajectory import Trajectory

DEVIATION_FLOOR = 1e-6
"""Added to the deviation before dividing (as in the paper's framework)."""

SAME_REWARD = 1e-9
"""Rewards this close are equal: the group teaches nothing."""


@dataclass(frozen=True)
class GroupCounts:
    """What the groups of one step were like."""

    all_right: int
    all_wrong: int
    mixed: int
    """Some right, some wrong."""
    faulty: int
    """Groups left out because the sandbox failed; not among the others."""

    def shares(self) -> dict[str, float]:
        """As metrics: shares of the sound groups, and the number of faulty ones."""
        sound = max(1, self.all_right + self.all_wrong + self.mixed)
        return {
            "group/all_right": self.all_right / sound,
            "group/all_wrong": self.all_wrong / sound,
            "group/mixed": self.mixed / sound,
            "group/faulty": float(self.faulty),
        }


def group_advantages(
    trajectories: Sequence[Trajectory], variant: str
) -> tuple[list[Trajectory], GroupCounts]:
    """Set `advantage` on every trajectory; returns those of sound groups, in order, and counts.

    reward - group mean; all but `dr_grpo` divide it by the group's sample deviation (n - 1) plus
    `DEVIATION_FLOOR`. Groups of one and groups of equal rewards get 0.
    """
    groups: dict[tuple[str, str], list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        groups[trajectory.item_id, trajectory.agent].append(trajectory)
    sound: set[tuple[str, str]] = set()
    for name, members in groups.items():
        for trajectory in members:
            trajectory.advantage = 0.0
        if any(trajectory.faulty for trajectory in members):
            continue
        sound.add(name)
        rewards = [trajectory.reward.total for trajectory in members]
        if max(rewards) - min(rewards) <= SAME_REWARD:
            continue
        mean = statistics.fmean(rewards)
        scale = 1.0
        if variant != "dr_grpo":
            scale = statistics.stdev(rewards) + DEVIATION_FLOOR
        for trajectory, reward in zip(members, rewards, strict=True):
            trajectory.advantage = (reward - mean) / scale
    kept = [t for t in trajectories if (t.item_id, t.agent) in sound]
    right = [sum(t.correct for t in groups[name]) / len(groups[name]) for name in sound]
    return kept, GroupCounts(
        all_right=sum(share == 1 for share in right),
        all_wrong=sum(share == 0 for share in right),
        mixed=sum(0 < share < 1 for share in right),
        faulty=len(groups) - len(sound),
    )
