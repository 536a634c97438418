"""What the machine can do: products at the head's real shapes, a copy, and whose bits stay put.

The products are those of `r1ci_engine.kernels.head`, by the same library calls. Row invariance asks
of every weight of a model whether row 0 of its product has the same bits however many rows stand
below it: where it has, rollout and training agree bit by bit for free.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gpu_measure import GIB, HEAD_WIDTH, Bench, Call, Model, Result, guarded, measure
from torch import Tensor

CHUNK_ROWS = (1024, 2048, 2176, 2304, 3328, 3584, 4224)
SQUARE, CPU_SQUARE = 8192, 1024
INVARIANCE_ROWS = (1, 8, 64, 256, 4096)


def fp32_logits(hidden_CD: Tensor, weight_VD: Tensor) -> Tensor:
    if not hidden_CD.is_cuda:  # there torch has no product with a longer result
        return hidden_CD.float() @ weight_VD.float().T
    return torch.mm(hidden_CD, weight_VD.T, out_dtype=torch.float32)


def head_products(
    hidden_CD: Tensor, weight_VD: Tensor, dlogits_CV: Tensor, sum_VD: Tensor
) -> dict[str, Call]:
    """The three products of a chunk: fp32 logits, gradient of the rows, sum of the head's."""
    if not hidden_CD.is_cuda:
        return {
            "logits": lambda: fp32_logits(hidden_CD, weight_VD),
            "dhidden": lambda: dlogits_CV @ weight_VD,
            "dweight": lambda: sum_VD.addmm_(dlogits_CV.float().T, hidden_CD.float()),
        }
    return {
        "logits": lambda: fp32_logits(hidden_CD, weight_VD),
        "dhidden": lambda: dlogits_CV @ weight_VD,
        "dweight": lambda: torch.addmm(
            sum_VD, dlogits_CV.T, hidden_CD, out_dtype=torch.float32, out=sum_VD
        ),
    }


def square_side(bench: Bench) -> int:
    return SQUARE if bench.on_gpu else CPU_SQUARE


def square_call(bench: Bench) -> tuple[Call, float]:
    """The product whose rate counts as the most that the machine can do, and its operations."""
    side = square_side(bench)
    a, b = (torch.randn(side, side, device=bench.device).to(bench.dtype) for _ in "ab")
    return lambda: a @ b, 2.0 * side**3


def copy_call(bench: Bench) -> tuple[Call, int]:
    """A copy of memory that no cache holds, and the bytes that it reads and writes."""
    size = GIB if bench.on_gpu else 1 << 20
    source, target = (torch.empty(size, dtype=torch.uint8, device=bench.device) for _ in "ab")
    source.fill_(7)
    return lambda: target.copy_(source), 2 * size


def rate(flops: float, result: Result) -> float | None:
    """TFLOP/s."""
    return None if result["ms"] is None else flops / result["ms"] / 1e9


def bandwidth(size: int, result: Result) -> float | None:
    """TB/s."""
    return None if result["ms"] is None else size / result["ms"] / 1e9


def ceilings(models: list[Model], bench: Bench) -> dict[str, Any]:
    """The rates of products and copy; nothing of the engine runs."""
    found: dict[str, Any] = dict.fromkeys(("square_tflops", "square", "copy_tb_s"))
    with guarded("square product and copy", bench):
        found = _square_and_copy(bench)
    rows = []
    for model in models:
        for C in CHUNK_ROWS if bench.on_gpu else (16, 32):
            what = f"products of the {model.name} head at {C} rows"
            if bench.clock.allows(what, 3.0 if bench.on_gpu else 0.0):
                with guarded(what, bench):
                    rows.append(_products(model, C, bench))
    return {**found, "products": rows}


def _square_and_copy(bench: Bench) -> dict[str, Any]:
    square, flops = square_call(bench)
    copy, size = copy_call(bench)
    results = measure({"square": square, "copy": copy}, bench)
    reached, copied = rate(flops, results["square"]), bandwidth(size, results["copy"])
    side = square_side(bench)
    print(f"product of {side}^3: {text(reached, 0)} TFLOP/s; copy: {text(copied, 2)} TB/s")
    return {"square_tflops": reached, "square": side, "copy_tb_s": copied}


def _products(model: Model, C: int, bench: Bench) -> dict[str, Any]:
    D, V = model.D, model.V
    shapes = ((C, D), (V, D), (C, V))
    hidden_CD, weight_VD, dlogits_CV = (
        torch.randn(shape, device=bench.device).to(bench.dtype) for shape in shapes
    )
    sum_VD = torch.zeros(V, D, device=bench.device)
    results = measure(head_products(hidden_CD, weight_VD, dlogits_CV, sum_VD), bench)
    rates = {name: rate(2 * C * D * V, result) for name, result in results.items()}
    shown = ", ".join(f"{name} {text(value, 0)}" for name, value in rates.items())
    print(f"  {model.name:>4} head, {C:>5} rows, TFLOP/s: {shown}", flush=True)
    return {"model": model.name, "rows": C, "tflops": rates, "results": results}


def row_invariance(models: list[Model], bench: Bench) -> list[dict[str, Any]]:
    """For each weight: how many elements of row 0 differ from those of the tallest product."""
    found = []
    for model in models:
        for name, (N, K) in weights(model).items():
            what = f"row invariance of {model.name} {name}"
            if bench.clock.allows(what, 2.0 if bench.on_gpu else 0.0):
                with guarded(what, bench):
                    found += _invariance(model.name, name, N, K, bench)
    return found


def _invariance(model: str, name: str, N: int, K: int, bench: Bench) -> list[dict[str, Any]]:
    weight_NK = torch.randn(N, K, device=bench.device).mul_(K**-0.5).to(bench.dtype)
    rows = INVARIANCE_ROWS if bench.on_gpu else (1, 8, 16)
    x_MK = torch.randn(max(rows), K, device=bench.device).to(bench.dtype)
    found = []
    for label, product in _products_of(name, bench).items():
        about = {"model": model, "weight": name, "N": N, "K": K, "product": label}
        row = about | _differences(product, x_MK, weight_NK, rows)
        shown = ", ".join(f"{M}: {count}" for M, count in row["differing"].items())
        print(f"  {model:>4} {name:<8} {label:<28} {shown or row['failure']}", flush=True)
        found.append(row)
    return found


def weights(model: Model) -> dict[str, tuple[int, int]]:
    """Shapes [N out, K in] of the products that a token goes through."""
    width = model.H * HEAD_WIDTH
    return {
        "head": (model.V, model.D),
        "qkv": (width + 2 * model.K * HEAD_WIDTH, model.D),
        "o": (model.D, width),
        "gate_up": (2 * model.W, model.D),
        "down": (model.D, model.W),
    }


Product = Callable[[Tensor, Tensor], Tensor]


def _products_of(name: str, bench: Bench) -> dict[str, Product]:
    def plain(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
        return x_MK @ weight_NK.T

    ways: dict[str, Product] = {"as it comes": plain}
    if bench.on_gpu:
        ways["without split-k"] = _unsplit(plain)
        if name == "head":  # the operator's own product
            ways["fp32 result"] = fp32_logits
            ways["fp32 result, without split-k"] = _unsplit(fp32_logits)
    return ways


def _unsplit(product: Product) -> Product:
    def call(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
        with without_split_k():
            return product(x_MK, weight_NK)

    return call


@contextmanager
def without_split_k() -> Iterator[None]:
    """Products whose inner dimension is not cut in parts that are summed later.

    Torch asks that of cuBLASLt only: under cuBLAS, its default, the same setting is an error.
    """
    matmul: Any = torch.backends.cuda.matmul
    reduction = (
        matmul.allow_bf16_reduced_precision_reduction,
        matmul.allow_bf16_reduced_precision_reduction_split_k,
    )
    library = torch.backends.cuda.preferred_blas_library()
    try:
        torch.backends.cuda.preferred_blas_library("cublaslt")
        matmul.allow_bf16_reduced_precision_reduction = (False, False)
        yield
    finally:
        matmul.allow_bf16_reduced_precision_reduction = reduction
        torch.backends.cuda.preferred_blas_library(library)


def _differences(
    product: Product, x_MK: Tensor, weight_NK: Tensor, rows: tuple[int, ...]
) -> dict[str, Any]:
    try:
        expected_N = product(x_MK, weight_NK)[0].clone()
        first = {M: product(x_MK[:M], weight_NK)[0].clone() for M in rows}
    except (RuntimeError, TypeError, AttributeError) as error:
        return {"differing": {}, "largest": None, "failure": str(error).splitlines()[0][:200]}
    return {
        "differing": {str(M): int((row_N != expected_N).sum()) for M, row_N in first.items()},
        "largest": max((row_N - expected_N).abs().max().item() for row_N in first.values()),
        "failure": None,
    }


def text(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
