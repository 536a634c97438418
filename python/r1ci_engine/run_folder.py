"""The folder of a run: what is in it, and whose it is.

`config.toml` (resolved), `run.json` (versions, command), `items/`, `metrics.jsonl`,
`trajectories/`, `curriculum.jsonl`, `checkpoints/`, `model/`, `summary.json`, `report.html`.
A folder belongs to one configuration; another one is refused rather than mixed in.
"""

import json
import platform
import sys
import tomllib
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from r1ci_engine.config import RunConfig, config_to_toml, parse_config
from r1ci_engine.errors import ConfigError, DataError

PACKAGES = ("r1ci-engine", "torch", "triton", "numpy", "tokenizers", "safetensors")


class RunPaths:
    """Paths of one run, opened for a new run or for going on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.items = path / "items"
        self.metrics = path / "metrics.jsonl"
        self.trajectories = path / "trajectories"
        self.curriculum = path / "curriculum.jsonl"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"
        self.summary = path / "summary.json"

    def open(self, config: RunConfig, *, resume: bool) -> None:
        """Create the folder, or check that it belongs to `config`.

        Raises ConfigError if a new run would overwrite one, or if a resumed one was started with
        other settings (each is named), DataError if there is nothing to resume.
        """
        if not resume:
            if self.config.exists():
                raise ConfigError(
                    f"`{self.path}` already holds a run",
                    hint="add --resume to go on with it, or choose another --run-dir",
                )
            self.trajectories.mkdir(parents=True, exist_ok=True)
            (self.path / "run.json").write_text(json.dumps(_facts(), indent=2) + "\n")
            self.config.write_text(config_to_toml(config), encoding="utf-8")
            return
        differing = _differences(self.read_config().model_dump(), config.model_dump())
        if differing:
            raise ConfigError(
                f"`{self.path}` belongs to another configuration: {'; '.join(differing)}",
                hint="resume with the settings of its config.toml, or choose another --run-dir",
            )

    def read_config(self) -> RunConfig:
        """The configuration this folder was started with. Raises DataError if it holds no run."""
        try:
            values = tomllib.loads(self.config.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(
                f"`{self.path}` holds no run: cannot read config.toml ({error.strerror})",
                hint="give the folder that --run-dir named",
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"`{self.config}` is not TOML: {error}") from error
        return parse_config(values, source=str(self.config))


def _differences(was: dict[str, Any], now: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key in was.keys() | now.keys():
        name = f"{path}{key}"
        if isinstance(was.get(key), dict) and isinstance(now.get(key), dict):
            found += _differences(was[key], now[key], f"{name}.")
        elif was.get(key) != now.get(key):
            found.append(f"`{name}` was `{was.get(key)}`, now `{now.get(key)}`")
    return sorted(found)


def _facts() -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["r1ci-engine", *sys.argv[1:]],
        "python": platform.python_version(),
        "versions": versions,
    }
