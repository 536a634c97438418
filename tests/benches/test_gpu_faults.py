"""The GPU bench fails where it should, keeps what it has, and says what it did not find out."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
BENCHES = FOLDER.parents[1] / "benches"

Outcome = tuple[subprocess.CompletedProcess[str], dict[str, Any]]


def run(folder: Path, script: Path, *arguments: str) -> Outcome:
    path = folder / "gpu.json"
    command = [sys.executable, script, *arguments, "--self-check", "--json", path]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert path.exists(), done.stderr
    return done, json.loads(path.read_text())


def run_with(fault: str, folder: Path, *arguments: str) -> Outcome:
    return run(folder, FOLDER / "gpu_faults.py", fault, *arguments)


@pytest.mark.parametrize(
    ("fault", "check", "left_out"),
    [
        ("wrong_gate", "swiglu, 37 rows, result", {"rows"}),
        ("wrong_entropy", "tiny, gspo: entropy rms", {"operator"}),
        ("no_temperature", "tiny, one chunk: log-prob rms", {"operator"}),
        ("rounded_slope", "tiny, clipped: dhidden by the loss's slope", {"operator"}),
        ("wrong_row_stats", "row_stats, 33 rows: log-prob max", {"operator", "rows"}),
    ],
)
def test_a_wrong_kernel_fails_its_check_and_what_is_built_on_it_is_not_timed(
    fault: str, check: str, left_out: set[str], tmp_path: Path
) -> None:
    done, report = run_with(fault, tmp_path)
    assert done.returncode == 1 and "checks failed" in done.stderr
    assert any(name.startswith(check) for name in report["failed"])
    assert "FAILED" in done.stdout
    assert ("cases" in report, "rows" in report) == (
        "operator" not in left_out,
        "rows" not in left_out,
    )
    assert report["ceilings"]["products"] and report["invariance"]
    assert {left["what"] for left in report["left_out"]} & {"operator", "rows"} == left_out
    assert "WARNING: " in done.stdout and report["failed"][0] in done.stdout


def test_wrong_kernels_are_timed_where_asked_and_the_run_still_fails(tmp_path: Path) -> None:
    parts = ("--only", "checks", "operator")
    done, report = run_with("wrong_gate", tmp_path, "--despite-failures", *parts)
    assert done.returncode == 1 and report["despite_failures"]
    assert len(report["cases"]) == 3
    assert ": met, but checks failed" in done.stdout and ": met\n" not in done.stdout


def test_a_contender_without_memory_stays_in_the_results(tmp_path: Path) -> None:
    done, report = run_with("no_memory_for_plain", tmp_path, "--only", "operator")
    assert done.returncode == 0, done.stderr
    assert len(report["cases"]) == 3
    for case in report["cases"]:
        assert case["results"]["full logits, step"]["failure"] == "out of memory"
        assert case["results"]["full logits, step"]["ms"] is None
        assert case["results"]["one pass"]["ms"] > 0
        assert case["beside"]["one pass"]["full logits, step"] is None
    assert "WARNING: kernels were not checked in this run" in done.stdout
    assert ": met, but not checked" in done.stdout and ": met\n" not in done.stdout


def test_a_check_without_memory_is_not_made_and_not_good(tmp_path: Path) -> None:
    done, report = run_with("no_memory_for_checks", tmp_path, "--only", "checks", "operator")
    assert done.returncode == 0, done.stderr
    assert report["not_made"] == ["tiny log-prob"] and report["failed"] == []
    (left,) = (x for x in report["left_out"] if x["what"] == "check of tiny log-prob")
    assert left["reason"] == "out of memory" and not left["failed"]
    assert "WARNING: checks not made: tiny log-prob" in done.stdout
    assert ": met, but not all was checked" in done.stdout


def test_our_own_failing_while_it_is_timed_is_not_taken_for_a_good_run(tmp_path: Path) -> None:
    done, report = run_with("lost_in_one_pass", tmp_path, "--only", "operator")
    assert done.returncode == 1 and "failed: tiny one pass at 64 tokens" in done.stderr
    assert "WARNING: failed while it was timed: tiny one pass at 64 tokens" in done.stdout
    case = report["cases"][0]
    assert case["results"]["one pass"]["ms"] is None and case["results"]["two passes"]["ms"] > 0
    done, report = run_with("lost_in_all_timings", tmp_path, "--only", "operator", "rows")
    assert done.returncode == 1 and "failed: tiny head at 64 tokens" in done.stderr
    assert "failed: row_stats forward" in done.stderr and report["cases"] == []


def test_plain_kernels_on_a_gpu_meet_no_target(tmp_path: Path) -> None:
    done, _ = run_with("torch_on_cuda", tmp_path, "--only", "checks", "operator")
    assert "WARNING: kernels are of `torch`, not Triton's" in done.stdout
    assert "but not of Triton's kernels" in done.stdout and ": met\n" not in done.stdout


def test_a_part_that_ends_early_costs_no_other(tmp_path: Path) -> None:
    done, report = run_with("lost_device", tmp_path, "--only", "operator", "rows")
    assert done.returncode == 1 and "failed: the rest of operator" in done.stderr
    (left,) = report["left_out"]
    assert left["what"] == "the rest of operator" and "illegal memory access" in left["reason"]
    assert report["rows"]


def test_wheels_in_a_folder_can_be_measured_without_installing(tmp_path: Path) -> None:
    wheel = tmp_path / "liger_kernel-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("liger_kernel/__init__.py", "")
        archive.writestr("liger_kernel-9.9.dist-info/METADATA", "Name: liger_kernel\nVersion: 9.9")
    wanted = ("--only", "operator", "--peers", str(tmp_path))
    done, report = run(tmp_path, BENCHES / "gpu.py", *wanted)
    assert done.returncode == 0, done.stderr
    peers = {peer["name"]: peer["why_not"] for peer in report["peers"]}
    assert peers["Liger GRPO"] == "needs a GPU" and "not importable" in peers["QuACK cross-entropy"]
