"""The doctor: healthy here, and of use where something is broken."""

import json
import re
import sys
from importlib import metadata

import pytest

from r1ci_engine import doctor
from r1ci_engine.cli import main
from r1ci_engine.doctor import NOT_NEEDED, examine


def test_a_healthy_machine_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] is True
    assert found["faults"] == []
    assert found["sandbox"]["exit_reason"] == "ok"
    assert re.match(r"(torch|triton), because tensors live on", found["kernels"])
    assert {"landlock", "seccomp"} <= set(found["sandbox"]["layers"])
    assert found["torch"]["version"]
    assert found["extras"]["tasks"]["reasoning-gym"] == "0.1.25"
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith("\nready\n")
    assert not re.search(r"^  \w+ *$", shown, re.MULTILINE)  # no fact without a value


def test_extras_that_are_missing_come_with_their_command() -> None:
    for extra, packages in examine().facts["extras"].items():
        missing = "missing" in packages.values()
        assert ("mend" in packages) == missing
        assert packages.get("mend", f"[{extra}]").endswith(f"[{extra}]'" if missing else "]")


@pytest.mark.parametrize(("has_gpu", "said"), [(False, NOT_NEEDED), (True, "missing")])
def test_extras_for_a_gpu_are_missed_only_beside_one(
    has_gpu: bool, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", absent)
    found = doctor._extras(has_gpu)["gpu"]
    assert found["flash-attn"] == said
    assert ("mend" in found) == has_gpu


@pytest.mark.parametrize("module", ["torch", "r1ci_engine._rust"])
def test_a_broken_part_is_a_finding(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] is False
    assert any(module in fault["what"] and fault["mend"] for fault in found["faults"])


def test_too_little_protection_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "SandboxSection", _Unreachable)
    found = examine()
    assert not found.ready
    assert any("moat" in fault.what for fault in found.faults)


class _Unreachable:
    required = ("moat",)


def test_kernels_that_were_asked_for_in_vain_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("R1CI_KERNELS", "fast")
    found = examine()
    assert [fault.what for fault in found.faults] == [
        "kernels: ConfigError: `R1CI_KERNELS` is `fast`"
    ]
