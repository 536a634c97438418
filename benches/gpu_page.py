"""The page of benches/gpu.py: what limits a figure first, then ratios, then the figures."""

from typing import Any

from gpu_verdicts import doubts, verdicts
from tables import number, table


def gpu_page(report: dict[str, Any]) -> list[str]:
    lines = [
        f"Kernels: {report['backend']}. Medians of {report['rounds']} interleaved rounds (fewer at",
        f"most tokens), {report['seconds']:.0f} s in all, seed {report['seed']}.",
        "Short bursts: a long run is slower where heat or power limits the clock.",
        "Peak memory is above the inputs, so it contains both gradients. The floor is the products",
        "that a mode cannot do without, at the rate of a big square one in the same rounds; its",
        "own products are those of its chunks, at their own rates.",
        "Full logits are the leanest plain torch: a product in bf16, fp32 from there, no entropy.",
        "Losses of other libraries that are not GRPO are cross-entropy, no more work than ours.",
        *(f"**{doubt[0].upper()}{doubt[1:]}.**" for doubt in doubts(report)),
    ]
    if report.get("left_out"):
        rows = ((left["what"], left["reason"]) for left in report["left_out"])
        lines += ["", "## Left out", "", *table("what | why", rows)]
    if report.get("peers"):
        rows = ((p["name"], p["version"] or "-", p["why_not"] or "yes") for p in report["peers"])
        lines += ["", "## Peers", "", *table("who | version | measured", rows)]
    lines += [*_verdicts(report), *_ratios(report), *_memory(report), *_odd(report)]
    for case in report.get("cases", []):
        lines += _case(case)
    return [
        *lines,
        *_ceilings(report),
        *_row_kernels(report),
        *_invariance(report),
        *_checks(report),
    ]


def _verdicts(report: dict[str, Any]) -> list[str]:
    found = verdicts(report)
    header = "what is asked for | figure | target | verdict"
    return ["", "## Targets", "", *table(header, found)] if found else []


def _ratios(report: dict[str, Any]) -> list[str]:
    """Every mode of every case, beside its floors and the others."""
    rows = [
        (
            f"{case['model']}, {mode}",
            number(case["tokens"], 0),
            number(case["results"][mode]["ms"], 2),
            number(times, 2),
            number(case["own_ratios"][mode], 2),
            *(number(case["beside"][mode].get(name), 2) for name in _others(report)),
        )
        for case in report.get("cases", [])
        for mode, times in case["ratios"].items()
    ]
    if not rows:
        return []
    header = ["mode", "tokens", "ms", "times the floor", "times its own products", *_others(report)]
    return [
        "",
        "## Ratios",
        "",
        "The last columns are the time of others over ours: above 1, ours is faster.",
        "",
        *table(" | ".join(header), rows),
    ]


def _others(report: dict[str, Any]) -> list[str]:
    names = [
        name
        for case in report.get("cases", [])
        for others in case["beside"].values()
        for name in others
    ]
    return list(dict.fromkeys(names))


def _memory(report: dict[str, Any]) -> list[str]:
    rows = [
        (
            f"{line['model']}, {line['mode']}",
            f"{line['extra_few_gib']:.3f} at {line['few']:,}",
            f"{line['extra_many_gib']:.3f} at {line['many']:,}",
            "yes" if line["equal"] else "no",
        )
        for line in report.get("memory", [])
    ]
    if not rows:
        return []
    header = "mode | GiB at fewest tokens | at most tokens | equal within 5 %"
    return [
        "",
        "## Memory beyond the gradients",
        "",
        "Peak less the gradient of the rows and that of the head as it is summed, in fp32.",
        "",
        *table(header, rows),
    ]


def _odd(report: dict[str, Any]) -> list[str]:
    odd = report.get("odd")
    if odd is None:
        return []
    rows = (
        (f"{int(V):,}", number(r["ms"], 2, r["failure"] or "-"), number(r["spread_ms"], 2))
        for V, r in odd["results"].items()
    )
    title = f"## One pass with an odd vocabulary: {odd['model']}, {odd['tokens']:,} tokens"
    return ["", title, "", *table("vocabulary | ms | quartile spread", rows)]


def _case(case: dict[str, Any]) -> list[str]:
    rates = ", ".join(f"{part} {number(rate, 0)}" for part, rate in case["tflops"].items())
    rows = (
        (
            name,
            number(r["ms"], 2, r["failure"] or "-"),
            number(r["spread_ms"], 2),
            number(r["peak_gib"], 2),
            "-" if r["ms"] is None else r["failure"] or "-",
        )
        for name, r in case["results"].items()
    )
    floors = (
        (
            mode,
            number(ms, 2),
            number(case["own_floors_ms"][mode], 2),
            number(case["row_kernels_ms"][mode], 2),
        )
        for mode, ms in case["floors_ms"].items()
    )
    return [
        "",
        f"## {case['model']} head: D {case['D']}, V {case['V']}, {case['tokens']:,} tokens",
        "",
        f"Chunks of {case['chunk_rows']} rows. Products in TFLOP/s: {rates};"
        f" a square one: {number(case['square_tflops'], 0)}."
        f" Device copy: {number(case['copy_tb_s'], 2)} TB/s.",
        "",
        *table("what | ms | quartile spread | peak GiB | failed later", rows),
        "",
        *table("where the time goes | floor, ms | own products, ms | row kernels, ms", floors),
    ]


def _ceilings(report: dict[str, Any]) -> list[str]:
    ceilings = report.get("ceilings")
    if ceilings is None:
        return []
    side, square = ceilings["square"], number(ceilings["square_tflops"], 0)
    rows = (
        (f"{r['model']}, {r['rows']} rows", *(number(rate, 0) for rate in r["tflops"].values()))
        for r in ceilings["products"]
    )
    return [
        "",
        "## Ceilings",
        "",
        f"Product of {side}^3: {square} TFLOP/s. Copy: {number(ceilings['copy_tb_s'], 2)} TB/s.",
        "Products of a chunk, TFLOP/s:",
        "",
        *table("head | logits | dhidden | dweight", rows),
    ]


def _row_kernels(report: dict[str, Any]) -> list[str]:
    rows = [
        (
            f"{row['kernel']} {row['half']}",
            number(row["bytes"] / 1e6, 0),
            number(row["results"]["ours"]["ms"], 3, row["results"]["ours"]["failure"] or "-"),
            *(
                number(row["share_of_copy"].get(way), 2)
                for way in ("ours", "plain torch", "torch.compile")
            ),
        )
        for row in report.get("rows", [])
    ]
    if not rows:
        return []
    header = "kernel | MB moved at least | ours, ms | ours | plain torch | torch.compile"
    return [
        "",
        "## Row kernels: share of a copy's bandwidth",
        "",
        "Backward is timed through autograd, forward without it.",
        "",
        *table(header, rows),
    ]


def _invariance(report: dict[str, Any]) -> list[str]:
    found = report.get("invariance", [])
    if not found:
        return []
    tall = list(dict.fromkeys(rows for row in found for rows in row["differing"]))
    cells = (
        (
            f"{row['model']} {row['weight']}, {row['product']}",
            f"{row['N']:,} x {row['K']:,}",
            *(row["differing"].get(rows, row["failure"] or "-") for rows in tall),
            "-" if row["largest"] is None else f"{row['largest']:.1e}",
        )
        for row in found
    )
    header = ["weight", "shape", *(f"{rows} rows" for rows in tall), "largest difference"]
    return [
        "",
        "## Row invariance of products",
        "",
        f"Elements of row 0 that differ from those of the product of {tall[-1] if tall else '-'}"
        " rows.",
        "",
        *table(" | ".join(header), cells),
    ]


def _checks(report: dict[str, Any]) -> list[str]:
    rows = [
        (
            c["check"],
            "raised" if c["value"] is None else f"{float(c['value']):.2e}",
            "-" if c["limit"] is None else f"{c['limit']:.1e}",
            "yes" if c["good"] else "**no**",
        )
        for c in report.get("checks", [])
    ]
    if not rows:
        return []
    return [
        "",
        "## Correctness, before any timing",
        "",
        *table("check | value | allowed | good", rows),
    ]
