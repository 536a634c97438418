"""What a report of benches/gpu.py proves: its targets, whether it may be believed, several as one.

Nothing here measures; the printed summary and the page of a report both take it from here.
"""

from collections.abc import Iterator
from typing import Any

NO_TIME = "no time left"  # what gpu_measure.py says of a call that it did not try
TARGET_TOKENS = 32_768  # where targets are asked for

# Most times the floor of the square product's rate that a mode may take on an H100.
TARGETS = {
    "one pass": {"3B": 1.30, "7B": 1.20, "14B": 1.15},
    "log-prob only": {"3B": 1.35, "7B": 1.25, "14B": 1.20},
}
MOST_GB = 2.0  # beyond the gradients, GB of 10^9 bytes
LESS_MEMORY = 25.0  # times less than full logits
FASTER = {"full logits, step": 1.0, "Liger GRPO": 3.0, "Liger GRPO, TF32": 1.5}

MOST_NAMES = 6  # of failed checks, in a line; a table has them all

# What each part of a run writes, in the order of a run.
PARTS = {
    "ceilings": ("ceilings",),
    "invariance": ("invariance",),
    "checks": ("checks", "failed", "not_made"),
    "operator": ("peers", "cases", "memory", "odd"),
    "rows": ("rows",),
}


def doubts(report: dict[str, Any]) -> list[str]:
    """Why the figures of our kernels may not be believed; empty where every check was good."""
    found = []
    if "checks" not in report:
        found.append("kernels were not checked in this run")
    elif report.get("failed"):
        failed = report["failed"]
        names = "; ".join(failed[:MOST_NAMES]) + (", ..." if len(failed) > MOST_NAMES else "")
        found.append(f"{len(failed)} checks failed, so figures are of wrong results: {names}")
    elif not report["checks"]:
        found.append("no check could be made")
    if report.get("not_made"):
        found.append(f"checks not made: {'; '.join(report['not_made'])}")
    if failed := failures(report):
        found.append(f"failed while it was timed: {'; '.join(failed)}")
    if "cuda" in report["machine"] and report.get("backend") != "triton":
        found.append(f"kernels are of `{report.get('backend')}`, not Triton's")
    if " and " in report["machine"].get("commit", ""):
        found.append("the parts of this page are of several commits")
    return found


def failures(report: dict[str, Any]) -> list[str]:
    """What of ours was to be timed and raised, unlike what only took too long."""
    timed = [
        (f"{case['model']} {name} at {case['tokens']:,} tokens", result)
        for case in report.get("cases", [])
        for name, result in (*case["parts"].items(), *case["results"].items())
        if name in case["parts"] or name in case["ratios"]
    ]
    timed += [(f"{r['kernel']} {r['half']}", r["results"]["ours"]) for r in report.get("rows", [])]
    odd = report.get("odd", {"results": {}})["results"]
    timed += [(f"a vocabulary of {V}", result) for V, result in odd.items()]
    return [left["what"] for left in report.get("left_out", []) if left["failed"]] + [
        what for what, result in timed if result["failure"] not in (None, NO_TIME)
    ]


def _short_doubt(report: dict[str, Any]) -> str:
    if report.get("failed"):
        return ", but checks failed"
    if not report.get("checks"):
        return ", but not checked"
    if "cuda" in report["machine"] and report.get("backend") != "triton":
        return ", but not of Triton's kernels"
    return ", but not all was checked" if report.get("not_made") else ""


Verdict = tuple[str, str, str, str]
"""What, its figure, its target, met or MISSED (with the doubt, if there is one)."""


def verdicts(report: dict[str, Any]) -> list[Verdict]:
    """Everything that the design asks for and this report measured."""
    doubt = _short_doubt(report)
    return [
        (what, figure, target, ("met" if met else "MISSED") + doubt)
        for what, figure, target, met in (*_times(report), *_memory(report))
    ]


def _times(report: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    for case in report.get("cases", []):
        if case["tokens"] != TARGET_TOKENS:
            continue
        model = case["model"]
        for mode, by_model in report["targets"].items():
            times, target = case["ratios"][mode], by_model.get(model)
            if target is not None:
                what = f"{model}, {mode}: times the floor"
                figure = "-" if times is None else f"{times:.2f}"
                yield what, figure, f"at most {target:.2f}", times is not None and times <= target
        for other, least in FASTER.items():
            times = case["beside"]["one pass"].get(other)
            if times is not None:
                what = f"{model}, one pass: time of {other} over ours"
                yield what, f"{times:.2f}", f"at least {least:.1f}", times >= least


def _memory(report: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    for case in report.get("cases", []):
        ours, eager = case["extra_gib"]["one pass"], case["extra_gib"].get("full logits, step")
        if case["tokens"] == TARGET_TOKENS and ours and eager:
            what = f"{case['model']}, one pass: memory of full logits over ours"
            times = eager / ours
            yield what, f"{times:.1f}", f"at least {LESS_MEMORY:.0f}", times >= LESS_MEMORY
    for line in report.get("memory", []):
        where, most = f"{line['model']}, {line['mode']}", line["most_gb"]
        yield f"{where}: GB beyond gradients", f"{most:.3f}", f"{MOST_GB:.1f}", most <= MOST_GB
        figures = f"{line['extra_few_gib']:.3f} and {line['extra_many_gib']:.3f}"
        what = f"{where}: GiB at {line['few']:,} and {line['many']:,} tokens"
        yield what, figures, "within 5 %", line["equal"]


def merge(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Several reports of one machine as one.

    Parts of later ones add to those of earlier ones and replace them; a check that failed in any
    of them stays.
    """
    merged = dict(reports[0])
    for report in reports[1:]:
        failed = [check for check in merged.get("checks", []) if not check["good"]]
        for part, names in PARTS.items():
            if part in report["parts"] and any(name in report for name in names):
                for name in names:
                    merged.pop(name, None)
                merged |= {name: report[name] for name in names if name in report}
        if "checks" in report:
            merged["checks"] = failed + report["checks"]
            names = [check["check"] for check in merged["checks"] if not check["good"]]
            merged["failed"] = list(dict.fromkeys(names))
        merged["parts"] = list(dict.fromkeys(merged["parts"] + report["parts"]))
        merged["left_out"] = merged["left_out"] + report["left_out"]
        merged["seconds"] += report["seconds"]
        merged["despite_failures"] |= report["despite_failures"]
        merged["seed"] = f"{merged['seed']} and {report['seed']}"
        merged["machine"] = {
            fact: value
            if value == (other := report["machine"].get(fact))
            else f"{value} and {other}"
            for fact, value in merged["machine"].items()
        }
    return merged
