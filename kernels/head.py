"""The products of a vocabulary head, and the chunks of rows that they are done in.

Legend: T row, C row of one chunk, D hidden width, V vocabulary.

    logits_CV = hidden_CD weight_VD^T + bias_V         fp32, whatever the operands are
    dhidden_CD = dlogits_CV weight_VD
    dweight_VD += dlogits_CV^T hidden_CD,  dbias_V += sum over C of dlogits_CV       (fp32 sums)

The products are the library's (cuBLAS, MKL): a Triton product reaches 75-90 % of them on Hopper.

Invariant: on CPU, in fp32 and with one thread, the results of a row have the same bits whatever
rows stand beside it and however they are chunked, because each product has a multiple of
`ROW_MULTIPLE` rows.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from r1ci_engine.errors import DataError

from .dispatch import backend_for
from .row_stats import check_rows

ROW_MULTIPLE = 16
"""Rows of every product on CPU: below 8 or 16, BLAS sums a row in another order.

With several threads some shapes still change with the number of rows; MKL_CBWR=AUTO,STRICT in the
environment of the process ends that, at no measurable cost. In bf16 the rows' gradient may change
with it all the same: that product is not MKL's.
"""

CUDA_CHUNK_BYTES = 2_000_000_000
"""Thousands of rows per chunk at a real head: fewer would starve the products of work."""

CPU_CHUNK_BYTES = 256 << 20

CPU_CACHE_BYTES = 4 << 20
"""Working set of a chunk on CPU that mostly stays in the cache between passes."""

CPU_CHUNK_ROWS = 256
"""But no fewer rows than this, or each chunk's pass over the head's gradient costs more."""

TILE_ROWS, TILE_COLUMNS = 128, 256
"""The output tile that cuBLAS takes for large products on Hopper, as far as is known."""

SUM_ROWS = 1064
"""Each chunk reads and writes the fp32 sum of dweight, 8 D V bytes, as slow as the dhidden product
of so many rows, 2 D V each: an H100 at 798 TFLOP/s and 3.0 TB/s. Not measured with this code."""


def check_head(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    target_T: Tensor,
    temperature: float,
) -> None:
    """Raises DataError unless rows, head and targets belong together."""
    check_rows(hidden_TD, target_T, temperature)
    if weight_VD.ndim != 2 or weight_VD.shape[1] != hidden_TD.shape[1] or not len(weight_VD):
        shapes = f"`{tuple(hidden_TD.shape)}` and `{tuple(weight_VD.shape)}`"
        raise DataError(
            f"hidden rows and head weight have shapes {shapes}, expected [T, D] and [V, D], V > 0"
        )
    if weight_VD.dtype != hidden_TD.dtype:
        types = f"`{hidden_TD.dtype}` and `{weight_VD.dtype}`"
        raise DataError(
            f"hidden rows and head weight have types {types}, expected one type",
            hint="under autocast hand over `weight.to(hidden.dtype)`",
        )
    for name, x in (("weight", weight_VD), ("bias", bias_V)):
        if x is not None and x.device != hidden_TD.device:
            raise DataError(f"the head's {name} is on `{x.device}`, expected `{hidden_TD.device}`")
    if bias_V is not None and bias_V.shape != weight_VD.shape[:1]:
        raise DataError(
            f"the head's bias has shape `{tuple(bias_V.shape)}`, expected `[{weight_VD.shape[0]}]`"
        )


def default_chunk_bytes(device: torch.device) -> int:
    return CUDA_CHUNK_BYTES if device.type == "cuda" else CPU_CHUNK_BYTES


def chosen_chunk_bytes(asked: int | None, device: torch.device) -> int:
    if asked is None:
        return default_chunk_bytes(device)
    if not isinstance(asked, int) or asked <= 0:
        raise DataError(f"chunk_bytes is `{asked!r}`, expected a number of bytes, an int above 0")
    return asked


def plan_chunks(hidden_TD: Tensor, V: int, chunk_bytes: int) -> tuple[int, bool]:
    """(rows per chunk, whether backward may find all logits kept) within `chunk_bytes`.

    On CUDA they are a number of rows that costs least per row: see `cheapest_rows`.
    """
    T, D = hidden_TD.shape
    width = max(4, hidden_TD.element_size())  # logits are fp32 (or fp64)
    if backend_for(hidden_TD.device) == "triton":
        per_row = V * (width + hidden_TD.element_size())  # logits, dlogits
        rows = chunk_bytes // per_row
        if rows >= T:
            return max(ROW_MULTIPLE, -(-T // ROW_MULTIPLE) * ROW_MULTIPLE), True
        if hidden_TD.is_cuda:
            processors = torch.cuda.get_device_properties(hidden_TD.device).multi_processor_count
            rows = cheapest_rows(rows, D, processors)
        keep = False
    else:
        per_row = V * width * 4  # logits, scaled logits, exponentials, dlogits
        rows = chunk_bytes // per_row
        if hidden_TD.is_cpu:
            rows = min(rows, max(CPU_CHUNK_ROWS, CPU_CACHE_BYTES // per_row))
        rows = min(rows, -(-T // ROW_MULTIPLE) * ROW_MULTIPLE)
        keep = T * V * width + rows * per_row <= chunk_bytes
    return max(ROW_MULTIPLE, rows // ROW_MULTIPLE * ROW_MULTIPLE), keep


def cheapest_rows(rows: int, D: int, processors: int) -> int:
    """The multiple of `TILE_ROWS` up to `rows` with the least cost per row, or `rows`.

    What a chunk costs beside its logits: its dhidden product, whose last wave of tiles leaves some
    processors idle, and a pass over the sum of dweight.
    """

    def cost(candidate: int) -> float:
        tiles = -(-candidate // TILE_ROWS) * -(-D // TILE_COLUMNS)
        filled = tiles / (-(-tiles // processors) * processors)
        return 1 / filled + SUM_ROWS / candidate

    return min(range(rows // TILE_ROWS * TILE_ROWS, 0, -TILE_ROWS), key=cost, default=rows)


def spans(T: int, rows: int) -> list[slice]:
    return [slice(start, min(start + rows, T)) for start in range(0, T, rows)]


def chunks_where(chosen_T: Tensor, rows: int) -> list[slice] | tuple[Tensor, ...]:
    """Chunks of the chosen rows: slices when all are, row numbers otherwise."""
    index_N = chosen_T.nonzero().squeeze(-1)
    T, N = chosen_T.numel(), index_N.numel()
    return spans(T, rows) if N == T else index_N.split(rows) if N else []


def part_of(C: slice | Tensor, rows_N: Tensor | None) -> slice | Tensor:
    """The rows of a chunk as rows of the whole."""
    if rows_N is None:
        return C
    return rows_N + C.start if isinstance(C, slice) else C[rows_N]


def head_logits(hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None) -> Tensor:
    """In fp32 (fp64 stays fp64), never rounded to a shorter type on the way, nor by autocast."""
    with torch.autocast(hidden_CD.device.type, enabled=False):
        if hidden_CD.is_cuda and hidden_CD.dtype not in (torch.float32, torch.float64):
            logits_CV = torch.mm(hidden_CD, weight_VD.T, out_dtype=torch.float32)
        else:
            C = hidden_CD.shape[0]
            dtype = sum_dtype(hidden_CD)
            padded_CD = F.pad(hidden_CD, (0, 0, 0, -C % ROW_MULTIPLE)).to(dtype)
            logits_CV = (padded_CD @ weight_VD.to(dtype).T)[:C]
        return logits_CV if bias_V is None else logits_CV.add_(bias_V)


class HeadGradients:
    """Sums of the gradients that are wanted, filled chunk by chunk; the others stay empty."""

    def __init__(
        self, hidden_TD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, wanted: list[bool]
    ) -> None:
        self.wanted = wanted
        # The head's gradients are summed over chunks, so they are rounded once, at the end.
        self.sums = gradients_like(hidden_TD, weight_VD, bias_V, wanted, summed=True)
        for sum_ in self.sums:
            sum_.zero_()

    def add(
        self, C: slice | Tensor, dlogits_CV: Tensor, hidden_TD: Tensor, weight_VD: Tensor
    ) -> None:
        """What the rows `C` contribute, if there are any; each row comes once."""
        if not dlogits_CV.shape[0]:
            return
        dhidden_TD, dweight_VD, dbias_V = self.sums
        wants_hidden, wants_weight, wants_bias = self.wanted
        with torch.autocast(dlogits_CV.device.type, enabled=False):
            if wants_hidden:
                rows = dlogits_CV.shape[0]
                missing = 0 if dlogits_CV.is_cuda else -rows % ROW_MULTIPLE
                if isinstance(C, slice) and not missing:
                    torch.mm(dlogits_CV, weight_VD, out=dhidden_TD[C])
                else:
                    padded_CV = F.pad(dlogits_CV, (0, 0, 0, missing)) if missing else dlogits_CV
                    dhidden_TD[C] = (padded_CV @ weight_VD)[:rows]
            if wants_weight:
                _add_product_(dweight_VD, dlogits_CV.T, hidden_TD[C])
            if wants_bias:
                dbias_V += dlogits_CV.sum(0, dtype=dbias_V.dtype)


def gradients_like(
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    wanted: list[bool],
    *,
    summed: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Memory for (dhidden_TD, dweight_VD, dbias_V), of no elements where one is not wanted.

    The head's are in the type of their sums if `summed`, and in its own otherwise.
    """
    head = weight_VD if bias_V is None else bias_V
    made = []
    for x, wants in zip((hidden_TD, weight_VD, head), wanted, strict=True):
        dtype = sum_dtype(x) if summed and x is not hidden_TD else x.dtype
        made.append(x.new_empty(x.shape if wants else (0,), dtype=dtype))
    dhidden_TD, dweight_VD, dbias_V = made
    return dhidden_TD, dweight_VD, dbias_V


@torch.library.custom_op("r1ci::scale_head_gradients", mutates_args=())
def scale_gradients(
    slope: Tensor,
    dhidden_TD: Tensor,
    dweight_VD: Tensor,
    dbias_V: Tensor,
    hidden_TD: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    wanted: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients times `slope`, rounded to the types of what they belong to.

    It takes the operands too, although it does not read them: whoever differentiates a second
    time is thereby told that this operator cannot be, instead of finding zeros.
    """
    made = gradients_like(hidden_TD, weight_VD, bias_V, wanted, summed=False)
    for gradient, out in zip((dhidden_TD, dweight_VD, dbias_V), made, strict=True):
        _multiply(gradient, slope, out)
    return made


def _multiply(gradient: Tensor, slope: Tensor, out: Tensor) -> None:
    """out = gradient * slope in fp32 at least, rounded once.

    On CUDA without a copy in fp32; a factor without an axis would first be rounded to the
    gradient's type. On CPU one with an axis would take a copy, as does a shorter result.
    """
    torch.mul(gradient, slope.reshape(1) if slope.is_cuda else slope, out=out)


@scale_gradients.register_fake
def _like_scale(slope: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return gradients_like(*others[3:], summed=False)


def scale_(gradient: Tensor, slope: Tensor, like: Tensor) -> Tensor:
    """gradient * slope in the type of `like`: in place, or at once in another type."""
    out = gradient if gradient.dtype == like.dtype else torch.empty_like(gradient, dtype=like.dtype)
    _multiply(gradient, slope, out)
    return out


def sum_dtype(x: Tensor) -> torch.dtype:
    """fp32 for anything shorter."""
    return torch.promote_types(x.dtype, torch.float32)


def _add_product_(sum_VD: Tensor, a_VC: Tensor, b_CD: Tensor) -> None:
    """sum += a b, the sum in fp32 (or fp64) although a and b may be shorter."""
    if sum_VD.is_cuda and a_VC.dtype != sum_VD.dtype:
        torch.addmm(sum_VD, a_VC, b_CD, out_dtype=sum_VD.dtype, out=sum_VD)
    else:
        sum_VD.addmm_(a_VC.to(sum_VD.dtype), b_CD.to(sum_VD.dtype))
