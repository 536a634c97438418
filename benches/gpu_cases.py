"""The head operator in its three modes, beside full logits, a compiler and other libraries.

    one pass        linear_grpo_loss and its gradients         products: 6 T D V
    two passes      linear_logprob, a loss on it, gradients             8 T D V
    log-prob only   linear_logprob without gradients                    2 T D V

The floor of a mode is its products at the rate that they reach in the same rounds, and nothing
else. Full logits are the leanest that plain torch can do: a product in bf16, fp32 from there, no
entropy. The losses of other libraries that are not GRPO are plain cross-entropy, which is no more
work than ours does. Peers that are not installed are listed with that reason.
"""

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from gpu_ceilings import bandwidth, copy_call, head_products, rate, text
from gpu_measure import GIB, Bench, Call, Model, Result, head_inputs, measure
from torch import Tensor

from r1ci_engine.kernels import (
    PolicyLoss,
    Tokens,
    linear_grpo_loss,
    linear_logprob,
    policy_loss,
)
from r1ci_engine.kernels.head import default_chunk_bytes, plan_chunks
from r1ci_engine.kernels.row_stats import row_stats_backward, row_stats_forward

LOSS = PolicyLoss("dapo", clip_high=0.28)
SEQUENCE = 4096  # tokens of one, where a library wants sequences
MODES = ("one pass", "two passes", "log-prob only")
PLAIN = ("full logits, step", "full logits, log-prob", "torch.compile, step")


def full_logprob(hidden_TD: Tensor, weight_VD: Tensor, target_T: Tensor) -> Tensor:
    """What a trainer without a fused head does, at its leanest."""
    logits_TV = (hidden_TD @ weight_VD.T).float()
    return -F.cross_entropy(logits_TV, target_T, reduction="none")


class Step(NamedTuple):
    """One loss and its two gradients."""

    hidden_TD: Tensor
    weight_VD: Tensor
    target_T: Tensor
    tokens: Tokens

    def gradients(self, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, (self.hidden_TD, self.weight_VD))

    def one_pass(self) -> tuple[Tensor, ...]:
        head = (self.hidden_TD, self.weight_VD, self.target_T)
        return self.gradients(linear_grpo_loss(*head, self.tokens, LOSS).loss)

    def two_passes(self) -> tuple[Tensor, ...]:
        logprob_T, entropy_T = linear_logprob(self.hidden_TD, self.weight_VD, self.target_T)
        return self.gradients(policy_loss(logprob_T, entropy_T, self.tokens, LOSS))

    def plain(self, logprob: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        logprob_T = logprob(self.hidden_TD, self.weight_VD, self.target_T)
        return self.gradients(policy_loss(logprob_T, logprob_T, self.tokens, LOSS))

    @torch.no_grad()
    def forward(self, call: Callable[..., object]) -> object:
        return call(self.hidden_TD, self.weight_VD, self.target_T)


def make_step(model: Model, T: int, bench: Bench) -> Step:
    """On policy, every token trained: no row may be skipped."""
    advantage_T = torch.randn(T, device=bench.device)
    advantage_T = torch.where(advantage_T < 0, advantage_T - 0.1, advantage_T + 0.1)
    weight_T = torch.full((T,), 1 / T, device=bench.device)
    return Step(*head_inputs(model, T, bench), Tokens(advantage_T, weight_T))


def torch_cross_entropy(step: Step) -> Call:
    from torch.nn import LinearCrossEntropyOptions  # type: ignore[attr-defined]

    fused: Any = F.linear_cross_entropy  # type: ignore[attr-defined]
    options = LinearCrossEntropyOptions()
    head = (step.hidden_TD, step.weight_VD, step.target_T)
    return lambda: step.gradients(fused(*head, options=options))


def liger_grpo(step: Step) -> Call:
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss  # type: ignore[import-not-found]

    fused = LigerFusedLinearGRPOLoss(beta=0.0, use_ref_model=False)
    T, D = step.hidden_TD.shape
    B = max(1, T // SEQUENCE)
    target_BS, advantage_B = step.target_T.view(B, -1), step.tokens.advantage_N[:B]
    mask_BS = torch.ones_like(target_BS)

    def call() -> object:
        hidden_BSD = step.hidden_TD.view(B, -1, D)
        return step.gradients(fused(hidden_BSD, step.weight_VD, target_BS, mask_BS, advantage_B)[0])

    return call


def liger_cross_entropy(step: Step) -> Call:
    from liger_kernel.transformers.functional import (  # type: ignore[import-not-found]
        liger_fused_linear_cross_entropy,
    )

    head = (step.hidden_TD, step.weight_VD, step.target_T)
    return lambda: step.gradients(liger_fused_linear_cross_entropy(*head))


def quack_cross_entropy(step: Step) -> Call:
    from quack.linear_cross_entropy import (  # type: ignore[import-not-found]
        chunked_linear_cross_entropy,
    )

    head = (step.hidden_TD, step.weight_VD, step.target_T)
    return lambda: step.gradients(chunked_linear_cross_entropy(*head))


PEERS: dict[str, tuple[str, Callable[[Step], Call]]] = {
    "torch linear_cross_entropy": ("torch", torch_cross_entropy),
    "Liger GRPO": ("liger_kernel", liger_grpo),
    "Liger cross-entropy": ("liger_kernel", liger_cross_entropy),
    "QuACK cross-entropy": ("quack", quack_cross_entropy),
}


def peers(bench: Bench) -> list[dict[str, Any]]:
    """Each with its version, or the reason why it is not measured."""
    found = []
    for name, (module, _) in PEERS.items():
        why = None
        try:
            importlib.import_module(module)
        except Exception as error:  # a library may fail to load in any way
            why = f"not importable: {type(error).__name__}"
        if module == "torch" and not hasattr(F, "linear_cross_entropy"):
            why = f"torch {torch.__version__} has none"
        if why is None and module != "torch" and not bench.on_gpu:
            why = "needs a GPU"
        found.append({"name": name, "version": None if why else _version(module), "why_not": why})
    return found


def _version(module: str) -> str:
    names = importlib.metadata.packages_distributions().get(module, [])
    return importlib.metadata.version(names[0]) if names else "unknown"


def estimate(model: Model, T: int, rounds: int, present: int, compiled: bool) -> float:
    """Seconds that a case may need, rather too many: 2 T D V a unit, at half of an H100's rate."""
    plain = 12 if T < 100_000 else 0  # beyond that, full logits fail at once
    units = 8 + plain + 5 * present
    return 2 * T * model.D * model.V * units / 4e14 * (rounds + 2) + (35.0 if compiled else 5.0)


def run_case(
    model: Model, T: int, bench: Bench, present: list[str], compiled: bool
) -> dict[str, Any]:
    """One head at one number of tokens: modes, plain torch, peers, products, row kernels, copy."""
    step = make_step(model, T, bench)
    D, V = model.D, model.V
    rows = min(plan_chunks(step.hidden_TD, V, default_chunk_bytes(bench.device))[0], T)
    parts, copied = _parts(step, rows, bench)
    modes: dict[str, Call] = {
        "one pass": step.one_pass,
        "two passes": step.two_passes,
        "log-prob only": lambda: step.forward(linear_logprob),
        "full logits, step": lambda: step.plain(full_logprob),
        "full logits, log-prob": lambda: step.forward(full_logprob),
    }
    if compiled:
        backend = "inductor" if bench.on_gpu else "aot_eager"
        fused = torch.compile(full_logprob, dynamic=False, backend=backend)
        modes["torch.compile, step"] = lambda: step.plain(fused)
    results: dict[str, Result] = {}
    for name in present:
        try:
            modes[name] = PEERS[name][1](step)
        except Exception as error:
            results[name] = {"ms": None, "spread_ms": None, "peak_gib": None}
            results[name]["failure"] = f"{type(error).__name__}: {error}"[:200]
    results |= measure(parts | modes, bench)
    ms = {name: result["ms"] for name, result in results.items()}
    floors = _floors(ms, T / rows)
    flops = 2 * rows * D * V
    return {
        "model": model.name,
        "D": D,
        "V": V,
        "tokens": T,
        "chunk_rows": rows,
        "results": {name: results[name] for name in results if name not in parts},
        "parts": {name: results[name] for name in parts},
        "tflops": {p: rate(flops, results[f"product {p}"]) for p in _PRODUCTS},
        "copy_tb_s": bandwidth(copied, results["copy"]),
        "floors_ms": floors,
        "row_kernels_ms": _row_kernels(ms, T / rows),
        "ratios": {mode: _ratio(ms[mode], floors[mode]) for mode in MODES},
        "beside": {
            mode: {other: _ratio(ms[other], ms[mode]) for other in _others(mode, results)}
            for mode in MODES
        },
        # Beyond the two gradients as they are handed out; the head's fp32 sum is part of it.
        "extra_gib": {mode: _extra(results[mode], mode, step) for mode in MODES},
        "sum_gib": 0.0 if bench.dtype == torch.float32 else V * D * 4 / GIB,
    }


_PRODUCTS = ("logits", "dhidden", "dweight")


def _parts(step: Step, rows: int, bench: Bench) -> tuple[dict[str, Call], int]:
    """What a chunk consists of: three products, two row kernels. And a copy."""
    hidden_CD, weight_VD = step.hidden_TD.detach()[:rows], step.weight_VD.detach()
    target_C = step.target_T[:rows]
    D, V = hidden_CD.shape[1], weight_VD.shape[0]
    dlogits_CV = torch.randn(rows, V, device=bench.device).to(bench.dtype)
    logits_CV = torch.randn(rows, V, device=bench.device).mul_(3)
    sum_VD = torch.zeros(V, D, device=bench.device)
    products = head_products(hidden_CD, weight_VD, dlogits_CV, sum_VD)
    logprob_C, entropy_C, lse_C = row_stats_forward(logits_CV, target_C, 1.0)
    copy, size = copy_call(bench)
    calls: dict[str, Call] = {f"product {name}": call for name, call in products.items()}
    calls["rows forward"] = lambda: row_stats_forward(logits_CV, target_C, 1.0)
    calls["rows backward"] = lambda: row_stats_backward(
        logits_CV, target_C, lse_C, entropy_C, logprob_C, None, 1.0, bench.dtype
    )
    calls["copy"] = copy
    return calls, size


def _floors(ms: dict[str, float | None], chunks: float) -> dict[str, float | None]:
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


def _others(mode: str, results: dict[str, Result]) -> list[str]:
    """Whom a mode is compared with: whoever does the same, a step or log-probabilities."""
    if mode == "log-prob only":
        return ["full logits, log-prob"]
    return [name for name in results if name in PEERS or (name in PLAIN and name.endswith("step"))]


def _ratio(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a / b


def _extra(result: Result, mode: str, step: Step) -> float | None:
    if result["peak_gib"] is None:
        return None
    gradients = 0 if mode == "log-prob only" else step.hidden_TD.nbytes + step.weight_VD.nbytes
    return result["peak_gib"] - gradients / GIB


def memory_lines(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Whether the memory beyond the gradients is the same at the fewest and the most tokens."""
    lines = []
    for name in dict.fromkeys(case["model"] for case in cases):
        own = sorted((case for case in cases if case["model"] == name), key=lambda c: c["tokens"])
        for mode in MODES:
            known = [(c["tokens"], c["extra_gib"][mode]) for c in own]
            known = [(T, extra) for T, extra in known if extra is not None]
            if len(known) < 2:
                continue
            (few, small), (many, large) = known[0], known[-1]
            equal = abs(large - small) <= 0.05 * max(abs(small), abs(large))
            lines.append(
                {"model": name, "mode": mode, "few": few, "extra_few_gib": small}
                | {"many": many, "extra_many_gib": large, "equal": equal}
                | {"sum_gib": 0.0 if mode == "log-prob only" else own[0]["sum_gib"]}
            )
    return lines


def show(case: dict[str, Any]) -> None:
    print(f"\n{case['model']} head (D={case['D']}, V={case['V']}), {case['tokens']} tokens")
    rates = ", ".join(f"{part} {text(value, 0)}" for part, value in case["tflops"].items())
    print(f"  products, TFLOP/s: {rates}; copy {text(case['copy_tb_s'], 2)} TB/s")
    for name, result in case["results"].items():
        if result["ms"] is None:
            print(f"  {name:<27} {result['failure']}")
            continue
        ratio = text(case["ratios"].get(name), 2)
        print(
            f"  {name:<27} {result['ms']:>9.2f} ms  +-{result['spread_ms']:<7.2f}"
            f" peak {text(result['peak_gib'], 2):>6} GiB  {ratio:>6} x floor"
        )
    print(end="", flush=True)
