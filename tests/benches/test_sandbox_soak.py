"""The soak is clean on a few runs, and notices each thing that it looks for."""

import importlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from r1ci_engine.sandbox import Sandbox

BENCHES = Path(__file__).parents[2] / "benches"
LEAKS = {"processes", "descriptors", "mounts", "files", "shm"}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHES / "sandbox_soak.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def load(monkeypatch: pytest.MonkeyPatch, name: str) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHES)
    return importlib.import_module(name)


def test_a_short_soak_answers_everything_and_leaves_nothing() -> None:
    done = run("--runs", 300, "--kill-every", 100, "--json")
    report = json.loads(done.stdout)
    assert (report["runs"], report["wrong"], report["unsafe"]) == (300, 0, {}), done.stdout
    assert set(report["leaked"]) == LEAKS
    # Shared memory is the whole machine's: another test may have some while this one looks.
    assert not any(report["leaked"][name] for name in LEAKS - {"shm"}), report["left"]
    assert report["good"] > 4 * report["hostile"] > 0 and report["kills"] == 3
    assert report["attacks"] >= 60 and isinstance(report["rss_growth_mb"], float)


def test_help_teaches_and_a_bad_number_is_refused() -> None:
    helped = run("--help")
    assert helped.returncode == 0 and "--kill-every" in helped.stdout
    assert "leaked" in helped.stdout and "rss_growth_mb" in helped.stdout
    refused = run("--runs", 0)
    assert refused.returncode == 2 and "`0` is not above zero" in refused.stderr


def test_every_kind_of_good_case_notices_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = load(monkeypatch, "sandbox_cases")
    with Sandbox(workers=1) as sandbox:
        good = cases.GoodCases(sandbox.layers)
        dice = random.Random(1)
        drawn = [*good.one_of_each(), *(good.draw(dice) for _ in range(60))]
        for case, result in zip(
            drawn, sandbox.run_many([case.request for case in drawn]), strict=True
        ):
            assert case.complaint(result) is None
            for wrong in (
                replace(result, exit_reason="timeout"),
                replace(result, stdout=result.stdout + "more"),
                replace(result, stderr=result.stderr + "more"),
                replace(result, exit_code=77),
                replace(result, stdout_dropped=5),
            ):
                assert case.complaint(wrong) is not None, case.name


def test_an_attack_that_gets_through_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = load(monkeypatch, "sandbox_cases")
    attacks, _ = cases.read_attacks("{}", ())
    attack = next(attack for attack in attacks if attack.name == "spin")
    with Sandbox(workers=1) as sandbox:
        result = sandbox.run("print('kept')")
    safe = replace(result, exit_reason="cpu_limit")
    assert attack.complaint(safe) is None
    assert "got through" in attack.complaint(replace(safe, stderr="ESCAPED it"))
    assert attack.complaint(result) is not None
    assert attack.complaint(replace(safe, wall_s=60.0)) is not None


def test_what_is_left_behind_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    state = load(monkeypatch, "sandbox_state")
    before = state.State.take(tmp_path, below=False)
    (tmp_path / "r1ci-left").mkdir()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    with subprocess.Popen(["sleep", "60"]) as child:
        new = state.State.take(tmp_path, below=False).since(before)
        child.kill()
    os.close(descriptor)
    assert new["processes"].total() == 1
    assert new["descriptors"].total() == 1
    assert new["files"].total() == 1
