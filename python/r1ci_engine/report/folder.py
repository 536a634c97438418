"""A run folder as it lies on disk, whole or cut short.

Nothing here needs the run to have finished: what is missing is empty. Only a folder that is not
a run at all is refused. Trajectory files are read one at a time and only when asked for; a long
run has more of them than memory.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from r1ci_engine.errors import DataError
from r1ci_engine.report.metrics import read_metrics
from r1ci_engine.report.writers import Writers
from r1ci_engine.trajectory import Trajectory, read_jsonl

STEP_FILE = re.compile(r"step_(\d+)\.jsonl")
COUNTS = ("group", "n", "stage", "first_step", "last_step", "items")
"""Whole numbers of `curriculum.jsonl`; the report trusts them to be no text."""
HINT = "a run folder is what `r1ci-engine train --run-dir DIR` writes"


@dataclass(frozen=True)
class ItemMeasure:
    """One item line of `curriculum.jsonl`."""

    item_id: str
    task: str
    p: float
    potential: float
    group: int
    samples: int


@dataclass(frozen=True)
class RunFolder:
    """Reads one run. `open` checks that it is one."""

    path: Path
    config: dict[str, Any] = field(repr=False)
    """`config.toml` as nested dictionaries; not validated, so that old runs stay readable."""

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Raises DataError if the folder is missing or no run folder."""
        if not path.is_dir():
            raise DataError(f"there is no run folder at `{path}`", hint=HINT)
        try:
            config = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"`{path}` is not a run folder: no config.toml", hint=HINT) from None
        except OSError as error:
            raise DataError(f"cannot read `{path}`: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"`{path / 'config.toml'}` is not TOML: {error}") from error
        return cls(path, config)

    @cached_property
    def about(self) -> dict[str, Any]:
        """`run.json`: versions, configuration hash, command."""
        return self._json("run.json")

    @cached_property
    def summary(self) -> dict[str, Any]:
        """`summary.json`; empty while the run has not ended."""
        return self._json("summary.json")

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """Every metrics line, in order."""
        return read_metrics(self.path / "metrics.jsonl")

    def phase(self, name: str) -> list[dict[str, Any]]:
        """Metrics lines of one phase."""
        return [line for line in self.metrics if line["phase"] == name]

    @cached_property
    def writers(self) -> Writers:
        """Cuts trajectories by writer."""
        return Writers.of(self.path)

    @cached_property
    def measures(self) -> dict[str, ItemMeasure]:
        """Measured items by id; empty before measuring."""
        return {
            record["item_id"]: ItemMeasure(
                record["item_id"],
                record["task"],
                record["p"],
                record["potential"],
                record["group"],
                record["n"],
            )
            for record in self._curriculum
            if "event" not in record and record["n"]
        }

    @cached_property
    def stages(self) -> list[dict[str, Any]]:
        """Stage events with steps: `stage`, `first_step`, `last_step`, `groups`, `items`."""
        return [
            record
            for record in self._curriculum
            if record.get("event") == "stage" and record["last_step"] >= record["first_step"]
        ]

    @cached_property
    def steps(self) -> list[int]:
        """GRPO steps whose trajectories are kept, rising."""
        names = [STEP_FILE.fullmatch(p.name) for p in (self.path / "trajectories").glob("step_*")]
        return sorted(int(match[1]) for match in names if match)

    def step_trajectories(self, step: int) -> list[Trajectory]:
        """All trajectories of one GRPO step."""
        return list(self._trajectories(f"step_{step:06d}"))

    def phase_trajectories(self, name: str) -> list[Trajectory]:
        """Trajectories of `measure`, `eval_before`, `eval_sft` or `eval_rl`; [] if not there."""
        return list(self._trajectories(name))

    def splits(self) -> dict[str, str]:
        """Task -> `eval` or `heldout`, from the stored items."""
        return {
            record["task"]: split
            for split in ("eval", "heldout")
            if (path := self.path / "items" / f"{split}.jsonl").exists()
            for _, record in read_jsonl(path)
        }

    def _trajectories(self, name: str) -> Iterator[Trajectory]:
        path = self.path / "trajectories" / f"{name}.jsonl"
        if not path.exists():
            return
        for number, record in read_jsonl(path):
            try:
                yield Trajectory.from_json(record)
            except DataError as error:
                raise DataError(f"`{path}` line {number}: {error.message}") from error

    @cached_property
    def _curriculum(self) -> list[dict[str, Any]]:
        path = self.path / "curriculum.jsonl"
        if not path.exists():
            return []
        records = []
        for number, record in read_jsonl(path):
            if (
                "event" not in record
                and not {"item_id", "task", "p", "group", "n"} <= record.keys()
            ):
                raise DataError(f"`{path}` line {number} is neither an item nor an event")
            try:
                records.append(record | {k: int(record[k]) for k in COUNTS if k in record})
            except (TypeError, ValueError) as error:
                raise DataError(f"`{path}` line {number}: {error}") from error
        return records

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}  # not written yet, or cut short while being written
        return value if isinstance(value, dict) else {}
