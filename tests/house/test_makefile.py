"""What the Makefile's verbs do the second time."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("begun", [False, True])
def test_the_demo_goes_on_where_it_was(tmp_path: Path, begun: bool) -> None:
    if begun:
        (tmp_path / "config.toml").touch()
    shown = subprocess.run(
        ["make", "--dry-run", "demo", f"RUN_DIR={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"train --recipe demo --run-dir {tmp_path}" in shown
    assert ("--resume" in shown) is begun
