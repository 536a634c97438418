"""The head operator on a GPU: right first, then how far from what the machine can do.

    python3 benches/gpu.py [--json OUT] [--self-check]

Needs torch, triton and numpy; nothing is installed. Four steps, all in one run:

1. Correctness on fresh random inputs against fp64. A failure ends the run: no figure without it.
2. Ceilings: the three products of the head at their real shapes, and a device copy.
3. The operator at the heads of 3B, 7B and 14B models, and full logits in plain torch beside it.
   Each round times every contender once, in turn, so that clocks and heat treat them alike.
4. Ratios to the floor: the operator's products at the rate of step 2, and nothing else.

Times are medians over rounds, the spread is the distance between the quartiles. Memory is the peak
above what was allocated before the call, so it contains the gradients. Without CUDA, or with
--self-check, the same code runs on a tiny head on CPU: that checks this file, not the kernels.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "python"))

from r1ci_engine.kernels import (  # noqa: E402
    backend_for,
    linear_logprob,
    linear_logprob_reference,
    row_stats,
    row_stats_reference,
)
from r1ci_engine.kernels.linear_logprob import plan_chunks  # noqa: E402


class Head(NamedTuple):
    """The head of a model: D hidden width, V vocabulary."""

    name: str
    D: int
    V: int


HEADS = [Head("3B", 2048, 151_936), Head("7B", 3584, 152_064), Head("14B", 5120, 152_064)]
TOKENS = [8192, 32_768]
ROUNDS = 7
TINY = Head("tiny", 32, 500)

# Against fp64 on the same inputs: the head's fp32 sums, truncated as tensor cores do.
LOGPROB_RMS, LOGPROB_MAX = 1e-4, 1e-3
GRADIENT_RATIO = 1.1  # error of a gradient relative to that of full logits in the same type


def full_logits(hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor) -> tuple[Tensor, Tensor]:
    """What a trainer without a fused head does: product in the operands' type, then fp32."""
    return row_stats_reference((hidden_TD @ weight_VD.T).float(), target_T)


def inputs(head: Head, T: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    """Hidden rows, a weight that gives logits of a trained model's size, and targets."""
    hidden_TD = torch.randn(T, head.D, device=device).to(dtype).requires_grad_()
    weight_VD = torch.randn(head.V, head.D, device=device).mul_(3 / head.D**0.5).to(dtype)
    return [hidden_TD, weight_VD.requires_grad_(), torch.randint(head.V, (T,), device=device)]


def gradients(call: Callable[..., tuple[Tensor, Tensor]], leaves: list[Tensor]) -> list[Tensor]:
    """[dhidden, dweight] of a loss that weighs log-probabilities and entropies unevenly."""
    logprob_T, entropy_T = call(*leaves)
    weight_T = torch.linspace(-1, 1, len(logprob_T), device=logprob_T.device)
    loss = (weight_T * logprob_T).sum() + 0.01 * entropy_T.sum()
    return list(torch.autograd.grad(loss, leaves[:2]))


def check(name: str, value: float, limit: float) -> dict[str, Any]:
    if not value <= limit:
        raise SystemExit(f"error: {name} is {value:.3g}, allowed is {limit:.3g}; nothing was timed")
    return {"check": name, "value": value, "limit": limit}


def correctness(head: Head, T: int, device: torch.device, dtype: torch.dtype) -> list[dict]:
    """Both halves of the operator against fp64 on the same inputs, and a tail of the vocabulary."""
    hidden_TD, weight_VD, target_T = leaves = inputs(head, T, device, dtype)
    hidden_TD, weight_VD = (x.detach().double().requires_grad_() for x in (hidden_TD, weight_VD))
    doubles = [hidden_TD, weight_VD, target_T]
    exact_T = linear_logprob_reference(hidden_TD, weight_VD, target_T)[0].detach()
    checks = []
    for budget in (None, 64 * 6 * head.V):  # all rows at once, and 64 or fewer at a time

        def ours(*leaves: Tensor, budget: int | None = budget) -> tuple[Tensor, Tensor]:
            hidden_TD, weight_VD, target_T = leaves
            return linear_logprob(hidden_TD, weight_VD, target_T, chunk_bytes=budget)

        label = f"{head.name}, {'one chunk' if budget is None else 'many chunks'}"
        error_T = ours(*leaves)[0].detach().double() - exact_T
        checks.append(
            check(f"{label}: log-prob rms", error_T.square().mean().sqrt().item(), LOGPROB_RMS)
        )
        checks.append(check(f"{label}: log-prob max", error_T.abs().max().item(), LOGPROB_MAX))
        found, plain, exact = (
            gradients(ours, leaves),
            gradients(full_logits, leaves),
            gradients(linear_logprob_reference, doubles),
        )
        for part, one, eager, true in zip(("dhidden", "dweight"), found, plain, exact, strict=True):
            if not true.abs().max() > 0:
                raise SystemExit(f"error: the exact {part} is zero: the check would prove nothing")
            ratio = (one.double() - true).norm() / (eager.double() - true).norm().clamp_min(1e-30)
            checks.append(
                check(f"{label}: {part} error / full logits", ratio.item(), GRADIENT_RATIO)
            )
    logits_TV = torch.randn(33, 4096 + 37, device=device) * 5 - 50  # all negative, with a tail
    target_T = torch.randint(4096, 4096 + 37, (33,), device=device)
    pairs = zip(
        row_stats(logits_TV, target_T, 0.7),
        row_stats_reference(logits_TV.double(), target_T, 0.7),
        strict=True,
    )
    for part, (one_T, true_T) in zip(("log-prob", "entropy"), pairs, strict=True):
        checks.append(check(f"row_stats: {part} max", (one_T - true_T).abs().max().item(), 1e-4))
    return checks


def measure(
    contenders: dict[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, dict[str, float | None]]:
    """Milliseconds and peak memory of each, one call a round in turn; None: out of memory."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    peaks = dict.fromkeys(contenders, 0)
    for round_ in range(rounds + 1):  # the first one warms up and compiles
        for name, call in contenders.items():
            if round_ > 0 and not times[name] and peaks[name] < 0:
                continue
            before = 0
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
            start = time.perf_counter()
            try:
                call()
            except torch.OutOfMemoryError:
                peaks[name] = -1
                torch.cuda.empty_cache()
                continue
            if device.type == "cuda":
                torch.cuda.synchronize()
                peaks[name] = torch.cuda.max_memory_allocated() - before
            if round_ > 0:
                times[name].append((time.perf_counter() - start) * 1e3)
    results: dict[str, dict[str, float | None]] = {}
    for name, series in times.items():
        if series:
            low, middle, high = statistics.quantiles(series, n=4)
            results[name] = {"ms": middle, "spread_ms": high - low, "peak_gib": peaks[name] / 2**30}
        else:
            results[name] = {"ms": None, "spread_ms": None, "peak_gib": None}
    return results


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b with the fp32 result that the operator asks for, where the device can give one."""
    return torch.mm(a, b, out_dtype=torch.float32) if a.is_cuda else a.float() @ b.float()


def run_case(head: Head, T: int, device: torch.device, dtype: torch.dtype, rounds: int) -> dict:
    """One head at one number of tokens: contenders, the head's own products, and a copy."""
    hidden_TD, weight_VD, target_T = leaves = inputs(head, T, device, dtype)
    rows = min(plan_chunks(hidden_TD, head.V, 2 << 30)[0], T)
    x_CD, w_VD = hidden_TD.detach()[:rows], weight_VD.detach()
    d_CV = torch.randn(rows, head.V, device=device).to(dtype)
    source = torch.empty(
        1 << (28 if device.type == "cuda" else 20), dtype=torch.uint8, device=device
    )

    def forward(call: Callable[..., object]) -> Callable[[], None]:
        def run() -> None:
            with torch.no_grad():
                call(hidden_TD, weight_VD, target_T)

        return run

    contenders: dict[str, Callable[[], object]] = {
        "copy": lambda: source.clone(),
        "product logits": lambda: product(x_CD, w_VD.T),
        "product dhidden": lambda: d_CV @ w_VD,
        "product dweight": lambda: product(d_CV.T, x_CD),
        "forward": forward(linear_logprob),
        "forward, full logits": forward(full_logits),
        "step": lambda: gradients(linear_logprob, leaves),
        "step, full logits": lambda: gradients(full_logits, leaves),
    }
    results = measure(contenders, device, rounds)
    ms = {name: result["ms"] for name, result in results.items()}
    parts = {part: ms[f"product {part}"] or 0.0 for part in ("logits", "dhidden", "dweight")}
    logits, dhidden, dweight = (value * T / rows for value in parts.values())
    floors = {
        "forward": logits,
        "step, one pass": logits + dhidden + dweight,
        "step, two passes": 2 * logits + dhidden + dweight,
    }
    ratios = {
        name: None if (taken := ms[name.split(",")[0]]) is None else taken / floor
        for name, floor in floors.items()
    }
    flops = 2 * rows * head.D * head.V
    return {
        "head": head.name,
        "D": head.D,
        "V": head.V,
        "tokens": T,
        "chunk_rows": rows,
        "results": results,
        "tflops": {part: flops / value / 1e9 for part, value in parts.items()},
        "copy_tb_s": 2 * source.numel() / (ms["copy"] or 1.0) / 1e9,
        "floors_ms": floors,
        "ratios": ratios,
    }


def show(case: dict) -> None:
    print(f"\n{case['head']} head (D={case['D']}, V={case['V']}), {case['tokens']} tokens")
    rates = ", ".join(f"{part} {rate:.0f}" for part, rate in case["tflops"].items())
    print(f"  products, TFLOP/s: {rates}; copy {case['copy_tb_s']:.2f} TB/s")
    for name in ("forward", "forward, full logits", "step", "step, full logits"):
        result = case["results"][name]
        if result["ms"] is None:
            print(f"  {name:<22} out of memory")
            continue
        print(
            f"  {name:<22} {result['ms']:>9.2f} ms  +-{result['spread_ms']:.2f}"
            f"  peak {result['peak_gib']:.2f} GiB"
        )
    for name, ratio in case["ratios"].items():
        print(f"  over the floor of {name}: {'-' if ratio is None else f'{ratio:.2f}x'}")


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
    parser = argparse.ArgumentParser(description="the head operator on a GPU")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    parser.add_argument("--self-check", action="store_true", help="tiny head on CPU")
    options = parser.parse_args()
    on_gpu = torch.cuda.is_available() and not options.self_check
    device = torch.device("cuda" if on_gpu else "cpu")
    if not on_gpu:
        print("no GPU is used: a tiny head on CPU checks this program, its times mean nothing")
    torch.manual_seed(time.time_ns())
    dtype = torch.bfloat16
    heads, tokens, rounds = (HEADS, TOKENS, ROUNDS) if on_gpu else ([TINY], [64], 3)

    facts = machine(device)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"kernels: {backend_for(device)}")
    checks = [c for head in heads for c in correctness(head, 250, device, dtype)]
    for c in checks:
        print(f"  {c['check']}: {c['value']:.2e} (allowed {c['limit']:.1e})")
    cases = []
    for head in heads:
        for T in tokens:
            cases.append(run_case(head, T, device, dtype, rounds))
            show(cases[-1])
    report = {"bench": "gpu", "self_check": not on_gpu, "rounds": rounds, "machine": facts}
    report |= {"backend": backend_for(device), "checks": checks, "cases": cases}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
