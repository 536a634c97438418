"""The kernels on a GPU: right first, then how far from what the machine can do.

    python3 benches/gpu.py [--json OUT] [--seconds 450] [--only PART ...] [--self-check]

Needs torch, triton and numpy; nothing is installed. In this order, the most wanted first:

    checks      every kernel on fresh random inputs against fp64 (gpu_checks.py)
    ceilings    products at the head's real shapes, a copy (gpu_ceilings.py)
    operator    the head in its modes at the widths of 3B, 7B and 14B, beside peers (gpu_cases.py)
    invariance  whether a row of a product keeps its bits whatever rows stand below it
    rows        the row kernels against a copy (gpu_rows.py)

A failed check leaves out what would time our kernels, unless --despite-failures is given, and makes
the exit status 1. What does not fit into the seconds is left out and listed with the reason. The
JSON is written anew after every part. Without CUDA, or with --self-check, the same code runs at a
tiny width on CPU: that checks this program, not the kernels.
"""

import argparse
import json
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from gpu_cases import MODES, estimate, memory_lines, peers, run_case, show
from gpu_ceilings import ceilings, row_invariance, text
from gpu_checks import check_everything
from gpu_measure import MODELS, ROOT, TINY, Bench, Clock, Model, guarded
from gpu_rows import row_kernels

from r1ci_engine.kernels import backend_for

PARTS = ("checks", "ceilings", "operator", "invariance", "rows")
SECONDS = 450.0  # of the 8 minutes that a run may take, so that the last part can end
TOKENS = (32_768, 8192, 131_072)
COMPILED_TOKENS = 32_768  # where the compiler's way is measured: each shape takes it half a minute
MANY_TOKENS = 65_536  # beyond it, fewer rounds
ROUNDS, FEW_ROUNDS = 7, 3
ROW_KERNEL_TOKENS = 65_536

# Most times the floor that a mode may take at 32,768 tokens on an H100.
TARGETS = {
    "one pass": {"3B": 1.30, "7B": 1.20, "14B": 1.15},
    "log-prob only": {"3B": 1.35, "7B": 1.25, "14B": 1.20},
}


class Report:
    """What was found so far; a part that is done is on disk."""

    def __init__(self, path: Path | None, clock: Clock, facts: dict[str, Any]) -> None:
        self.path = path
        self.clock = clock
        self.facts = facts

    def add(self, **parts: Any) -> None:
        self.facts.update(parts)
        self.facts.update(left_out=self.clock.left_out, seconds=self.clock.taken())
        if self.path is not None:
            self.path.write_text(json.dumps(self.facts, indent=2) + "\n")


def operator(models: list[Model], bench: Bench, report: Report) -> None:
    libraries = peers(bench)
    for peer in libraries:
        print(f"  {peer['name']}: {peer['version'] or 'left out, ' + peer['why_not']}", flush=True)
    report.add(peers=libraries)
    present = [peer["name"] for peer in libraries if peer["why_not"] is None]
    cases: list[dict[str, Any]] = []
    for T in TOKENS if bench.on_gpu else (64, 32, 128):
        rounds = min(bench.rounds, FEW_ROUNDS) if T > MANY_TOKENS else bench.rounds
        for model in models:
            compiled = (COMPILED_TOKENS if bench.on_gpu else 64) == T
            needed = estimate(model, T, rounds, len(present), compiled) if bench.on_gpu else 0.0
            what = f"{model.name} head at {T} tokens"
            if not bench.clock.allows(what, needed):
                continue
            with guarded(what, bench):
                cases.append(run_case(model, T, bench._replace(rounds=rounds), present, compiled))
                show(cases[-1])
            report.add(cases=cases, memory=memory_lines(cases))


def run(parts: list[str], bench: Bench, report: Report, despite_failures: bool) -> bool:
    """Whether every check was good."""
    models, good = (MODELS, True) if bench.on_gpu else ([TINY], True)
    if "checks" in parts:
        print("\nchecks", flush=True)
        checks = check_everything(models, bench)
        good = not checks.failed()
        report.add(checks=checks.rows, failed=len(checks.failed()))
    ours = good or despite_failures
    if not ours:
        bench.clock.leave_out("operator, rows", "checks failed: no figure of a wrong kernel")
    if "ceilings" in parts:
        print("\nceilings", flush=True)
        report.add(ceilings=ceilings(models, bench))
    if "operator" in parts and ours:
        print("\noperator", flush=True)
        operator(models, bench, report)
    if "invariance" in parts:
        print("\nelements of row 0 that differ from the product of most rows", flush=True)
        report.add(invariance=row_invariance(models, bench))
    if "rows" in parts and ours:
        print("\nrow kernels", flush=True)
        model = next((m for m in models if m.name == "7B"), models[0])
        T = ROW_KERNEL_TOKENS if bench.on_gpu else 64
        report.add(rows=row_kernels(model, T, bench))
    return good


def summary(facts: dict[str, Any]) -> None:
    """Ratios to the floor and to the others: the table to read first."""
    print("\nmodel   tokens  mode            ms      x floor  target   others' time / ours")
    for case in facts.get("cases", []):
        for mode in MODES:
            result = case["results"][mode]
            ratio, beside = case["ratios"][mode], case["beside"][mode]
            target = TARGETS.get(mode, {}).get(case["model"])
            met = ""
            if target is not None and ratio is not None and case["tokens"] == 32_768:
                met = f"{target:.2f} {'met' if ratio <= target else 'MISSED'}"
            others = ", ".join(
                f"{name} {text(times, 2)}" for name, times in beside.items() if times is not None
            )
            print(
                f"{case['model']:<5} {case['tokens']:>8}  {mode:<13}"
                f" {text(result['ms'], 2):>9} {text(ratio, 2):>9}  {met:<12} {others}"
            )
    for line in facts.get("memory", []):
        verdict = "equal within 5 %" if line["equal"] else "NOT equal within 5 %"
        print(
            f"memory beyond the gradients, {line['model']} {line['mode']}:"
            f" {line['extra_few_gib']:.3f} GiB at {line['few']} tokens,"
            f" {line['extra_many_gib']:.3f} GiB at {line['many']}: {verdict}"
            f" (of it the head's fp32 sum: {line['sum_gib']:.3f} GiB)"
        )
    for left in facts.get("left_out", []):
        print(f"left out: {left['what']}: {left['reason']}")
    print(end="", flush=True)


def machine(device: torch.device) -> dict[str, str]:
    def ask(*command: str) -> str:
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
        return done.stdout.strip()

    facts = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        import triton

        facts["device"] = torch.cuda.get_device_name()
        facts["driver"] = ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
        facts |= {"cuda": str(torch.version.cuda), "triton": triton.__version__}
    else:
        facts["device"] = "cpu"
    facts["commit"] = ask("git", "rev-parse", "--short", "HEAD")
    facts["date"] = time.strftime("%Y-%m-%d")
    return facts


def main() -> None:
    parser = argparse.ArgumentParser(description="the kernels on a GPU")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time that a run may take")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--despite-failures", action="store_true", help="time wrong kernels too")
    parser.add_argument("--self-check", action="store_true", help="tiny widths on CPU")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available() and not options.self_check
    if not on_gpu:
        print("no GPU is used: tiny widths on CPU check this program, its times mean nothing")
    device = torch.device("cuda" if on_gpu else "cpu")
    bench = Bench(device, ROUNDS if on_gpu else 2, Clock(options.seconds))
    seed = time.time_ns() % 2**32
    torch.manual_seed(seed)

    facts = machine(device)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"kernels: {backend_for(device)}; seed {seed}", flush=True)
    about = {"bench": "gpu", "self_check": not on_gpu, "machine": facts, "seed": seed}
    report = Report(options.json, bench.clock, about)
    report.add(backend=backend_for(device), rounds=bench.rounds, targets=TARGETS)
    try:
        good = run(options.only, bench, report, options.despite_failures)
    finally:
        report.add()
    summary(report.facts)
    print(f"\n{bench.clock.taken():.0f} s")
    if not good:
        raise SystemExit("error: checks failed")


if __name__ == "__main__":
    main()
