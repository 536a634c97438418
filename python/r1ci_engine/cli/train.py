"""The verb `train`: find the recipe, merge files and flags, hand over to the main run."""

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro

from r1ci_engine.cli.files import require_file
from r1ci_engine.cli.flags import recipe_path
from r1ci_engine.config import RunConfig, config_to_toml, load_config
from r1ci_engine.errors import ConfigError
from r1ci_engine.run_folder import RunPaths


@dataclass(frozen=True)
class Train:
    """Train: SFT, measured potential, staged GRPO, evaluation, report.

    Every configuration key is also a flag: `--grpo.group-size 8`. Flags win over files, files win
    over the recipe, and `--help` lists all keys.

    Progress and the final table of accuracies go to standard error. For scripts there are
    `summary.json` in the run folder and `r1ci-engine eval DIR --json`.

    Example: r1ci-engine train --recipe demo --run-dir runs/demo --seed 1
    """

    files: Annotated[
        tyro.conf.Positional[tuple[Path, ...]],
        tyro.conf.arg(metavar="FILE.toml", help_behavior_hint="(default: none)"),
    ] = ()
    """Configuration files; a later one wins over an earlier one."""
    recipe: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """A recipe of the package, read before all files."""
    config: Annotated[
        tuple[Path, ...],
        tyro.conf.arg(metavar="FILE.toml ...", help_behavior_hint="(default: none)"),
    ] = ()
    """The same as FILE.toml, as a flag."""
    run_dir: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Where everything is written; `runs/NAME` of the last file or recipe if left out."""
    resume: bool = False
    """Go on with the run in `--run-dir`; its own configuration unless one is given."""
    dry_run: bool = False
    """Print the resolved configuration as TOML and stop."""

    @classmethod
    def own_flags(cls) -> list[str]:
        """Flags that are not configuration keys, without their dashes."""
        return ["help", *(field.name.replace("_", "-") for field in fields(cls))]

    def run(self, overrides: dict[str, Any]) -> int:
        """Resolve the configuration, then hand over to the main run."""
        files = self._files()
        run_dir = self._run_dir(files)
        if self.resume and not files:
            files = [RunPaths(run_dir).require_run()]
        config = load_config(files, overrides)
        if self.dry_run:
            sys.stdout.write(config_to_toml(config))
            return 0
        self._require_tasks(config)
        from r1ci_engine.run import run_training

        run_training(config, run_dir, resume=self.resume)
        return 0

    def _files(self) -> list[Path]:
        if self.files and self.config:
            raise ConfigError(
                "files are given both with and without `--config`",
                "their order decides, so give them all in one place",
            )
        recipe = [recipe_path(self.recipe)] if self.recipe is not None else []
        return [*recipe, *map(require_file, (*self.files, *self.config))]

    def _run_dir(self, files: list[Path]) -> Path:
        if self.run_dir is None:
            return Path("runs") / (files[-1].stem if files else "defaults")
        if not self.run_dir.strip():  # as a path it would be the current folder
            raise ConfigError(
                f"`--run-dir` is empty: `{self.run_dir}`",
                "is the variable set? `--run-dir .` stands for the current folder",
            )
        return Path(self.run_dir)

    @staticmethod
    def _require_tasks(config: RunConfig) -> None:
        if not config.tasks.train and config.sft.source != "corpus":
            raise ConfigError(
                "`tasks.train` is empty: there is nothing to train on",
                "give a recipe (`--recipe demo`), or name tasks from `r1ci-engine tasks list`",
            )
