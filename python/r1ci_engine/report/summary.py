"""Accuracy before SFT, after SFT and after RL, as the run's trajectories have it.

Accuracy of a task is the share of right answers among the sound samples of its held-out items;
the two overall figures are means over tasks, each task counting the same. Faulty samples (the
sandbox failed, not the model) are left out. A moment that was not evaluated is None.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from r1ci_engine.report.folder import RunFolder
from r1ci_engine.report.records import TaskAccuracy
from r1ci_engine.trajectory import Trajectory

MOMENTS = ("before", "sft", "rl")
SPLIT_NAMES: dict[str, Literal["heldout_items", "heldout_tasks"]] = {
    "eval": "heldout_items",
    "heldout": "heldout_tasks",
}


def task_accuracies(
    splits: Mapping[str, str], moments: Mapping[str, Iterable[Trajectory]]
) -> list[TaskAccuracy]:
    """Rows for all evaluated tasks: held-out items first, each part by name.

    `splits`: task -> `eval` or `heldout`; `moments`: `before`, `sft`, `rl` -> trajectories.
    """
    right: dict[tuple[str, str], list[bool]] = {}
    items: dict[str, set[str]] = {}
    for moment, trajectories in moments.items():
        for trajectory in trajectories:
            items.setdefault(trajectory.task, set()).add(trajectory.item_id)
            if not trajectory.faulty:
                right.setdefault((trajectory.task, moment), []).append(trajectory.correct)

    def share(task: str, moment: str) -> float | None:
        samples = right.get((task, moment))
        return sum(samples) / len(samples) if samples else None

    rows = [
        TaskAccuracy(
            task=task,
            split=SPLIT_NAMES[splits.get(task, "eval")],
            before=share(task, "before"),
            sft=share(task, "sft"),
            rl=share(task, "rl"),
            items=len(seen),
        )
        for task, seen in items.items()
    ]
    return sorted(rows, key=lambda row: (row.split, row.task))


def read_accuracies(run: RunFolder) -> list[TaskAccuracy]:
    """Rows of a run: from its summary if it has ended, else from what was evaluated so far."""
    if run.summary and run.summary.by_task:
        return list(run.summary.by_task)
    return task_accuracies(
        run.splits(),
        {moment: run.phase_trajectories(f"eval_{moment}") for moment in MOMENTS},
    )


def mean_accuracy(rows: Sequence[TaskAccuracy], split: str, moment: str) -> float | None:
    """Mean over the tasks of a split; None if none of them was evaluated at that moment."""
    shares = [getattr(row, moment) for row in rows if row.split == split]
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None


def build_summary(
    rows: Sequence[TaskAccuracy], *, seconds: float, peak_rss_mb: float, steps: int
) -> dict[str, Any]:
    """The content of `summary.json`."""
    return {
        "accuracy": {
            split: {moment: mean_accuracy(rows, split, moment) for moment in MOMENTS}
            for split in SPLIT_NAMES.values()
        },
        "by_task": [row.model_dump() for row in rows],
        "seconds": round(seconds, 1),
        "peak_rss_mb": round(peak_rss_mb, 1),
        "steps": steps,
    }


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json` in one step."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
