"""The benches run where there is no GPU, and their figures become a page."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[2] / "benches"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHES / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def self_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "gpu.json"
    done = run("gpu.py", "--self-check", "--json", path)
    assert done.returncode == 0, done.stderr
    assert "no GPU is used" in done.stdout
    return path


def test_the_gpu_bench_checks_itself_on_cpu(self_check: Path) -> None:
    report = json.loads(self_check.read_text())
    assert report["self_check"] and report["machine"]["device"] == "cpu"
    assert report["checks"] and all(c["value"] <= c["limit"] for c in report["checks"])
    (case,) = report["cases"]
    assert case["results"]["step"]["ms"] > 0 and case["ratios"]["step, two passes"] > 0


def test_a_self_check_is_no_result(self_check: Path, tmp_path: Path) -> None:
    done = run("report.py", self_check, "--folder", tmp_path)
    assert done.returncode == 1 and "self-check" in done.stderr
    assert not list(tmp_path.iterdir())


def test_figures_become_a_page_that_keeps_the_losing_cases(
    self_check: Path, tmp_path: Path
) -> None:
    report = json.loads(self_check.read_text())
    report["self_check"] = False
    report["machine"] |= {"device": "NVIDIA H100 80GB HBM3", "date": "2026-11-22"}
    report["cases"][0]["results"]["step, full logits"] = dict.fromkeys(
        ("ms", "spread_ms", "peak_gib")
    )
    source = tmp_path / "gpu.json"
    source.write_text(json.dumps(report))
    done = run("report.py", source, "--folder", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    (page,) = (tmp_path / "results").iterdir()
    assert page.name == "gpu_nvidia-h100-80gb-hbm3_202611.md"
    text = page.read_text()
    assert "| step, full logits | out of memory | - | - |" in text
    assert text.index("heat or power") < text.index("| forward |")
