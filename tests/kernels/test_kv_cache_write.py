"""Cache writes: both twins against a loop."""

import pytest
import torch

from r1ci_engine.errors import DataError
from r1ci_engine.kernels import kv_cache_write_
from r1ci_engine.kernels.kv_cache_write import _write_

K, D, N = 2, 6, 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [[], [3], [7, 0, 19, 4], [7, -1, 2, -1]])
def test_rows_land_where_they_belong_and_nothing_else_moves(
    rows: list[int], dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    T = len(rows)
    # Slices of one fused projection, as a model hands them over: rows have a stride.
    fused_TKD = torch.randn(T, 3 * K, D, device=device).to(dtype)
    key_TKD, value_TKD = fused_TKD[:, K : 2 * K], fused_TKD[:, 2 * K :]
    # Two layers of one pool: the cache is a view with a stride of its own.
    pool = torch.randn(N, 2, 2, K, D, device=device).to(dtype)
    cache_key_NKD, cache_value_NKD = pool[:, 1, 0], pool[:, 1, 1]
    expected = pool.clone()
    for t, n in enumerate(rows):
        if n >= 0:
            expected[n, 1, 0] = key_TKD[t]
            expected[n, 1, 1] = value_TKD[t]

    row_T = torch.tensor(rows, dtype=torch.int64, device=device)
    kv_cache_write_(key_TKD, value_TKD, row_T, cache_key_NKD, cache_value_NKD)
    assert torch.equal(pool, expected)


def test_mistakes_are_named(device: torch.device) -> None:
    key_TKD = torch.randn(2, K, D, device=device)
    row_T = torch.tensor([0, 1], device=device)
    cache_NKD = torch.zeros(N, K, D, device=device)
    with pytest.raises(DataError, match="int64"):
        kv_cache_write_(key_TKD, key_TKD, row_T.int(), cache_NKD, cache_NKD.clone())
    with pytest.raises(DataError, match="a cache is"):
        kv_cache_write_(key_TKD, key_TKD, row_T, cache_NKD.half(), cache_NKD)
    with pytest.raises(DataError, match="gaps"):
        kv_cache_write_(key_TKD, key_TKD, row_T, cache_NKD, cache_NKD.repeat(1, 1, 2)[..., ::2])


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
