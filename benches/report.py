"""Figures of a bench as a page: JSON in, `benches/results/<bench>_<hardware>_<yyyymm>.md` out.

    python benches/report.py FILE.json [...] [--folder benches/results]

What limits a figure stands before the figure, and the cases that lose stay in. Several reports of
benches/gpu.py on one machine in one month become one page, later ones over earlier ones. A
self-check is refused: its times mean nothing.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_page import gpu_page
from gpu_verdicts import merge
from tables import number, table

RESULTS = Path(__file__).parent / "results"


def pack_page(report: dict[str, Any]) -> list[str]:
    return [
        f"Cap {report['cap']} tokens, log-normal lengths, one thread, median of repeats.",
        "The twin is the same algorithm in plain Python, run beside it, and returns the same plan.",
        "Lengths are drawn, not measured: a real batch may pack better or worse.",
        "",
        *_packing(report["cases"]),
    ]


def _packing(cases: list[dict[str, Any]]) -> list[str]:
    rows = (
        (
            number(case["sequences"], 0),
            case["median_length"],
            f"{case['bins']} / {case['lower_bound']}",
            number(case["token_efficiency"], 4),
            number(case["per_second"] / 1e6, 1),
            number(case["ratio"] and case["sequences"] / case["twin_seconds"] / 1e6, 2),
            number(case["ratio"], 0),
        )
        for case in cases
    )
    header = (
        "sequences | median length | bins / bound | token efficiency | M sequences/s"
        " | Python twin | ratio"
    )
    return table(header, rows)


def kernels_cpu_page(report: dict[str, Any]) -> list[str]:
    lines = [
        f"`{report['command']}`. Reference path in {report['dtype']}, {report['threads']} threads,"
        f" medians of {report['rounds']} interleaved rounds.",
        "Full logits are the leanest plain torch: no entropy. Peak is what torch allocated above",
        "the inputs, so it contains both gradients.",
    ]
    for case in report["cases"]:
        rows = (
            (
                name,
                number(r["ms"], 1, r["failure"] or "-"),
                number(r["spread_ms"], 1),
                number(r["peak_gib"] and r["peak_gib"] * 1024, 1),
                number(case["own_ratios"].get(name), 2),
            )
            for name, r in case["results"].items()
        )
        title = f"## {case['model']} head: D {case['D']}, V {case['V']}, {case['tokens']:,} tokens"
        header = "what | ms | quartile spread | peak MiB | times the products"
        lines += ["", title, "", *table(header, rows)]
    rows = (
        (
            f"{line['model']}, {line['mode']}",
            f"{1024 * line['extra_few_gib']:.1f} at {line['few']:,}",
            f"{1024 * line['extra_many_gib']:.1f} at {line['many']:,}",
        )
        for line in report["memory"]
    )
    header = "mode | MiB beyond the gradients at fewest tokens | at most tokens"
    lines += ["", "## Memory", "", *table(header, rows)]
    return [*lines, "", "## Packing, one thread", "", *_packing(report["packing"])]


_MOMENTS = "before | after SFT | after RL (stages) | after RL (plain) | after RL (online)"


def demo_page(report: dict[str, Any]) -> list[str]:
    rows = report["rows"]
    moments = ("before", "sft", "rl", "plain", "online")
    lines = [
        f"`{report['command']}`. Shares of right answers in per cent. *stages*: the demo as it is;",
        "*plain*: the same SFT model and number of GRPO steps, all items from the start; *online*:",
        "the same again, drawn by what the measures and the training groups so far let expect.",
        "Small tasks and a model of 2.9M parameters: this shows that the engine learns, and says",
        "nothing of the method on real tasks. Seconds are of the whole staged run, evaluations and",
        "report included.",
    ]
    header = f"seed | {_MOMENTS} | stages - SFT"
    for split, title in (("heldout_items", "Held-out items"), ("heldout_tasks", "Held-out tasks")):
        shares = [(row["seed"], row["accuracy"][split]) for row in rows]
        mean = {m: sum(share[m] for _, share in shares) / len(shares) for m in moments}
        cells = (
            (seed, *(number(100 * share[m], 1) for m in moments), _gain(share["sft"], share["rl"]))
            for seed, share in [*shares, ("mean", mean)]
        )
        lines += ["", f"## {title}", "", *table(header, cells)]
    costs = (
        (r["seed"], number(r["seconds"], 0), r.get("load", "-"), number(r["peak_rss_mb"], 0))
        for r in rows
    )
    header = "seed | seconds | load average at its end | peak MB"
    lines += ["", "## Cost of a staged run", "", *table(header, costs)]
    cells = []
    for task, first in rows[0]["by_task"].items():
        tasks = [row["by_task"][task] for row in rows]
        mean = {m: sum(t[m] for t in tasks) / len(tasks) for m in moments}
        split = first["split"].replace("_", " ")
        shares = (number(100 * mean[m], 1) for m in moments)
        cells.append((task, split, first["items"], *shares, _gain(mean["sft"], mean["rl"])))
    header = f"task | kind | items | {_MOMENTS} | gain"
    lines += ["", "## By task, mean of the seeds", "", *table(header, cells)]
    seeds = [row["seed"] for row in rows]
    cells = (
        (task, *(_course(row["by_task"][task]) for row in rows)) for task in rows[0]["by_task"]
    )
    header = " | ".join(["task", *(f"seed {seed}" for seed in seeds)])
    title = "## By task and seed: before, after SFT, after RL in stages, plain, online"
    return [*lines, "", title, "", *table(header, cells)]


def _course(shares: dict[str, Any]) -> str:
    moments = ("before", "sft", "rl", "plain", "online")
    return " / ".join(number(100 * shares[m], 1) for m in moments)


def _gain(before: float, after: float) -> str:
    return f"{100 * (after - before):+.1f}"


def peers_page(report: dict[str, Any]) -> list[str]:
    load = max(report["machine"]["load before"], report["machine"]["load after"])
    busy = load > 1.5 * report["at_once"]
    lines = [
        f"`{report['command']}`. Interleaved rounds: {report['rounds']}. At once for the rate:"
        f" {report['at_once']}.",
        "Medians of the rounds; in brackets the lowest and highest. Every output was checked.",
        "Ratios are taken within each round: above 1, ours does more in the same time.",
    ]
    if report["machine"]["load before"] > 1.0 or busy:
        lines.append("**Others worked on this machine meanwhile: absolute figures are too bad.**")
    for script in dict.fromkeys(row["script"] for row in report["rows"]):
        cells = []
        for row in (row for row in report["rows"] if row["script"] == script):
            if row["failure"] is not None:
                cells.append((row["peer"], f"cannot: {row['failure']}", *"----"))
                continue
            ratios = _ratios(report, script, row["peer"])
            rate = 0 if row["per_s"] >= 100 else 1
            cells.append(
                (
                    row["peer"],
                    f"{row['p50_ms']:,.2f} {_range(row['p50_ms_range'], 2)}",
                    f"{row['p95_ms']:,.2f}",
                    f"{row['per_s']:,.{rate}f} {_range(row['per_s_range'], rate)}",
                    *ratios,
                )
            )
        header = (
            "way | p50 ms | p95 ms | per second | ours to it, per second | with namespaces to it"
        )
        lines += ["", f"## {script}", "", *table(header, cells)]
    rows = ((p["name"], p["version"] or "-", p["not_measured"] or "yes") for p in report["peers"])
    return [*lines, "", "## Peers", "", *table("way | version | measured", rows)]


def _ratios(report: dict[str, Any], script: str, peer: str) -> list[str]:
    found = {
        ratio["ours"]: f"{_figure(ratio['throughput'])}x"
        f" ({'-'.join(map(_figure, ratio['throughput_range']))})"
        for ratio in report["ratios"]
        if (ratio["script"], ratio["peer"]) == (script, peer)
    }
    return [found.get("ours", "-"), found.get("ours, namespaces", "-")]


def _figure(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _range(ends: list[float], digits: int) -> str:
    low, high = ends
    return f"({low:,.{digits}f}-{high:,.{digits}f})"


def soak_page(report: dict[str, Any]) -> list[str]:
    lines = [
        f"`{report['command']}`: {report['good']:,} good and {report['hostile']:,} hostile runs,"
        f" {report['in_flight']} under way at once, in {report['seconds']:,.0f} s.",
        f"{report['attacks']} attacks; left out: {', '.join(report['left_out']) or 'none'}."
        f" Layers: {', '.join(report['layers'])}.",
        f"{report['kills']} interpreters were killed on purpose; {report['faults']} scripts that",
        "were in them ended as `infrastructure`, which is right and not counted as wrong.",
        f"Beside them, {report.get('turns', 0):,} turns of sessions, {report.get('turn_faults', 0)}"
        " of them lost with an interpreter.",
    ]
    rows = [
        ("good scripts with a wrong verdict or output, or none", report["wrong"]),
        ("attacks that got through or ended wrong", sum(report["unsafe"].values())),
        *((f"leaked {name}", count) for name, count in report["leaked"].items()),
        *((f"grown while open: {n}", c) for n, c in report["grown_open"].items() if n != "shm"),
        ("memory growth, MB, from 5 % of the runs on", report["rss_growth_mb"]),
    ]
    samples = " ".join(f"{sample:.1f}" for sample in report["rss_mb"])
    lines += ["", *table("what | count", rows), "", f"Memory on the way, MB: {samples}."]
    if report["complaints"]:
        lines += ["", "## Complaints", "", *(f"- {text}" for text in report["complaints"])]
    return lines


def curriculum_page(report: dict[str, Any]) -> list[str]:
    world, rows = report["world"], report["rows"]
    passes = world["items"] / world["batch"]
    lines = [
        f"`{report['command']}`, {report['cpu_s']:.0f} s of one core. Made-up learners, no model:",
        "the model of learning is the whole result, and nothing follows for real training.",
        f"{world['items']} items in {world['families']} families, {world['batch']} items of"
        f" {world['group']} samples a step, {world['steps']} steps, {report['seeds']} seeds.",
        f"Measuring takes {world['samples_measured']:,} samples, training"
        f" {world['samples_trained']:,}; at equal samples whoever does not measure trains"
        f" {world['extra_steps']} steps more.",
        "Score: mean chance of a right answer on held-out items, per cent. In brackets the 95 %",
        "interval of the difference from no curriculum, paired by seed; *wins* and *loses* where",
        "it does not hold 0.",
        "What `online` is set to (sharpness 4, half-life 20) was picked with six of these seeds in",
        "view, so its rows flatter it; `sharpness 1` is near the first guess. A pass over the",
        f"items takes {passes:g} steps here: half-life 20 is a longer memory than the one pass",
        "that is the default of the configuration. Intervals are not",
        "widened for the number of comparisons. `pools` is ours after",
        "prime-rl's buffer, not its code. Measuring takes half as many samples here as training;",
        "where its share is smaller, the third verdict is milder.",
        "",
        f"## Wins and losses: early (step {world['early']}) / at equal steps / at equal samples",
        "",
    ]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    found = {(row["arm"], row["learner"]): row for row in rows}
    verdicts = (
        (arm, *(" / ".join(_verdicts(found[arm, name])) for name in report["learners"]))
        for arm in arms[1:]
    )
    lines += table(" | ".join(["curriculum", *report["learners"]]), verdicts)
    for name, about in report["learners"].items():
        cells = (
            (
                arm,
                "yes" if row["measured"] else "no",
                *_scores(row, "early"),
                *_scores(row, "steps"),
                *_scores(row, "samples"),
            )
            for arm in arms
            for row in [found[arm, name]]
        )
        header = (
            "curriculum | measured | early | difference | equal steps | difference"
            " | equal samples | difference"
        )
        begin = f"Begins at {100 * found[arms[0], name]['start']:.1f} %."
        lines += ["", f"## {name}: {about}", "", begin, "", *table(header, cells)]
    return lines


def _verdicts(row: dict[str, Any]) -> list[str]:
    ends = (row[equal]["difference"][1:] for equal in ("early", "steps", "samples"))
    return ["wins" if low > 0 else "loses" if high < 0 else "even" for low, high in ends]


def _scores(row: dict[str, Any], equal: str) -> tuple[str, str]:
    mean, low, high = (100 * value for value in row[equal]["difference"])
    score = number(100 * row[equal]["score"], 1)
    return score, "-" if row["arm"] == "none" else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"


PAGES: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "pack": pack_page,
    "gpu": gpu_page,
    "kernels_cpu": kernels_cpu_page,
    "demo": demo_page,
    "curriculum_sim": curriculum_page,
    "sandbox_peers": peers_page,
    "sandbox_soak": soak_page,
}


def page_path(report: dict[str, Any], folder: Path) -> Path:
    machine = report["machine"]
    hardware = machine.get("device") or machine["processor"]
    slug = re.sub(r"[^a-z0-9]+", "-", hardware.lower()).strip("-")
    month = machine["date"][:7].replace("-", "")
    return folder / f"{report['bench']}_{slug}_{month}.md"


def write_page(report: dict[str, Any], path: Path) -> None:
    machine = report["machine"]
    hardware = machine.get("device") or machine["processor"]
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    lines = [f"# {report['bench']} on {hardware}", "", f"Measured with {facts}.", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*lines, *PAGES[report["bench"]](report)]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="figures of a bench as a page")
    parser.add_argument("reports", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--folder", type=Path, default=RESULTS)
    options = parser.parse_args()
    pages: dict[Path, list[dict[str, Any]]] = {}
    for source in options.reports:
        report = json.loads(source.read_text())
        if report.get("self_check"):
            raise SystemExit(f"error: `{source}` is a self-check, its times mean nothing")
        pages.setdefault(page_path(report, options.folder), []).append(report)
    for path, reports in pages.items():
        if len(reports) > 1 and reports[0]["bench"] != "gpu":
            raise SystemExit(f"error: {len(reports)} of these reports would become `{path}`")
    for path, reports in pages.items():
        write_page(merge(reports) if len(reports) > 1 else reports[0], path)
        print(path)


if __name__ == "__main__":
    main()
