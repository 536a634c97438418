"""The head operator in its three modes, beside full logits, a compiler and other libraries.

Two floors. That of the design: the products that a mode cannot do without, at the rate of a big
square product in the same rounds. Its own: the same products as the operator does them, chunk by
chunk. The distance between the two is what the shapes of the chunks cost.
"""

from typing import Any

import torch
from gpu_ceilings import bandwidth, copy_call, head_products, rate, square_call, text
from gpu_measure import GIB, Bench, Call, Model, Result, measure, why
from gpu_peers import PEERS
from gpu_step import MODES, UNITS, Step, full_logprob, make_step, with_vocabulary

from r1ci_engine.kernels import linear_logprob
from r1ci_engine.kernels.head import default_chunk_bytes, plan_chunks
from r1ci_engine.kernels.row_stats import row_stats_backward, row_stats_forward

EAGER, EAGER_LOGPROB = "full logits, step", "full logits, log-prob"
COMPILED, COMPILED_LOGPROB = "torch.compile, step", "torch.compile, log-prob"
PLAIN = (EAGER, EAGER_LOGPROB, COMPILED, COMPILED_LOGPROB)
ODD_VOCABULARY = 151_665  # tokens of a tokenizer; rows of as many bf16 are not aligned to 16 bytes


def estimate(model: Model, T: int, rounds: int, contenders: list[str]) -> float:
    """Seconds that a case may need, rather too many: 2 T D V a unit, at half of an H100's rate."""
    unit = 2 * T * model.D * model.V / 4e14
    plain = 12 if T < 100_000 else 0  # beyond that, full logits fail at once
    seconds = unit * (8 + plain) * (rounds + 2) + 5.0
    for name in contenders:
        slow = PEERS[name].units if name in PEERS else 4
        seconds += unit * slow * (min(rounds, 3) + 2) + (12.0 if name not in PEERS else 2.0)
    return seconds


def run_case(model: Model, T: int, bench: Bench, contenders: list[str]) -> dict[str, Any]:
    """One head at one number of tokens: modes, plain torch, parts of a chunk, and `contenders`,
    which are peers or the compiler's ways."""
    step = make_step(model, T, bench)
    D, V = model.D, model.V
    rows = min(plan_chunks(step.hidden_TD, V, default_chunk_bytes(bench.device))[0], T)
    parts, square_flops, copied = _parts(step, rows, bench)
    modes: dict[str, Call] = {
        "one pass": step.one_pass,
        "two passes": step.two_passes,
        "log-prob only": lambda: step.forward(linear_logprob),
        EAGER: lambda: step.plain(full_logprob),
        EAGER_LOGPROB: lambda: step.forward(full_logprob),
    }
    results: dict[str, Result] = {}
    torch.compiler.reset()  # after eight shapes of one function it would run it as it is
    for name in contenders:
        try:
            modes[name] = PEERS[name].make(step) if name in PEERS else _compiled(name, step, bench)
        except Exception as error:
            results[name] = {"ms": None, "spread_ms": None, "peak_gib": None}
            results[name]["failure"] = why(error)
    results |= measure(parts | modes, bench)
    ms = {name: result["ms"] for name, result in results.items()}
    square = rate(square_flops, results["square"])
    floors, own = design_floors(square, T, D, V), own_floors(ms, T / rows)
    flops = 2 * rows * D * V
    size = step.weight_VD.element_size()
    return {
        "model": model.name,
        "D": D,
        "V": V,
        "tokens": T,
        "chunk_rows": rows,
        "results": {name: results[name] for name in results if name not in parts},
        "parts": {name: results[name] for name in parts},
        "tflops": {p: rate(flops, results[f"product {p}"]) for p in _PRODUCTS},
        "square_tflops": square,
        "copy_tb_s": bandwidth(copied, results["copy"]),
        "floors_ms": floors,
        "own_floors_ms": own,
        "row_kernels_ms": _row_kernels(ms, T / rows),
        "ratios": {mode: ratio(ms[mode], floors[mode]) for mode in MODES},
        "own_ratios": {mode: ratio(ms[mode], own[mode]) for mode in MODES},
        "beside": beside(ms),
        "extra_gib": {
            name: extra(results[name]["peak_gib"], name, T, D, V, size) for name in (*MODES, EAGER)
        },
    }


def _compiled(name: str, step: Step, bench: Bench) -> Call:
    backend = "inductor" if bench.on_gpu else "aot_eager"
    fused = torch.compile(full_logprob, dynamic=False, backend=backend)
    return (lambda: step.plain(fused)) if name == COMPILED else (lambda: step.forward(fused))


def odd_vocabulary(model: Model, T: int, bench: Bench) -> dict[str, Any]:
    """The one-pass loss with a vocabulary as it is and as it is padded, in the same rounds."""
    step = make_step(model, T, bench)
    odd = ODD_VOCABULARY if bench.on_gpu else model.V - 3
    steps = {V: with_vocabulary(step, V) for V in (model.V, odd)}
    results = measure({str(V): own.one_pass for V, own in steps.items()}, bench)
    slower = ratio(results[str(odd)]["ms"], results[str(model.V)]["ms"])
    print(f"  one pass, {model.name} at {T} tokens: vocabulary of {odd} / {model.V}: "
          f"{text(slower, 2)} x the time", flush=True)  # fmt: skip
    about = {"model": model.name, "tokens": T, "padded": model.V, "odd": odd}
    return about | {"odd_to_padded": slower, "results": results}


_PRODUCTS = ("logits", "dhidden", "dweight")


def _parts(step: Step, rows: int, bench: Bench) -> tuple[dict[str, Call], float, int]:
    """What a chunk consists of, three products and two row kernels; a square product, a copy.

    With the operations of the square product and the bytes of the copy.
    """
    hidden_CD, weight_VD = step.hidden_TD.detach()[:rows], step.weight_VD.detach()
    target_C = step.target_T[:rows]
    D, V = hidden_CD.shape[1], weight_VD.shape[0]
    dlogits_CV = torch.randn(rows, V, device=bench.device).to(bench.dtype)
    logits_CV = torch.randn(rows, V, device=bench.device).mul_(3)
    sum_VD = torch.zeros(V, D, device=bench.device)
    products = head_products(hidden_CD, weight_VD, dlogits_CV, sum_VD)
    logprob_C, entropy_C, lse_C = row_stats_forward(logits_CV, target_C, 1.0)
    square, flops = square_call(bench)
    copy, size = copy_call(bench)
    calls: dict[str, Call] = {f"product {name}": call for name, call in products.items()}
    calls["rows forward"] = lambda: row_stats_forward(logits_CV, target_C, 1.0)
    calls["rows backward"] = lambda: row_stats_backward(
        logits_CV, target_C, lse_C, entropy_C, logprob_C, None, 1.0, bench.dtype
    )
    calls |= {"square": square, "copy": copy}
    return calls, flops, size


def design_floors(square_tflops: float | None, T: int, D: int, V: int) -> dict[str, float | None]:
    """Milliseconds of the products that each mode needs, at the rate of the square one."""
    if square_tflops is None:
        return dict.fromkeys(MODES)
    unit = 2 * T * D * V / square_tflops / 1e9
    return {mode: UNITS[mode] * unit for mode in MODES}


def own_floors(ms: dict[str, float | None], chunks: float) -> dict[str, float | None]:
    """The same products at the rates of a chunk's own, of which there are `chunks`."""
    logits, dhidden, dweight = (ms[f"product {name}"] for name in _PRODUCTS)
    if logits is None or dhidden is None or dweight is None:
        return dict.fromkeys(MODES)
    one = (logits + dhidden + dweight) * chunks
    return {"one pass": one, "two passes": one + logits * chunks, "log-prob only": logits * chunks}


def _row_kernels(ms: dict[str, float | None], chunks: float) -> dict[str, float | None]:
    forward, backward = ms["rows forward"], ms["rows backward"]
    if forward is None or backward is None:
        return dict.fromkeys(MODES)
    both = (forward + backward) * chunks
    return {
        "one pass": both,
        "two passes": both + forward * chunks,
        "log-prob only": forward * chunks,
    }


def beside(ms: dict[str, float | None]) -> dict[str, dict[str, float | None]]:
    """Times of others over ours, mode by mode: above 1, ours is faster."""

    def others(mode: str) -> list[str]:
        if mode == "log-prob only":
            return [name for name in (EAGER_LOGPROB, COMPILED_LOGPROB) if name in ms]
        return [name for name in ms if name in PEERS or name in (EAGER, COMPILED)]

    return {mode: {other: ratio(ms[other], ms[mode]) for other in others(mode)} for mode in MODES}


def ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def extra(peak_gib: float | None, name: str, T: int, D: int, V: int, size: int) -> float | None:
    """GiB beyond what must be: the gradient of the rows, and that of the head as it is summed.

    Ours sums it in fp32, plain torch in the type of the head, whose elements have `size` bytes.
    """
    if peak_gib is None or name == "log-prob only":
        return peak_gib
    sum_size = size if name == EAGER else max(4, size)
    return peak_gib - (T * D * size + V * D * sum_size) / GIB


def memory_lines(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a mode needs beyond the gradients at the fewest and the most tokens, and at any."""
    lines = []
    for name in dict.fromkeys(case["model"] for case in cases):
        own = sorted((case for case in cases if case["model"] == name), key=lambda c: c["tokens"])
        for mode in MODES:
            known = [(c["tokens"], c["extra_gib"][mode]) for c in own]
            known = [(T, extra_gib) for T, extra_gib in known if extra_gib is not None]
            if len(known) < 2:
                continue
            (few, small), (many, large) = known[0], known[-1]
            equal = abs(large - small) <= 0.05 * max(abs(small), abs(large))
            lines.append(
                {"model": name, "mode": mode, "few": few, "extra_few_gib": small}
                | {"many": many, "extra_many_gib": large, "equal": equal}
                | {"most_gb": max(extra_gib for _, extra_gib in known) * GIB / 1e9}
            )
    return lines


def show(case: dict[str, Any]) -> None:
    print(f"\n{case['model']} head (D={case['D']}, V={case['V']}), {case['tokens']} tokens")
    rates = {"square": case["square_tflops"]} | case["tflops"]
    digits = 0 if (case["square_tflops"] or 0.0) >= 10 else 2  # on CPU
    shown = ", ".join(f"{part} {text(value, digits)}" for part, value in rates.items())
    print(f"  products, TFLOP/s: {shown}; copy {text(case['copy_tb_s'], 2)} TB/s")
    for name, result in case["results"].items():
        if result["ms"] is None:
            print(f"  {name:<27} {result['failure']}")
            continue
        ratios = [text(case[kind].get(name), 2) for kind in ("ratios", "own_ratios")]
        print(
            f"  {name:<27} {result['ms']:>9.2f} ms  +-{result['spread_ms']:<7.2f}"
            f" peak {text(result['peak_gib'], 2):>6} GiB"
            f"  {ratios[0]:>6} x floor, {ratios[1]:>6} x own products"
            f"{'' if result['failure'] is None else '  then ' + result['failure']}"
        )
    print(end="", flush=True)
