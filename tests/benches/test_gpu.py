"""The kernel benches run where there is no GPU, and their figures become pages."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from r1ci_engine.kernels.dispatch import HAS_TRITON

BENCHES = Path(__file__).parents[2] / "benches"
NOT_EVERYWHERE = [
    "torch.compile, log-prob at 32 tokens",
    "torch.compile, step at 128 tokens",
    "torch.compile, log-prob at 128 tokens",
]
MODES = ("one pass", "two passes", "log-prob only")


def run(script: str | Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHES / script, *map(str, arguments)]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}  # as on a machine with a GPU
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def self_check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "gpu.json"
    done = run("gpu.py", "--self-check", "--json", path)
    assert done.returncode == 0, done.stderr
    assert "no GPU is used" in done.stdout
    return path


@pytest.fixture
def report(self_check: Path) -> dict[str, Any]:
    return json.loads(self_check.read_text())


def page_of(report: dict[str, Any], folder: Path) -> str:
    """The page of a report that claims to be of a real run."""
    report["self_check"] = False
    report["machine"] |= {"device": "NVIDIA H100 80GB HBM3", "date": "2026-11-22"}
    source = folder / "report.json"
    source.write_text(json.dumps(report))
    done = run("report.py", source, "--folder", folder / "results")
    assert done.returncode == 0, done.stderr
    (page,) = (folder / "results").iterdir()
    assert page.name == f"{report['bench']}_nvidia-h100-80gb-hbm3_202611.md"
    return page.read_text()


def test_everything_is_checked_before_it_is_timed(report: dict[str, Any]) -> None:
    assert report["self_check"] and report["machine"]["device"] == "cpu"
    assert report["failed"] == report["not_made"] == [] and all(
        check["good"] for check in report["checks"]
    )
    names = " ".join(check["check"] for check in report["checks"])
    for part in (
        "log-prob rms",
        "entropy max",
        "dweight of sparse rows",
        "dweight of a second run",
        "gspo: dweight of the loss",
        "bias: dbias of the loss",
        "frozen head: dhidden of the loss",
        "by the loss's slope",
        "log-prob by chunking",
        "NaN in masked rows",
        "row_stats, 1 rows",
        "elements, last rows",
        "add_rms_norm",
        "rope",
        "swiglu",
        "kv_cache_write",
    ):
        assert part in names
    exact = [check for check in report["checks"] if "second run" in check["check"]]
    assert exact and all(check["limit"] == 0 for check in exact)


def test_every_part_has_its_figures(report: dict[str, Any]) -> None:
    assert [left["what"] for left in report["left_out"]] == NOT_EVERYWHERE
    assert all("not at every size" in left["reason"] for left in report["left_out"])
    assert report["parts"] == ["ceilings", "invariance", "checks", "operator", "rows"]
    assert report["seconds"] > 0 and report["despite_failures"] is False
    assert report["ceilings"]["copy_tb_s"] > 0 and report["ceilings"]["products"]
    assert [case["tokens"] for case in report["cases"]] == [64, 32, 128]
    for case in report["cases"]:
        assert all(result["failure"] is None for result in case["results"].values())
        assert all(case["results"][mode]["ms"] > 0 for mode in MODES)
        for kind in ("ratios", "own_ratios", "floors_ms", "own_floors_ms"):
            assert all(case[kind][mode] > 0 for mode in MODES)
        assert case["beside"]["one pass"]["full logits, step"] > 0
        assert case["extra_gib"]["one pass"] > 0
    assert report["cases"][0]["beside"]["one pass"]["torch.compile, step"] > 0
    assert report["cases"][0]["beside"]["log-prob only"]["torch.compile, log-prob"] > 0
    assert report["cases"][1]["beside"]["one pass"]["torch.compile, step"] > 0
    assert report["odd"]["odd_to_padded"] > 0
    assert {line["mode"] for line in report["memory"]} == set(MODES)
    assert {row["weight"] for row in report["invariance"]} >= {"head", "qkv", "down"}
    halves = {(row["kernel"], row["half"]) for row in report["rows"]}
    assert len(halves) == len(report["rows"]) == 11
    assert all(row["share_of_copy"]["ours"] > 0 for row in report["rows"])


def test_absent_peers_are_named_with_the_reason(report: dict[str, Any]) -> None:
    peers = {peer["name"]: peer for peer in report["peers"]}
    assert {"Liger GRPO", "QuACK cross-entropy", "torch linear_cross_entropy"} <= peers.keys()
    assert all(peer["version"] or peer["why_not"] for peer in peers.values())


def test_what_does_not_fit_the_time_is_left_out_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    done = run("gpu.py", "--self-check", "--seconds", 0, "--despite-failures", "--json", path)
    assert done.returncode == 1 and "none could be made" in done.stderr
    report = json.loads(path.read_text())
    left = {entry["what"]: entry["reason"] for entry in report["left_out"]}
    for what in ("check of row_stats", "tiny head at 64 tokens", "row kernel rope"):
        assert left[what].startswith("0 s are left")
    assert "row_stats" in report["not_made"] and report["checks"] == []
    assert "left out: tiny head at 64 tokens: 0 s are left" in done.stdout
    assert "WARNING: no check could be made" in done.stdout
    page = page_of(report, tmp_path)
    assert "| tiny head at 64 tokens | 0 s are left" in page
    assert "**No check could be made.**" in page


def test_a_part_can_be_asked_for_alone(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    done = run("gpu.py", "--self-check", "--only", "ceilings", "--json", path)
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    assert "ceilings" in report and "cases" not in report and "checks" not in report


@pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
def test_what_only_a_gpu_runs_is_run_dry(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    script = Path(__file__).with_name("gpu_dry_run.py")
    done = run(script, path)
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    assert [left["what"] for left in report["left_out"]] == [
        "torch.compile, log-prob at 8192 tokens",
        "torch.compile, step at 131072 tokens",
        "torch.compile, log-prob at 131072 tokens",
    ]
    assert report["not_made"] == []
    assert all(check["value"] is not None for check in report["checks"])
    names = [check["check"] for check in report["checks"]]
    assert any("row_stats, 2.18e+09 elements, last rows" in name for name in names)
    assert any("swiglu, 2.15e+09 elements, last rows" in name for name in names)
    assert any("rope, 70000 rows" in name for name in names)
    assert [case["tokens"] for case in report["cases"]] == [32_768, 8192, 131_072]
    parts = [*report["cases"], *report["rows"], *report["ceilings"]["products"]]
    assert all(r["failure"] is None for part in parts for r in part["results"].values())
    assert all(r["failure"] is None for case in report["cases"] for r in case["parts"].values())
    assert {row["product"] for row in report["invariance"]} == {
        "as it comes",
        "without split-k",
        "fp32 result",
        "fp32 result, without split-k",
    }
    assert all(row["failure"] is None for row in report["invariance"])


def test_a_self_check_is_no_result(self_check: Path, tmp_path: Path) -> None:
    done = run("report.py", self_check, "--folder", tmp_path)
    assert done.returncode == 1 and "self-check" in done.stderr
    assert not list(tmp_path.iterdir())


def test_figures_become_a_page_that_keeps_the_losing_cases(
    report: dict[str, Any], tmp_path: Path
) -> None:
    lost = dict.fromkeys(("ms", "spread_ms", "peak_gib"))
    report["cases"][0]["results"]["full logits, step"] = {**lost, "failure": "out of memory"}
    report["cases"][0]["results"]["two passes"] |= {"ms": 5.0, "failure": "RuntimeError: gone"}
    report["cases"][0]["tokens"] = 32_768
    report["targets"]["one pass"]["tiny"] = 1e-9
    text = page_of(report, tmp_path)
    assert "| full logits, step | out of memory | - | - |" in text
    assert re.search(r"\| two passes \| 5.00 \|.*\| RuntimeError: gone \|", text)
    assert "## One pass with an odd vocabulary: tiny, 64 tokens" in text
    assert re.search(
        r"\| tiny, one pass: times the floor \| [\d.,]+ \| at most 0.00 \| MISSED \|", text
    )
    assert "## Row invariance of products" in text
    assert "| rms_norm backward |" in text and "| tiny qkv, as it comes |" in text
    assert text.index("heat or power") < text.index("## Targets") < text.index("| one pass |")


def test_a_page_says_that_checks_failed(report: dict[str, Any], tmp_path: Path) -> None:
    report["checks"].append({"check": "rope", "value": 2.0, "limit": 1.1, "good": False})
    report["failed"] = ["rope"]
    report["cases"][0]["tokens"] = 32_768
    text = page_of(report, tmp_path)
    assert text.index("**1 checks failed, so figures are of wrong results: rope.**") < text.index(
        "## Targets"
    )
    assert " met, but checks failed |" in text and " met |" not in text
    assert "| rope | 2.00e+00 | 1.1e+00 | **no** |" in text


def test_two_runs_on_one_machine_become_one_page(report: dict[str, Any], tmp_path: Path) -> None:
    machine = report["machine"] | {"device": "H100", "date": "2026-11-22"}
    report |= {"self_check": False, "machine": machine}
    checks = ("checks", "failed", "not_made")
    failed = [{"check": "rope", "value": 2.0, "limit": 1.1, "good": False}]
    first = {x: report[x] for x in report if x not in ("cases", "memory", "rows", "odd", "peers")}
    first |= {"parts": ["checks"], "checks": failed, "failed": ["rope"]}
    second = {part: value for part, value in report.items() if part not in checks}
    second |= {"parts": ["operator", "rows"], "despite_failures": True}
    sources = [tmp_path / "a.json", tmp_path / "b.json"]
    for source, part in zip(sources, (first, second), strict=True):
        source.write_text(json.dumps(part))
    done = run("report.py", *sources, "--folder", tmp_path)
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "gpu_h100_202611.md").read_text()
    assert "**1 checks failed" in text and "| rope | 2.00e+00 | 1.1e+00 | **no** |" in text
    assert "## tiny head" in text and "| rms_norm backward |" in text
    done = run("report.py", sources[1], "--folder", tmp_path)
    assert "**Kernels were not checked" in (tmp_path / "gpu_h100_202611.md").read_text()
    for source in sources:
        source.write_text(json.dumps({"bench": "pack", "machine": machine}))
    done = run("report.py", *sources, "--folder", tmp_path)
    assert done.returncode == 1 and "2 of these reports would become" in done.stderr


def test_the_cpu_bench_runs_and_becomes_a_page(tmp_path: Path) -> None:
    path = tmp_path / "cpu.json"
    done = run("kernels_cpu.py", "--self-check", "--json", path)
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    case = report["cases"][-1]
    assert case["results"]["one pass"]["ms"] > 0 and case["results"]["one pass"]["peak_gib"] > 0
    assert report["packing"][0]["ratio"] > 1
    text = page_of(report, tmp_path)
    assert "| full logits, step |" in text and "| 512 | 3000 |" in text
    assert "MiB beyond the gradients" in text
