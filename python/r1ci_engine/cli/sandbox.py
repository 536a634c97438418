"""The verbs `sandbox run`, `sandbox bench` and `sandbox doctor`."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from r1ci_engine.cli.files import require_file
from r1ci_engine.cli.output import Json, print_json, print_pairs, print_table
from r1ci_engine.config import RunConfig, SandboxSection, parse_config
from r1ci_engine.errors import ConfigError

MOST_RUNS = 1_000_000
"""Requests of `sandbox bench` are all held at once."""


@dataclass(frozen=True)
class SandboxRun:
    """Run a Python file in the sandbox, exactly as a model's code is run.

    Exit status 0 if the script ended well, 1 if not.

    Example: r1ci-engine sandbox run script.py --wall-s 5
    """

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """The script."""
    required: Annotated[tuple[str, ...], tyro.conf.arg(metavar="LAYER ...")] = (
        RunConfig().sandbox.required
    )
    """Layers without which nothing is run."""
    wall_s: float = 20.0
    """Wall seconds it may take."""
    cpu_s: float = 10.0
    """CPU seconds it may take."""
    memory_mb: int = 512
    """MiB it may use beyond the warm interpreter."""
    as_json: Json = False

    def run(self) -> int:
        """Run it once and show what came of it."""
        from r1ci_engine.sandbox import Limits, Sandbox

        try:
            code = require_file(self.file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"cannot read `{self.file}`: {reason}") from error
        asked = _checked(
            cpu_s=self.cpu_s, wall_s=self.wall_s, memory_mb=self.memory_mb, required=self.required
        )
        limits = Limits(cpu_s=asked.cpu_s, wall_s=asked.wall_s, memory_mb=asked.memory_mb)
        with Sandbox(workers=1, limits=limits, required=asked.required) as sandbox:
            result = sandbox.run(code)
        status = 0 if result.exit_reason == "ok" else 1
        if self.as_json:
            print_json(asdict(result))
            return status
        sys.stdout.write(result.stdout)
        sys.stdout.flush()
        sys.stderr.write(result.stderr)
        sys.stderr.write(
            f"{result.exit_reason}: {result.wall_s * 1000:.1f} ms wall, "
            f"{result.cpu_s * 1000:.1f} ms CPU, {result.peak_rss_mb:.0f} MiB; "
            f"layers {', '.join(result.layers)}\n"
        )
        return status


@dataclass(frozen=True)
class SandboxBench:
    """Time trivial, numpy and sympy scripts in the sandbox: latency of one, rate of many.

    Example: r1ci-engine sandbox bench --json
    """

    count: int = 300
    """Executions per measurement."""
    workers: int = 0
    """Executions that compute at once; 0 means one per core and one more."""
    as_json: Json = False

    def run(self) -> int:
        """Measure and print."""
        from r1ci_engine.sandbox import bench

        if not 1 <= self.count <= MOST_RUNS:
            raise ConfigError(f"`--count` is `{self.count}`: it has to be from 1 to {MOST_RUNS}")
        asked = _checked(workers=self.workers)
        figures = bench(self.count, workers=asked.workers or None, required=asked.required)
        if self.as_json:
            print_json(figures)
        else:
            columns = ("script", "layers", "p50_ms", "p95_ms", "per_s")
            print_table(
                columns, [[_short(row[name]) for name in columns] for row in figures["rows"]]
            )
            sys.stdout.write(f"in force: {', '.join(figures['layers_available'])}\n")
        return 0


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class SandboxDoctor:
    """Say which protection this kernel offers.

    Example: r1ci-engine sandbox doctor
    """

    as_json: Json = False

    def run(self) -> int:
        """Print the probe's findings."""
        from r1ci_engine.sandbox import probe

        findings = probe()
        print_json(findings) if self.as_json else print_pairs(findings)
        return 0


def _checked(**settings: object) -> SandboxSection:
    """The settings of a run, within the same bounds. Raises ConfigError."""
    return parse_config({"sandbox": settings}, source="flags of `sandbox`").sandbox


@dataclass(frozen=True)
class SandboxVerbs:
    """Run files in the sandbox, time it, ask what protects it.

    Example: r1ci-engine sandbox run script.py --json
    """

    verb: (
        Annotated[SandboxRun, tyro.conf.subcommand("run")]
        | Annotated[SandboxBench, tyro.conf.subcommand("bench")]
        | Annotated[SandboxDoctor, tyro.conf.subcommand("doctor")]
    )

    def run(self) -> int:
        """Pass on to the inner verb."""
        return self.verb.run()
