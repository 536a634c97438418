"""The metrics log: whole lines only, and none twice after a resume."""

import json
import math
from pathlib import Path

import pytest

from r1ci_engine.errors import DataError
from r1ci_engine.report.metrics import MetricsLog, read_metrics


def write_run(path: Path) -> None:
    with MetricsLog(path) as log:
        log.write("eval", 0, {"accuracy/eval/gcd": 0.1}, seconds=1)
        for step in (1, 2, 3):
            log.write("sft", step, {"loss": 1.0 / step}, seconds=step)
        log.write("measure", 3, {}, seconds=9)
        for step in (1, 2, 3):
            log.write("grpo", step, {"reward/mean": 0.5}, seconds=10 + step, stage=1)
        log.write("eval", 3, {}, seconds=20)


def test_lines_are_read_back_and_reach_the_file_at_once(tmp_path: Path):
    path = tmp_path / "run" / "metrics.jsonl"
    log = MetricsLog(path)
    log.write("grpo", 1, {"reward/mean": 0.25}, seconds=1.23456, stage=2)
    line = {"phase": "grpo", "step": 1, "stage": 2, "seconds": 1.235, "reward/mean": 0.25}
    assert read_metrics(path) == [line]  # before the log is closed
    log.close()


def test_what_is_not_finite_becomes_null_and_the_file_stays_json(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write("sft", 1, {"loss": math.nan, "grad/norm": math.inf, "ok": True}, seconds=0)
    record = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert (record["loss"], record["grad/norm"], record["ok"]) == (None, None, True)


def test_a_torn_last_line_is_skipped_and_then_removed(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    write_run(path)
    whole = read_metrics(path)
    content = path.read_bytes()
    last = content.rstrip(b"\n").rfind(b"\n") + 1
    for cut in range(last + 1, len(content)):
        path.write_bytes(content[:cut])
        assert read_metrics(path) == whole[:-1]
    with MetricsLog(path) as log:
        log.write("eval", 3, {}, seconds=20)
    assert read_metrics(path) == whole


def test_a_damaged_middle_line_is_named(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"phase": "sft", "step": 1}\nhalf a li\n{"phase": "sft", "step": 2}\n')
    with pytest.raises(DataError, match="line 2 is not JSON"):
        read_metrics(path)


@pytest.mark.parametrize(
    ("phase", "step", "kept"),
    [
        ("grpo", 2, 7),
        ("grpo", 0, 5),  # reinforcement begins again
        ("sft", 2, 3),  # all that followed in the file goes too
        ("eval", 0, 1),
        ("eval", 3, 9),
        ("convert", 5, 9),  # a phase that has not begun
    ],
)
def test_resuming_leaves_no_line_twice(tmp_path: Path, phase: str, step: int, kept: int):
    path = tmp_path / "metrics.jsonl"
    write_run(path)
    before = read_metrics(path)
    with MetricsLog(path) as log:
        assert log.truncate_after(phase, step) == len(before) - kept
        log.write("grpo", 99, {}, seconds=0)
    after = read_metrics(path)
    assert after[:-1] == before[:kept]
    assert after[-1]["step"] == 99


def test_no_file_has_no_lines(tmp_path: Path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
