"""New key and value rows -> their places in a slot cache, in place.

Legend: T new row, N cache row (slot * capacity + position), K key/value head, D head width.

    cache[row[t]] = new[t]    for every t with row[t] >= 0

A negative row writes nothing: padding rows of a captured step carry -1 (a step can be captured on
the Triton path only; plain indexing asks how many rows there are). Rows must be distinct, or which
one stays is not defined. Left out: paging, rotation, types other than the cache's own.

On the Triton path, and on either to a compiler, it is a custom operator that is known to write to
the caches. It has no gradient.
"""

import torch
from torch import Tensor

from r1ci_engine.errors import DataError

from .dispatch import HAS_TRITON, backend_for, launch

if HAS_TRITON:
    import triton
    import triton.language as tl

    @triton.jit
    def _write_kernel(
        key, value, row, cache_key, cache_value,  # pointers
        WIDTH,  # shapes
        stride_key, stride_value, stride_cache_key, stride_cache_value,  # strides
        BLOCK: tl.constexpr,
    ):  # fmt: skip
        """One program copies one token: all heads of its key, then of its value."""
        t = tl.program_id(0).to(tl.int64)
        n = tl.load(row + t)
        if n >= 0:
            column = tl.arange(0, BLOCK)
            inside = column < WIDTH
            k = tl.load(key + t * stride_key + column, mask=inside)
            tl.store(cache_key + n * stride_cache_key + column, k, mask=inside)
            v = tl.load(value + t * stride_value + column, mask=inside)
            tl.store(cache_value + n * stride_cache_value + column, v, mask=inside)


def kv_cache_write_reference_(
    key_TKD: Tensor,
    value_TKD: Tensor,
    row_T: Tensor,
    cache_key_NKD: Tensor,
    cache_value_NKD: Tensor,
) -> None:
    """The definition of right: plain indexing."""
    kept_T = row_T >= 0
    cache_key_NKD[row_T[kept_T]] = key_TKD.detach()[kept_T]
    cache_value_NKD[row_T[kept_T]] = value_TKD.detach()[kept_T]


def kv_cache_write_(
    key_TKD: Tensor,
    value_TKD: Tensor,
    row_T: Tensor,
    cache_key_NKD: Tensor,
    cache_value_NKD: Tensor,
) -> None:
    """Writes `key_TKD` and `value_TKD` into rows `row_T` (int64, -1 = nowhere) of the caches.

    The caches are views whose rows are contiguous; rows outside them are the caller's bug and are
    not looked for on CUDA. Raises DataError when shapes, types or strides do not fit.
    """
    T, *width = key_TKD.shape
    alike = value_TKD.shape == key_TKD.shape and value_TKD.dtype == key_TKD.dtype
    if key_TKD.ndim != 3 or not alike or row_T.shape != (T,) or row_T.dtype != torch.int64:
        found = ", ".join(f"`{tuple(x.shape)}` of `{x.dtype}`" for x in (key_TKD, value_TKD, row_T))
        raise DataError(f"keys, values, rows are {found}, expected [T, K, D] twice and int64 [T]")
    if cache_key_NKD.shape[0] != cache_value_NKD.shape[0]:
        rows = f"`{cache_key_NKD.shape[0]}` and `{cache_value_NKD.shape[0]}`"
        raise DataError(f"the caches of keys and values have {rows} rows, expected as many")
    for cache_NKD in (cache_key_NKD, cache_value_NKD):
        if list(cache_NKD.shape[1:]) != width or cache_NKD.dtype != key_TKD.dtype:
            found = f"`{tuple(cache_NKD.shape)}` of `{cache_NKD.dtype}`"
            raise DataError(f"a cache is {found}, expected rows of `{width}` `{key_TKD.dtype}`")
        if not _rows_are_contiguous(cache_NKD):
            raise DataError(f"a cache has strides `{cache_NKD.stride()}`, its rows have gaps")
    arguments = (key_TKD, value_TKD, row_T, cache_key_NKD, cache_value_NKD)
    # How many rows the reference writes is data, which a compiler cannot trace.
    if backend_for(key_TKD.device) == "torch" and not torch.compiler.is_compiling():
        kv_cache_write_reference_(*arguments)
    else:
        _write_(*arguments)


@torch.library.custom_op("r1ci::kv_cache_write_", mutates_args=("cache_key_NKD", "cache_value_NKD"))
def _write_(
    key_TKD: Tensor,
    value_TKD: Tensor,
    row_T: Tensor,
    cache_key_NKD: Tensor,
    cache_value_NKD: Tensor,
) -> None:
    if backend_for(key_TKD.device) == "torch":
        kv_cache_write_reference_(key_TKD, value_TKD, row_T, cache_key_NKD, cache_value_NKD)
        return
    key_TKD, value_TKD = (
        x if _rows_are_contiguous(x) else x.contiguous() for x in (key_TKD, value_TKD)
    )
    T, K, D = key_TKD.shape
    if T and K * D:
        launch(
            _write_kernel, (T,), key_TKD.device,
            key_TKD, value_TKD, row_T.contiguous(), cache_key_NKD, cache_value_NKD,
            K * D,
            key_TKD.stride(0), value_TKD.stride(0),
            cache_key_NKD.stride(0), cache_value_NKD.stride(0),
            BLOCK=1 << (K * D - 1).bit_length(), num_warps=4,
        )  # fmt: skip


@_write_.register_fake
def _like_write(
    key_TKD: Tensor,
    value_TKD: Tensor,
    row_T: Tensor,
    cache_key_NKD: Tensor,
    cache_value_NKD: Tensor,
) -> None:
    """Nothing comes back."""


def _rows_are_contiguous(x_NKD: Tensor) -> bool:
    return x_NKD[0].is_contiguous() if x_NKD.shape[0] else True
