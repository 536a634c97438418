"""The comparison of sandboxes measures what is there, says what is not, and keeps what loses."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHES = Path(__file__).parents[2] / "benches"


def run(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHES / script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "peers.json"
    arguments = ("--rounds", 2, "--seconds", 0.02, "--scripts", "trivial", "--json", path)
    done = run("sandbox_peers.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "## trivial" in done.stdout
    return path


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHES)
    return importlib.import_module("sandbox_peer_ways")


def test_ours_and_plain_python_are_measured_in_the_same_rounds(path: Path) -> None:
    report = json.loads(path.read_text())
    rows = {row["peer"]: row for row in report["rows"]}
    for name in ("ours", "python -c"):
        low, high = rows[name]["per_s_range"]
        assert rows[name]["failure"] is None and rows[name]["p50_ms"] > 0
        assert 0 < low <= rows[name]["per_s"] <= high
    (ratio,) = (r for r in report["ratios"] if (r["ours"], r["peer"]) == ("ours", "python -c"))
    assert ratio["throughput"] > 1, "a warm fork is faster than a new interpreter"


def test_what_is_not_there_is_listed_with_the_reason(path: Path) -> None:
    report = json.loads(path.read_text())
    reasons = {peer["name"]: peer["not_measured"] for peer in report["peers"]}
    assert reasons["ours"] is None and reasons["SandboxFusion"] == "no --url given"
    assert "pip install sandlock" in reasons["sandlock"]
    assert "SandboxFusion" not in {row["peer"] for row in report["rows"]}


def test_the_page_keeps_a_peer_that_wins_and_one_that_cannot(path: Path, tmp_path: Path) -> None:
    report = json.loads(path.read_text())
    report["machine"] |= {"processor": "A CPU", "date": "2026-11-23", "load before": 7.5}
    report["ratios"][0] |= {"throughput": 0.05, "throughput_range": [0.04, 0.06]}
    report["rows"].append({"script": "trivial", "peer": "monty", "failure": "no numpy"})
    source = tmp_path / "peers.json"
    source.write_text(json.dumps(report))
    done = run("report.py", source, "--folder", tmp_path)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "sandbox_peers_a-cpu_202611.md").read_text()
    assert "0.05x (0.04-0.06)" in page and "cannot: no numpy" in page
    assert "load before 7.5" in page and "Others worked on this machine" in page


def test_a_wrong_output_is_no_figure(ways: ModuleType) -> None:
    class Wrong(ways.Peer):
        def run(self, code: str) -> str:
            return "3\n"

    peer = Wrong("wrong", 2)
    with pytest.raises(ways.NotMeasured, match="not '2"):
        peer.alone("print(2)", "2\n", 1, 0.0)
    with pytest.raises(ways.NotMeasured, match="not '2"):
        peer.together("print(2)", "2\n", 4)


def test_a_server_is_asked_as_sandboxfusion_is(
    ways: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict]] = []

    class Answer:
        def __enter__(self) -> "Answer":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self) -> bytes:
            return json.dumps({"status": "Success", "run_result": {"stdout": "2\n"}}).encode()

    def answer(request: object, timeout: float) -> Answer:
        asked.append((request.full_url, json.loads(request.data)))
        return Answer()

    monkeypatch.setattr(ways.urllib.request, "urlopen", answer)
    with ways.Server("SandboxFusion", 1, "http://host:1/") as server:
        assert server.run("print(2)") == "2\n"
    ((url, body),) = asked
    assert url == "http://host:1/run_code"
    assert (body["code"], body["language"]) == ("print(2)", "python")
