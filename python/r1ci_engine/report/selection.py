"""Which trajectories a page shows: few, telling, and the same ones every time.

A long run has more than any page can hold. Picked are the first and last steps of every stage
and, among their groups, those that are mixed (only they teach), one task at a time. Of the
held-out items, one per task, preferring those whose answer changed between the moments, and
some that were lost, so that the page does not flatter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from r1ci_engine.report.folder import RunFolder
from r1ci_engine.report.summary import MOMENTS
from r1ci_engine.trajectory import Trajectory

GROUPS_PER_STEP = 4
LOST_SHOWN = 2


@dataclass(frozen=True)
class Changes:
    """How one sample per held-out item fared from the first to the last evaluated moment."""

    first: str
    last: str
    gained: int
    lost: int
    stayed_right: int
    stayed_wrong: int


def pick_steps(steps: Sequence[int], stages: Sequence[Mapping[str, Any]]) -> list[int]:
    """The first and last kept step of the run and of each stage, rising."""
    if not steps:
        return []
    picked = {steps[0], steps[-1]}
    for stage in stages:
        inside = [step for step in steps if stage["first_step"] <= step <= stage["last_step"]]
        picked.update(inside[:1] + inside[-1:])
    return sorted(picked)


def pick_groups(
    trajectories: Sequence[Trajectory], limit: int = GROUPS_PER_STEP
) -> list[list[Trajectory]]:
    """Up to `limit` groups: mixed before uniform, each task once before any twice."""
    groups: dict[str, list[Trajectory]] = {}
    for trajectory in trajectories:
        groups.setdefault(trajectory.item_id, []).append(trajectory)
    seen: dict[str, int] = {}
    ranked: list[tuple[int, bool, int, list[Trajectory]]] = []
    by_teaching = sorted(groups.values(), key=lambda g: len({t.correct for t in g}) < 2)
    for place, group in enumerate(by_teaching):
        turn = seen.setdefault(group[0].task, 0)
        seen[group[0].task] += 1
        ranked.append((turn, len({t.correct for t in group}) < 2, place, group))
    ranked.sort(key=lambda entry: entry[:3])
    return [sorted(group, key=lambda t: (t.agent, t.sample_index)) for *_, group in ranked[:limit]]


def heldout_answers(
    run: RunFolder,
) -> tuple[list[list[tuple[str, Trajectory]]], Changes | None]:
    """One item per task (and some lost ones) by moment, and the count of all changes.

    ([], None) if nothing was evaluated; no changes if only one moment was.
    """
    answers: dict[str, dict[str, Trajectory]] = {}
    moments: list[str] = []
    for moment in MOMENTS:
        first_samples = [t for t in run.phase_trajectories(f"eval_{moment}") if not t.sample_index]
        if first_samples:
            moments.append(moment)
        for trajectory in first_samples:
            answers.setdefault(trajectory.item_id, {})[moment] = trajectory
    whole = [by for by in answers.values() if len(by) == len(moments)]
    if not whole:
        return [], None
    first, last = moments[0], moments[-1]

    def change(by: Mapping[str, Trajectory]) -> int:
        """0 gained, 1 lost, 2 stayed right, 3 stayed wrong."""
        return {(False, True): 0, (True, False): 1, (True, True): 2, (False, False): 3}[
            by[first].correct, by[last].correct
        ]

    ordered = sorted(whole, key=change)
    per_task: dict[str, dict[str, Trajectory]] = {}
    for by in ordered:
        per_task.setdefault(by[first].task, by)
    picked = [by for _, by in sorted(per_task.items())]
    lost = [by for by in ordered if change(by) == 1 and by not in picked]
    rows = [[(moment, by[moment]) for moment in moments] for by in picked + lost[:LOST_SHOWN]]
    if len(moments) < 2:
        return rows, None
    kinds = [change(by) for by in whole]
    return rows, Changes(
        first, last, kinds.count(0), kinds.count(1), kinds.count(2), kinds.count(3)
    )
