"""A run folder has one owner and one process; what it holds is what is reported."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from e2e_world import command

from r1ci_engine.config import RunConfig
from r1ci_engine.errors import CheckpointError, ConfigError, DataError
from r1ci_engine.evaluation import evaluate_run
from r1ci_engine.memory import peak_rss_mb
from r1ci_engine.run_folder import RunPaths
from r1ci_engine.train.checkpoint import read_checkpoint
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
    with pytest.raises(ConfigError, match="holds `start` but no"):
        RunPaths(tmp_path).open(RunConfig(), resume=False)
    assert theirs.read_text() == "{}"


@pytest.mark.parametrize("name", ["checkpoints", "trajectories", "model"])
def test_what_an_earlier_run_has_made_is_not_adopted(tmp_path: Path, name: str) -> None:
    first = RunPaths(tmp_path)
    first.open(RunConfig(), resume=False)
    first.claim(RunConfig())
    (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / name / "5-eval_rl-000000").touch()
    first.config.unlink()
    del first
    with pytest.raises(ConfigError, match=f"holds `{name}` but no `config.toml`"):
        RunPaths(tmp_path).open(RunConfig(seed=2), resume=False)


def test_a_checkpoint_of_another_configuration_is_refused(
    reference: Path, config: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(reference, run_dir)
    for path in (run_dir / "config.toml", config):
        text = path.read_text()
        assert "save_every = 2\n" in text
        (tmp_path / path.name).write_text(text.replace("save_every = 2\n", "save_every = 3\n"))
    shutil.copy(tmp_path / "config.toml", run_dir / "config.toml")
    done = command("train", tmp_path / config.name, "--run-dir", run_dir, "--resume")
    assert done.returncode == 2
    assert "belongs to another configuration" in done.stderr and "Traceback" not in done.stderr


def test_a_finished_run_is_shown_again_and_left_as_it_is(
    reference: Path, config: Path, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(reference, run_dir)
    shutil.rmtree(run_dir / "trajectories")
    before = (run_dir / "summary.json").read_bytes(), (run_dir / "metrics.jsonl").read_bytes()
    done = command("train", config, "--run-dir", run_dir, "--resume")
    assert done.returncode == 0, done.stderr
    assert "starter/list_min" in done.stdout + done.stderr
    assert before == (
        (run_dir / "summary.json").read_bytes(),
        (run_dir / "metrics.jsonl").read_bytes(),
    )


def test_items_that_are_lost_are_not_made_anew_in_silence(reference: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(reference, run_dir)
    shutil.rmtree(run_dir / "items")
    with pytest.raises(DataError, match="has lost its items"):
        evaluate_run(run_dir)
    assert not (run_dir / "items").exists()


def test_a_reference_model_that_is_gone_is_named_with_its_use(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing") as caught:
        read_checkpoint(tmp_path / "2-eval_sft-000000", use="the KL term measures against it")
    assert "KL term" in str(caught.value.hint)


@pytest.mark.parametrize("path", ["/proc/x/y", "loop/run"])
def test_paths_that_no_run_can_have_are_said_to_be(config: Path, tmp_path: Path, path: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = command("train", config, "--run-dir", tmp_path / path)
    assert done.returncode == 2
    assert "error: cannot write" in done.stderr and "Traceback" not in done.stderr


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
