"""A run folder has one owner and one process; what it holds is what is reported."""

import json
import subprocess
from pathlib import Path

import pytest

from r1ci_engine.config import RunConfig
from r1ci_engine.errors import ConfigError, DataError
from r1ci_engine.run import peak_rss_mb
from r1ci_engine.run_folder import RunPaths
from r1ci_engine.trajectory import read_jsonl


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    first = RunPaths(tmp_path / "run")
    first.open(RunConfig(), resume=False)
    first.claim(RunConfig())
    with pytest.raises(ConfigError, match="another process is running"):
        RunPaths(tmp_path / "run").open(RunConfig(), resume=True)
    del first
    RunPaths(tmp_path / "run").open(RunConfig(), resume=True)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "start" / "config.json"
    theirs.parent.mkdir()
    theirs.write_text("{}")
    with pytest.raises(ConfigError, match="holds `start` that no run has put there"):
        RunPaths(tmp_path).open(RunConfig(), resume=False)
    assert theirs.read_text() == "{}"


def test_peak_memory_counts_living_children() -> None:
    before = peak_rss_mb()
    script = "x = bytearray(64 << 20); print(len(x), flush=True); input()"
    child = subprocess.Popen(
        ["python3", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None and child.stdout.readline() == f"{64 << 20}\n"
    assert peak_rss_mb() - before > 60
    child.communicate("\n")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 100_000, "beyond reading"),
        ('{"n": ' + "1" * 5000 + "}", "beyond reading"),
        (json.dumps({"prompt": "\ud800"}), "no character"),
    ],
    ids=["deep", "long number", "half a character"],
)
def test_lines_that_break_readers_are_refused(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(f'{{"fine": 1}}\n{line}\n')
    with pytest.raises(DataError, match=f"line 2.*{said}"):
        list(read_jsonl(path))
