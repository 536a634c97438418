"""Cache writes: both twins against a loop."""

from importlib import import_module

import pytest
import torch
from torch import Tensor

from r1ci_engine.errors import DataError
from r1ci_engine.kernels import kv_cache_write_
from r1ci_engine.kernels.kv_cache_write import _write_

K, D, N = 2, 6, 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [[], [3], [7, 0, 19, 4], [7, -1, 2, -1], [-2, 1, -4, 0]])
def test_rows_land_where_they_belong_and_nothing_else_moves(
    rows: list[int], dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    T = len(rows)
    # Slices of one fused projection, as a model hands them over: rows have a stride.
    fused_TKD = torch.randn(T, 3 * K, D, device=device).to(dtype)
    key_TKD, value_TKD = fused_TKD[:, K : 2 * K], fused_TKD[:, 2 * K :]
    # Two layers of one pool: the cache is a view with a stride of its own. The four rows before it
    # are where a negative row would go.
    pool = torch.randn(4 + N, 2, 2, K, D, device=device).to(dtype)
    cache_key_NKD, cache_value_NKD = pool[4:, 1, 0], pool[4:, 1, 1]
    expected = pool.clone()
    for t, n in enumerate(rows):
        if n >= 0:
            expected[4 + n, 1, 0] = key_TKD[t]
            expected[4 + n, 1, 1] = value_TKD[t]

    row_T = torch.tensor(rows, dtype=torch.int64, device=device)
    kv_cache_write_(key_TKD, value_TKD, row_T, cache_key_NKD, cache_value_NKD)
    assert torch.equal(pool, expected)


def layouts(name: str, device: torch.device) -> tuple[Tensor, ...]:
    """(keys, values, rows, caches), each with the strides that the name promises."""
    T = 3
    wide_TXD = torch.randn(T, 3 * K, D + 1, device=device)
    key_TKD, value_TKD = (torch.randn(T, K, D, device=device) for _ in range(2))
    row_T = torch.tensor([7, 0, 19], device=device)
    cache_key_NKD, cache_value_NKD = (torch.randn(N, K, D, device=device) for _ in range(2))
    match name:
        case "keys and values apart":
            key_TKD = torch.randn(T, K + 1, D, device=device)[:, 1:]
            value_TKD = torch.randn(T, K + 2, D, device=device)[:, 1:-1]
        case "caches apart":
            cache_key_NKD = torch.randn(N, 2, K, D, device=device)[:, 1]
            cache_value_NKD = torch.randn(N, 3, K, D, device=device)[:, 1]
        case "rows with gaps":
            row_T = torch.tensor([7, 1, 0, 2, 19, 3], device=device)[::2]
        case "heads with gaps":
            key_TKD, value_TKD = wide_TXD[:, ::3, 1:], wide_TXD[:, 1::3, :-1]
        case "elements with gaps":
            key_TKD = torch.randn(T, D, K, device=device).mT
            value_TKD = torch.randn(T, K, 2 * D, device=device)[..., ::2]
    return key_TKD, value_TKD, row_T, cache_key_NKD, cache_value_NKD


@pytest.mark.parametrize(
    "name",
    [
        "keys and values apart",
        "caches apart",
        "rows with gaps",
        "heads with gaps",
        "elements with gaps",
    ],
)
def test_every_tensor_has_strides_of_its_own(name: str, backend: str, device: torch.device) -> None:
    *new, row_T, cache_key_NKD, cache_value_NKD = layouts(name, device)
    before = [x.clone() for x in new]
    expected = [cache_NKD.clone() for cache_NKD in (cache_key_NKD, cache_value_NKD)]
    for t, n in enumerate(row_T.tolist()):
        for cache_NKD, x_TKD in zip(expected, new, strict=True):
            cache_NKD[n] = x_TKD[t]
    kv_cache_write_(*new, row_T, cache_key_NKD, cache_value_NKD)
    assert torch.equal(cache_key_NKD, expected[0]) and torch.equal(cache_value_NKD, expected[1])
    assert all(torch.equal(x, y) for x, y in zip(new, before, strict=True))


@pytest.mark.parametrize("shape", [(0, K, D), (2, 0, D), (2, K, 0)])
def test_nothing_to_write_is_no_mistake(
    shape: tuple[int, int, int],
    backend: str,
    device: torch.device,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(import_module(kv_cache_write_.__module__), "launch", None)
    new_TKD = torch.ones(shape, device=device)
    caches = torch.full((2, N, *shape[1:]), 3.0, device=device)
    kv_cache_write_(new_TKD, new_TKD, torch.arange(shape[0], device=device), *caches)
    assert (caches == 3).all()


def test_no_gradient_comes_along(backend: str, device: torch.device) -> None:
    new_TKD = torch.randn(2, K, D, device=device).requires_grad_()
    caches = torch.zeros(2, N, K, D, device=device).unbind()
    kv_cache_write_(new_TKD * 2, new_TKD * 3, torch.tensor([4, 1], device=device), *caches)
    for factor, cache_NKD in zip((2, 3), caches, strict=True):
        assert torch.equal(cache_NKD[4], new_TKD.detach()[0] * factor)
        assert not cache_NKD.requires_grad and cache_NKD.grad_fn is None


def test_mistakes_are_named(backend: str, device: torch.device) -> None:
    key_TKD = torch.randn(2, K, D, device=device)
    row_T = torch.tensor([0, 1], device=device)
    cache_NKD = torch.zeros(N, K, D, device=device)
    other_NKD = cache_NKD.clone()

    def write(key: Tensor, value: Tensor, row: Tensor, *caches: Tensor) -> None:
        cache_key_NKD, cache_value_NKD = caches or (cache_NKD, other_NKD)
        kv_cache_write_(key, value, row, cache_key_NKD, cache_value_NKD)

    for new in (
        (key_TKD, key_TKD, row_T.int()),
        (key_TKD, key_TKD, row_T[:1]),
        (key_TKD, key_TKD, row_T[:, None]),
        (key_TKD, key_TKD[:1], row_T),
        (key_TKD, key_TKD[:, :1], row_T),
        (key_TKD, key_TKD.half(), row_T),
    ):
        with pytest.raises(DataError, match=r"expected .* twice and int64"):
            write(*new)
    for flat, caches in (
        (key_TKD.flatten(1), (cache_NKD.flatten(1), other_NKD.flatten(1))),
        (key_TKD[..., None], (cache_NKD[..., None], other_NKD[..., None])),
    ):
        with pytest.raises(DataError, match=r"expected \[T, K, D\] twice"):
            write(flat, flat, row_T, *caches)
    for wrong_NKD in (cache_NKD.half(), cache_NKD[..., 1:], cache_NKD[:, :1], cache_NKD.mT):
        for caches in ((cache_NKD, wrong_NKD), (wrong_NKD, cache_NKD)):
            with pytest.raises(DataError, match="a cache is"):
                write(key_TKD, key_TKD, row_T, *caches)
    with pytest.raises(DataError, match="have `20` and `19` rows"):
        write(key_TKD, key_TKD, row_T, cache_NKD, other_NKD[1:])
    for gaps_NKD in (
        cache_NKD.repeat(1, 1, 2)[..., ::2],
        cache_NKD.repeat(1, 2, 1)[:, ::2],  # between heads only
        cache_NKD.mT.contiguous().mT,
    ):
        for caches in ((cache_NKD, gaps_NKD), (gaps_NKD, cache_NKD)):
            with pytest.raises(DataError, match="gaps"):
                write(key_TKD, key_TKD, row_T, *caches)
    assert (cache_NKD == 0).all() and (other_NKD == 0).all()


def test_it_compiles_whole_and_writes_into_a_view(backend: str, device: torch.device) -> None:
    key_TKD, value_TKD = (torch.randn(3, K, D, device=device) for _ in range(2))
    row_T = torch.tensor([5, -1, 0], device=device)
    pools = [torch.zeros(2, 2, N, K, D, device=device) for _ in range(3)]
    operators: list[str] = []

    def keep(graph: torch.fx.GraphModule, example: list[torch.Tensor]) -> torch.fx.GraphModule:
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return graph

    def write(pool: torch.Tensor) -> torch.Tensor:
        kv_cache_write_(key_TKD, value_TKD, row_T, pool[1, 0], pool[1, 1])
        return pool[1].sum()

    sums = [write(pools[0])]
    for pool, compiler in zip(pools[1:], (keep, "aot_eager"), strict=True):
        torch.compiler.reset()  # or the code found for another backend would be taken again
        sums.append(torch.compile(write, fullgraph=True, backend=compiler)(pool))
    assert sums[0] != 0 and sums[0] == sums[1] == sums[2]
    assert torch.equal(pools[0], pools[1]) and torch.equal(pools[0], pools[2])
    assert any("r1ci" in operator for operator in operators)


def test_the_operator_keeps_its_promises(triton_backend: None, device: torch.device) -> None:
    key_TKD = torch.randn(3, K, D, device=device)
    row_T = torch.tensor([5, -1, 0], device=device)
    caches = torch.zeros(2, N, K, D, device=device).unbind()
    torch.library.opcheck(_write_, (key_TKD, key_TKD + 1, row_T, *caches))
