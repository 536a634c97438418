"""The doctor: healthy here, and of use where something is broken."""

import json
import sys

import pytest

from r1ci_engine.cli import main
from r1ci_engine.doctor import examine


def test_a_healthy_machine_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] is True
    assert found["faults"] == []
    assert found["sandbox"]["exit_reason"] == "ok"
    assert {"landlock", "seccomp"} <= set(found["sandbox"]["layers"])
    assert found["torch"]["version"]
    assert found["extras"]["tasks"]["reasoning-gym"] == "0.1.25"
    assert main(["doctor"]) == 0
    assert capsys.readouterr().out.endswith("\nready\n")


def test_extras_that_are_missing_come_with_their_command() -> None:
    for extra, packages in examine().facts["extras"].items():
        missing = "missing" in packages.values()
        assert ("mend" in packages) == missing
        assert packages.get("mend", f"[{extra}]").endswith(f"[{extra}]'" if missing else "]")


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
    from r1ci_engine import doctor

    monkeypatch.setattr(doctor, "SandboxSection", _Unreachable)
    found = examine()
    assert not found.ready
    assert any("moat" in fault.what for fault in found.faults)


class _Unreachable:
    required = ("moat",)
