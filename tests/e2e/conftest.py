"""One tiny model, its configuration and one finished run for all tests of whole commands."""

from pathlib import Path
from subprocess import CompletedProcess

import pytest
from e2e_world import train, write_config, write_model


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return write_model(tmp_path_factory.mktemp("e2e") / "model")


@pytest.fixture(scope="session")
def config(model: Path) -> Path:
    """The configuration of the tiny run."""
    return write_config(model.parent / "tiny.toml", model)


@pytest.fixture(scope="session")
def finished(config: Path) -> tuple[Path, "CompletedProcess[str]"]:
    """The folder of a run that nothing disturbed, and what its command said."""
    run_dir = config.parent / "finished"
    return run_dir, train(config, run_dir)


@pytest.fixture(scope="session")
def reference(finished: tuple[Path, "CompletedProcess[str]"]) -> Path:
    """The folder of a run that nothing disturbed."""
    run_dir, done = finished
    assert done.returncode == 0, done.stderr
    return run_dir
