"""Ctrl-C at every part of a run: it saves, says where, and `--resume` ends in the same bytes."""

from pathlib import Path

import pytest
from e2e_world import BEFORE, contents, train

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

INTERRUPT = """
from r1ci_engine.run_folder import RunPaths
done = []
def interrupt(*_, times=1):
    if not done:
        done.append(True)
        for _ in range(times):
            os.killpg(0, signal.SIGINT)
"""
LOGGING = 'before(MetricsLog, "write", lambda log, phase, *_: phase == "{}", interrupt)'
MOMENTS = {
    "opening the folder": (
        'before(RunPaths, "open", lambda *_: True, interrupt)',
        "0-eval_before-000000",
    ),
    "teaching": ('before(lessons, "teach", lambda *_: True, interrupt)', "0-eval_before-000000"),
    "evaluated": (LOGGING.format("eval_before"), "1-sft-000000"),
    "measured": (LOGGING.format("measure"), "4-grpo-000000"),
    "sampling": (
        'before(Sandbox, "submit", lambda *_: list(run_dir.glob("checkpoints/4-*")), interrupt)',
        "4-grpo-000000",
    ),
    "delivered twice": (
        'before(run, "sft_step", lambda *_: True, lambda *_: interrupt(times=2))',
        "1-sft-000001",
    ),
}


@pytest.mark.parametrize(("moment", "checkpoint"), MOMENTS.values(), ids=MOMENTS.keys())
def test_ctrl_c_saves_whatever_the_run_is_at(
    moment: str, checkpoint: str, config: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    script = f"{BEFORE}\nrun_dir = Path({str(run)!r})\n{INTERRUPT}{moment}"
    done = train(config, run, script=script)
    saved = run / "checkpoints" / checkpoint
    assert done.returncode == 130, done.stderr
    assert f"stopped; saved in `{saved}`, go on with --resume\n" in done.stderr
    assert not any(word in done.stderr for word in ("Traceback", "interrupted"))
    assert saved.is_dir()


def test_ctrl_c_while_a_run_is_taken_up_again_loses_nothing(
    config: Path, reference: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for moment, checkpoint in (
        ('before(run, "grpo_step", lambda *_: True, interrupt)', "4-grpo-000001"),
        ('before(run, "load_latest", lambda *_: True, interrupt)', "4-grpo-000001"),
        ('before(Workbench, "__init__", lambda *_: True, interrupt)', "4-grpo-000001"),
    ):
        resume = ("--resume",) if run.exists() else ()
        done = train(config, run, *resume, script=BEFORE + INTERRUPT + moment)
        assert done.returncode == 130, done.stderr
        assert f"stopped; saved in `{run / 'checkpoints' / checkpoint}`" in done.stderr
    assert train(config, run, "--resume").returncode == 0
    assert contents(run) == contents(reference)
