"""Runs that are killed, interrupted or run out of disk, and what `--resume` makes of them.

Every process here dies at a moment named in the test, not at one that a clock happens to hit.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_world import BEFORE, contents, lines, train, write_config, write_model

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SAVING = 'before(run, "save_checkpoint", lambda root, name, *_: name == "{}", {})'
LOGGING = 'before(MetricsLog, "write", lambda log, phase, step, *_: (phase, step) == {}, {})'
RENAMING = 'before(Path, "rename", lambda path, to: to.name == "{}", kill)'
TORN = """
def tear(log, phase, step, *_):
    log._file.write('{"phase": "grpo", "st')
    log._file.flush()
    kill()
"""


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(
            (
                LOGGING.format(("sft", 1), "kill"),  # there is no checkpoint yet
                SAVING.format("1-sft-000002", "kill"),  # lines of two steps, none of them saved
                LOGGING.format(("sft", 4), "kill"),  # step 3 is on the log and not saved
                SAVING.format("2-eval_sft-000000", "kill"),
            ),
            id="sft",
        ),
        pytest.param(
            (
                SAVING.format("4-grpo-000000", "kill"),  # measured, not saved
                'before(Workbench, "judge", lambda b, i, t: t[0].step == 2, kill)',
                RENAMING.format("4-grpo-000002"),  # written, not in its place
                TORN + LOGGING.format(("grpo", 4), "tear"),
                'before(run, "write_summary", lambda *_: True, kill)',
            ),
            id="grpo",
        ),
    ],
)
def test_a_run_killed_again_and_again_ends_in_the_same_bytes(
    moments: tuple[str, ...], reference: Path, config: Path, tmp_path: Path
) -> None:
    resume: tuple[str, ...] = ()
    for moment in moments:
        done = train(config, tmp_path / "run", *resume, script=BEFORE + moment)
        assert done.returncode == -9, done.stderr
        resume = ("--resume",)
    done = train(config, tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "run") == contents(reference)


def test_a_phase_left_out_does_not_let_lines_double(model: Path, tmp_path: Path) -> None:
    stages = {"stage_steps": [1, 0, 0, 0]}
    config = write_config(tmp_path / "c.toml", model, sft={"steps": 0}, curriculum=stages)
    moment = SAVING.format("4-grpo-000000", "kill")
    assert train(config, tmp_path / "run", script=BEFORE + moment).returncode == -9
    done = train(config, tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr
    phases = [line["phase"] for line in lines(tmp_path / "run" / "metrics.jsonl")]
    assert phases == ["eval_before", "measure", "grpo", "eval_rl"]


INTERRUPT = "interrupt = lambda *_: os.killpg(0, signal.SIGINT)\n"
"""As a terminal does it: every process of the group gets the signal."""


def test_ctrl_c_saves_and_a_damaged_checkpoint_is_passed_over(
    reference: Path, config: Path, tmp_path: Path
) -> None:
    moment = INTERRUPT + LOGGING.format(("grpo", 3), "interrupt")
    done = train(config, tmp_path / "run", script=BEFORE + moment)
    saved = tmp_path / "run" / "checkpoints" / "4-grpo-000003"
    assert done.returncode == 130
    assert f"stopped; saved in `{saved}`, go on with --resume\n" in done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "KeyboardInterrupt"))
    assert saved.is_dir()
    last = [line for line in lines(tmp_path / "run" / "metrics.jsonl")][-1]
    assert (last["phase"], last["step"]) == ("grpo", 3)

    weights = saved / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    done = train(config, tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert f"passed over: checkpoint `{saved}` is damaged" in done.stderr
    assert contents(tmp_path / "run") == contents(reference)


TWICE = """
import threading
def interrupt_twice(*_):
    for delay in (0.2, 0.4):
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT)).start()
before(Sandbox, "submit", lambda *_: threading.active_count() == 1, interrupt_twice)
"""


def test_a_second_ctrl_c_stops_at_once_though_scripts_sleep(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", ("import time\ntime.sleep(600)",) * 12)
    config = write_config(tmp_path / "c.toml", model, sandbox={"cpu_s": 600, "wall_s": 600})
    done = train(config, tmp_path / "run", script=BEFORE + TWICE)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "interrupted"
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FILL = """
def fill(*_):
    with open(os.environ["FILLER"], "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            file.truncate(file.tell() // 4096 * 4096 - {})
"""


def test_a_full_disk_loses_nothing_that_was_saved(
    reference: Path, config: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, filler = small_disk / "run", small_disk / "filler"
    monkeypatch.setenv("FILLER", str(filler))
    moments = [
        # Room for some of the weights, and for none of a step's trajectories.
        (FILL.format(8192) + SAVING.format("4-grpo-000002", "fill"), "cannot save a checkpoint"),
        (FILL.format(0) + LOGGING.format(("grpo", 1), "fill"), "cannot write to"),
    ]
    resume: tuple[str, ...] = ()
    for moment, message in moments:
        done = train(config, run, *resume, script=BEFORE + moment)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "the disk is full\nhint: " in done.stderr
        assert "make room and continue with --resume" in done.stderr
        assert "Traceback" not in done.stderr
        filler.unlink()
        resume = ("--resume",)
    done = train(config, run, "--resume")
    assert done.returncode == 0, done.stderr
    assert contents(run) == contents(reference)
