"""The kernels on a GPU: right first, then how far from what the machine can do.

    python3 benches/gpu.py [--json OUT] [--seconds 430] [--only PART ...] [--peers FOLDER]
                           [--despite-failures] [--self-check]

Needs torch, triton and numpy; nothing is installed. In this order:

    ceilings    products at the head's real shapes, a copy (gpu_ceilings.py); all torch's
    invariance  whether a row of a product keeps its bits whatever rows stand below it; torch's too
    checks      every kernel on fresh random inputs against fp64 (gpu_check_head.py, ..._rows.py)
    operator    the head in its modes at the widths of 3B, 7B and 14B, beside peers (gpu_cases.py)
    rows        the row kernels against a copy (gpu_rows.py)

What is torch's comes first, because after an error of ours a GPU may answer nothing any more. Of
our kernels nothing is timed before it was checked: a failed check leaves out the part that would
time that kernel, unless --despite-failures is given, and makes the exit status 1; so does a run in
which no check could be made, and a kernel that fails while it is timed. What does not fit into the
seconds is left out and listed with the reason. The JSON is written anew after every part. Peers are
measured where they can be imported, or where --peers has a folder with their wheels. Without .git
the commit is that of R1CI_COMMIT. Without CUDA, or with --self-check, the same code runs at a tiny
width on CPU: that checks this program, not the kernels.

On a machine that gives a command 600 s and keeps only what lies in OUT, two commands, the second
where checks failed in the first; `benches/report.py OUT/a.json OUT/b.json` makes one page of both:

    python3 -u benches/gpu.py --json OUT/a.json
    python3 -u benches/gpu.py --despite-failures --only ceilings invariance operator rows \\
        --seconds 400 --json OUT/b.json
"""

import argparse
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_cases import (
    COMPILED,
    COMPILED_LOGPROB,
    estimate,
    memory_lines,
    odd_vocabulary,
    run_case,
    show,
)
from gpu_ceilings import ceilings, row_invariance, text
from gpu_check_head import check_head_operators
from gpu_check_rows import check_row_kernels, check_row_stats
from gpu_checks import Checks
from gpu_measure import MODELS, ROOT, TINY, Bench, Clock, Model, guarded, poisoned, why
from gpu_peers import peers, use_wheels
from gpu_rows import row_kernels
from gpu_step import MODES
from gpu_verdicts import PARTS, TARGET_TOKENS, TARGETS, doubts, failures, verdicts

from r1ci_engine.kernels import backend_for

SECONDS = 430.0  # of the 8 minutes that a run may take: before them are imports, after them an end
MANY_TOKENS = 65_536  # beyond it, fewer rounds
ROUNDS, FEW_ROUNDS = 7, 3
ROW_KERNEL_TOKENS = 65_536


class Size(NamedTuple):
    """How many tokens, and what takes too long to be measured at every number of them."""

    T: int
    compiled: tuple[str, ...]
    peers: bool


SIZES = (
    Size(TARGET_TOKENS, (COMPILED, COMPILED_LOGPROB), peers=True),
    Size(8192, (COMPILED,), peers=False),
    Size(131_072, (), peers=False),
)
TINY_SIZES = tuple(size._replace(T=T) for size, T in zip(SIZES, (64, 32, 128), strict=True))


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
    for T, compiled, with_peers in SIZES if bench.on_gpu else TINY_SIZES:
        rounds = min(bench.rounds, FEW_ROUNDS) if T > MANY_TOKENS else bench.rounds
        contenders = [*compiled, *(present if with_peers else [])]
        for name in (COMPILED, COMPILED_LOGPROB, *present):
            if name not in contenders:
                bench.clock.leave_out(f"{name} at {T} tokens", "it takes long: not at every size")
        for model in models:
            needed = estimate(model, T, rounds, contenders) if bench.on_gpu else 0.0
            what = f"{model.name} head at {T} tokens"
            if not bench.clock.allows(what, needed):
                continue
            with guarded(what, bench):
                cases.append(run_case(model, T, bench._replace(rounds=rounds), contenders))
                show(cases[-1])
            report.add(cases=cases, memory=memory_lines(cases))
    middle, T = _middle(models), (SIZES if bench.on_gpu else TINY_SIZES)[0].T
    what = f"{middle.name} head with an odd vocabulary"
    if bench.clock.allows(what, 10.0 if bench.on_gpu else 0.0):
        with guarded(what, bench):
            report.add(odd=odd_vocabulary(middle, T, bench))


def _middle(models: list[Model]) -> Model:
    return next((model for model in models if model.name == "7B"), models[0])


def check(models: list[Model], bench: Bench, report: Report) -> set[str]:
    """The parts whose kernels had at least one check, and only good ones."""

    def written() -> None:
        report.add(
            checks=[row for checks in every for row in checks.rows],
            failed=[name for checks in every for name in checks.failed()],
            not_made=[name for checks in every for name in checks.not_made],
        )

    every = head, stats, rows = [Checks(bench, written) for _ in range(3)]
    with poisoned():
        check_head_operators(head, models)
        check_row_stats(stats, models)
        check_row_kernels(rows, models)
    if not stats.good():  # both parts rest on it
        return set()
    return {part for part, own in (("operator", head), ("rows", rows)) if own.good()}


def run(parts: list[str], bench: Bench, report: Report, despite_failures: bool) -> list[str]:
    """What went wrong, other than that something was left out."""
    models = MODELS if bench.on_gpu else [TINY]

    def part(name: str, title: str, call: Callable[[], None]) -> None:
        if name not in parts:
            return
        print(f"\n{title}", flush=True)
        try:
            call()
        except Exception as error:  # the next part may still tell something
            bench.clock.leave_out(f"the rest of {name}", why(error), failed=True)
        report.add()

    part("ceilings", "ceilings", lambda: report.add(ceilings=ceilings(models, bench)))
    part(
        "invariance",
        "elements of row 0 that differ from the product of most rows",
        lambda: report.add(invariance=row_invariance(models, bench)),
    )
    good: set[str] = set()
    part("checks", "checks", lambda: good.update(check(models, bench, report)))
    T = ROW_KERNEL_TOKENS if bench.on_gpu else 64
    ours = {
        "operator": ("operator", lambda: operator(models, bench, report)),
        "rows": ("row kernels", lambda: report.add(rows=row_kernels(_middle(models), T, bench))),
    }
    unproved = set() if "checks" not in parts else ours.keys() - good
    for name, (title, call) in ours.items():
        if name in parts and name in unproved and not despite_failures:
            bench.clock.leave_out(name, "checks were not good: no figure of a wrong kernel")
        else:
            part(name, title, call)
    report.add()
    wrong = ["checks failed, or none could be made"] if unproved else []
    return wrong + [f"failed: {what}" for what in failures(report.facts)]


def summary(facts: dict[str, Any]) -> None:
    """Ratios to the floors and to the others: the table to read first."""
    print("\nmodel   tokens  mode            ms      x floor  x own products   others' time / ours")
    for case in facts.get("cases", []):
        for mode in MODES:
            others = ", ".join(
                f"{name} {text(times, 2)}"
                for name, times in case["beside"][mode].items()
                if times is not None
            )
            print(
                f"{case['model']:<5} {case['tokens']:>8}  {mode:<13}"
                f" {text(case['results'][mode]['ms'], 2):>9} {text(case['ratios'][mode], 2):>9}"
                f" {text(case['own_ratios'][mode], 2):>9}         {others}"
            )
    for left in facts.get("left_out", []):
        print(f"left out: {left['what']}: {left['reason']}")
    for doubt in doubts(facts):
        print(f"WARNING: {doubt}")
    for what, figure, target, verdict in verdicts(facts):
        print(f"{what}: {figure} ({target}): {verdict}")
    print(end="", flush=True)


def machine(device: torch.device) -> dict[str, str]:
    facts = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        import triton

        facts["device"] = torch.cuda.get_device_name()
        facts["driver"] = _ask_gpu("driver_version")
        facts["clocks (most, now) and power limit"] = _ask_gpu(CLOCKS)
        facts |= {"cuda": str(torch.version.cuda), "triton": triton.__version__}
    else:
        facts["device"] = "cpu"
    commit = _ask("git", "rev-parse", "--short", "HEAD")
    facts["commit"] = commit or os.environ.get("R1CI_COMMIT") or "unknown"
    facts["date"] = time.strftime("%Y-%m-%d")
    return facts


CLOCKS = "clocks.max.sm,clocks.sm,power.limit"


def _ask_gpu(query: str) -> str:
    answer = _ask("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader")
    return answer.partition("\n")[0] or "unknown"


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="the kernels on a GPU")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time that a run may take")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    parser.add_argument("--peers", type=Path, metavar="FOLDER", help="wheels of other libraries")
    parser.add_argument("--despite-failures", action="store_true", help="time wrong kernels too")
    parser.add_argument("--self-check", action="store_true", help="tiny widths on CPU")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available() and not options.self_check
    if not on_gpu:
        print("no GPU is used: tiny widths on CPU check this program, its times mean nothing")
    device = torch.device("cuda" if on_gpu else "cpu")
    bench = Bench(device, ROUNDS if on_gpu else 2, Clock(options.seconds))
    if options.peers is not None:
        use_wheels(options.peers)
    seed = time.time_ns() % 2**32
    torch.manual_seed(seed)

    facts = machine(device)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"kernels: {backend_for(device)}; seed {seed}", flush=True)
    about = {"bench": "gpu", "self_check": not on_gpu, "machine": facts, "seed": seed}
    asked = {"parts": options.only, "despite_failures": options.despite_failures}
    report = Report(options.json, bench.clock, about | asked)
    report.add(backend=backend_for(device), rounds=bench.rounds, targets=TARGETS)
    wrong = run(options.only, bench, report, options.despite_failures)
    if on_gpu:
        report.add(clocks_at_the_end=_ask_gpu(CLOCKS))
    summary(report.facts)
    print(f"\n{bench.clock.taken():.0f} s")
    if wrong:
        raise SystemExit(f"error: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
