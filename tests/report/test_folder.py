"""What is a run folder, and what is refused with a next step."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from r1ci_engine.errors import ConfigError, DataError
from r1ci_engine.report.curves import readme_picture
from r1ci_engine.report.folder import RunFolder
from r1ci_engine.report.html import build_report
from r1ci_engine.report.terminal import ViewFilter, view

READERS = [
    RunFolder.open,
    build_report,
    lambda path: view(path, ViewFilter()),
    lambda path: readme_picture(path, path / "x.svg"),
]


@pytest.mark.parametrize("read", READERS)
def test_missing_and_foreign_folders_are_refused_with_a_hint(read, tmp_path: Path):
    (tmp_path / "foreign").mkdir()
    (tmp_path / "file").write_text("")
    for name in ("missing", "foreign", "file"):
        with pytest.raises(DataError, match=name) as caught:
            read(tmp_path / name)
        assert caught.value.hint and "run folder" in caught.value.hint
    assert not (tmp_path / "foreign" / "report.html").exists()


def test_a_file_of_a_run_leads_to_its_folder(tmp_path: Path):
    for name in ("config.toml", "report.html"):
        (tmp_path / name).write_text("")
        with pytest.raises(DataError, match="there is a file, not a folder") as caught:
            RunFolder.open(tmp_path / name)
        assert f"`{tmp_path}`" in (caught.value.hint or "")


def test_damage_is_named_by_file_and_line(tmp_path: Path):
    (tmp_path / "config.toml").write_text("seed = = 1")
    with pytest.raises(ConfigError, match=r"config.toml` is not TOML"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.toml").write_text("seed = 1")
    (tmp_path / "curriculum.jsonl").write_text('{"event": "widened"}\n{"item_id": "a"}\n')
    with pytest.raises(DataError, match=r"curriculum.jsonl` line 2"):
        _ = RunFolder.open(tmp_path).measures
    (tmp_path / "trajectories").mkdir()
    (tmp_path / "trajectories" / "step_000001.jsonl").write_text('{"task": "t"}\n')
    with pytest.raises(DataError, match=r"step_000001.jsonl` line 1: not a trajectory"):
        RunFolder.open(tmp_path).step_trajectories(1)


def test_a_torn_log_is_read_up_to_the_tear(killed_run: Path):
    run = RunFolder.open(killed_run)
    assert run.metrics[-1]["step"] == 17
    assert run.steps == list(range(1, 18))


def test_the_torch_free_rooms_load_quickly_and_without_torch():
    rooms = (
        "r1ci_engine.curriculum, r1ci_engine.report, r1ci_engine.report.html, "
        "r1ci_engine.report.terminal, r1ci_engine.report.curves, r1ci_engine.report.metrics"
    )
    code = f"import sys, {rooms}; sys.exit('torch' in sys.modules)"
    taken = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        taken.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    # CPU time, which other work on the machine cannot use up: 0.3 s on a quiet one.
    assert min(taken) < 0.8
