"""Synthetic run folders, made once per session; tests do not change them."""

from pathlib import Path

import pytest
from report.synthetic import make_run


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that went to its end."""
    return make_run(tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="session")
def killed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run killed within GRPO step 18, its last metrics line torn."""
    return make_run(tmp_path_factory.mktemp("runs") / "killed", until=17)


@pytest.fixture(scope="session")
def sft_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without reinforcement."""
    return make_run(tmp_path_factory.mktemp("runs") / "sft", rl=False)
