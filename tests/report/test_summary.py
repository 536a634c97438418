"""Accuracy by task, the overall means, and the content of summary.json."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from report.synthetic import HELDOUT, TASKS, items, trajectory

from r1ci_engine.report.folder import RunFolder
from r1ci_engine.report.summary import (
    build_summary,
    read_accuracies,
    task_accuracies,
    write_summary,
)
from r1ci_engine.trajectory import StopReason, Trajectory


def sample(task: str, item: str, correct: bool, faulty: bool = False) -> Trajectory:
    made = trajectory(items("eval", 1)[0], 0, 1.0, random.Random(0))
    stop = StopReason.INFRASTRUCTURE if faulty else StopReason.END
    return replace(made, task=task, item_id=item, correct=correct, stop_reason=stop)


def test_shares_leave_faults_out_and_means_count_tasks_alike():
    rows = task_accuracies(
        {"a": "eval", "b": "eval", "h": "heldout"},
        {
            "before": [sample("a", "1", True), sample("a", "2", False), sample("b", "3", True)],
            "sft": [sample("a", "1", True), sample("a", "2", True, faulty=True)],
            "rl": [sample("h", "9", False)],
        },
    )
    assert [(r.task, r.split, r.before, r.sft, r.rl, r.items) for r in rows] == [
        ("a", "heldout_items", 0.5, 1.0, None, 2),
        ("b", "heldout_items", 1.0, None, None, 1),
        ("h", "heldout_tasks", None, None, 0.0, 1),
    ]
    summary = build_summary(rows, seconds=12.34, peak_rss_mb=100, steps=7)
    assert summary["accuracy"] == {
        "heldout_items": {"before": 0.75, "sft": 1.0, "rl": None},
        "heldout_tasks": {"before": None, "sft": None, "rl": 0.0},
    }
    assert (summary["seconds"], summary["peak_rss_mb"], summary["steps"]) == (12.3, 100, 7)


def test_a_run_gives_the_same_rows_from_trajectories_and_from_its_summary(
    finished_run: Path, tmp_path: Path
):
    rows = read_accuracies(RunFolder.open(finished_run))
    assert {row.task for row in rows if row.split == "heldout_items"} == {
        f"starter/{task}" for task in TASKS
    }
    assert {row.task for row in rows if row.split == "heldout_tasks"} == {
        f"starter/{task}" for task in HELDOUT
    }
    assert all(row.items == 8 and None not in (row.before, row.sft, row.rl) for row in rows)
    (tmp_path / "config.toml").write_text("seed = 0\n")
    write_summary(tmp_path / "summary.json", build_summary(rows, seconds=1, peak_rss_mb=1, steps=1))
    assert set(json.loads((tmp_path / "summary.json").read_text())) == {
        "accuracy", "by_task", "seconds", "peak_rss_mb", "steps",
    }  # fmt: skip
    assert read_accuracies(RunFolder.open(tmp_path)) == rows


def test_an_unfinished_run_has_what_it_has(killed_run: Path):
    rows = read_accuracies(RunFolder.open(killed_run))
    assert all(row.rl is None and row.sft is not None for row in rows)


@pytest.mark.parametrize("content", [None, "", "not json", '{"half": '])
def test_a_summary_cut_short_is_as_none(finished_run: Path, tmp_path: Path, content: str | None):
    (tmp_path / "config.toml").write_text("seed = 0\n")
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    assert RunFolder.open(tmp_path).summary is None
    assert read_accuracies(RunFolder.open(tmp_path)) == []
