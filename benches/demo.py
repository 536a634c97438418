"""The demo over several seeds, with plain GRPO beside the staged curriculum.

    python benches/demo.py --seeds 0 1 2 --out runs/bench_demo --json OUT.json

For each seed the demo recipe runs as a person would run it. A second run then starts from the
same SFT model and spends the same number of GRPO steps on all items at once (`curriculum.mode =
none`). Prints the table and writes JSON; `benches/report.py` makes the page for `results/`.
Runs that are already finished under --out are read, not repeated.
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import fmean
from typing import Any

SPLITS = ("heldout_items", "heldout_tasks")


def main() -> None:
    """Run what is missing, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/bench_demo"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = [_row(seed, arguments.out) for seed in arguments.seeds]
    result = {
        "bench": "demo",
        "date": datetime.now(UTC).date().isoformat(),
        "command": "python benches/demo.py --seeds " + " ".join(map(str, arguments.seeds)),
        "machine": f"{platform.machine()}, {_cpu()}",
        "versions": {p: metadata.version(p) for p in ("r1ci-engine", "torch", "numpy")},
        "rows": rows,
    }
    sys.stdout.write(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _row(seed: int, out: Path) -> dict[str, Any]:
    staged_dir, plain_dir = out / f"seed_{seed}", out / f"seed_{seed}_plain"
    staged = _run(staged_dir, "--recipe", "demo", "--seed", str(seed))
    after_sft = staged_dir / "checkpoints" / "2-eval_sft-000000" / "model"
    plain = _run(
        plain_dir,
        *("--recipe", "demo", "--seed", str(seed), "--curriculum.mode", "none"),
        *("--sft.steps", "0", "--model.path", str(after_sft)),
    )
    return {
        "seed": seed,
        "accuracy": {
            split: {**staged["accuracy"][split], "plain": plain["accuracy"][split]["rl"]}
            for split in SPLITS
        },
        "by_task": {
            task["task"]: {**task, "plain": other["rl"]}
            for task, other in zip(staged["by_task"], plain["by_task"], strict=True)
        },
        "seconds": staged["seconds"],
        "peak_rss_mb": staged["peak_rss_mb"],
        "steps": staged["steps"],
    }


def _run(folder: Path, *arguments: str) -> dict[str, Any]:
    summary = folder / "summary.json"
    if not summary.exists():
        resume = ["--resume"] if (folder / "config.toml").exists() else []
        command = [sys.executable, "-m", "r1ci_engine", "train", *arguments, *resume]
        subprocess.run([*command, "--run-dir", str(folder)], check=True)
    return json.loads(summary.read_text(encoding="utf-8"))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line per seed and the mean, shares in per cent."""
    head = "before | after SFT | after RL (stages) | after RL (plain) | RL - SFT"
    lines = [
        f"| seed | held-out items: {head} | held-out tasks: {head} | seconds | peak MB |",
        "|---" * 13 + "|",
    ]
    for row in [*rows, _mean(rows)]:
        cells = [str(row["seed"])]
        for split in SPLITS:
            share = row["accuracy"][split]
            moments = ("before", "sft", "rl", "plain")
            cells += [f"{100 * share[moment]:.1f}" for moment in moments]
            cells.append(f"{100 * (share['rl'] - share['sft']):+.1f}")
        cells += [f"{row['seconds']:.0f}", f"{row['peak_rss_mb']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "seed": "mean",
        "accuracy": {
            split: {
                moment: fmean(row["accuracy"][split][moment] for row in rows)
                for moment in ("before", "sft", "rl", "plain")
            }
            for split in SPLITS
        },
        "seconds": fmean(row["seconds"] for row in rows),
        "peak_rss_mb": max(row["peak_rss_mb"] for row in rows),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


if __name__ == "__main__":
    main()
