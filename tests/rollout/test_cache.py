"""Attention over the cache: what it computes, and that its bits are the training forward's."""

import pytest
import torch
from torch import Tensor

from r1ci_engine.model.attention import attend_causally
from r1ci_engine.model.exact import rows_are_exact
from r1ci_engine.rollout.cache import CachedAttention, KVCache, Span

K, G, D = 2, 3, 16
H = K * G


def world(lengths: list[int]) -> tuple[KVCache, list[tuple[Tensor, Tensor, Tensor]]]:
    """An empty cache of one slot per length, and (q, k, v) of each whole sequence."""
    generator = torch.Generator().manual_seed(0)
    cache = KVCache(
        layers=2, slots=len(lengths), kv_heads=K, head_dim=D, dtype=torch.float32, device="cpu"
    )

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return cache, [(random(n, H, D), random(n, K, D), random(n, K, D)) for n in lengths]


def call(
    cache: KVCache,
    sequences: list[tuple[Tensor, Tensor, Tensor]],
    positions: list[int],
    spans: list[Span],
) -> list[Tensor]:
    """Attend for the given tokens in layer 1; one output `[S, H, D]` per row, then per span."""
    pieces = [(slot, position, position + 1) for slot, position in enumerate(positions)]
    pieces += [(span.slot, span.start, span.end) for span in spans]
    q, k, v = (
        torch.cat([sequences[slot][i][start:end] for slot, start, end in pieces]) for i in range(3)
    )
    out_THD = CachedAttention(cache, positions, spans)(1, q, k, v)
    return list(out_THD.split([end - start for _, start, end in pieces]))


def naive(sequence: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Causal attention in fp64 by the formula."""
    q, k, v = (x.double() for x in sequence)
    k, v = k.repeat_interleave(G, 1), v.repeat_interleave(G, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * D**-0.5
    ahead = torch.ones(len(q), len(q), dtype=torch.bool).triu(1)
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(ahead, -torch.inf).softmax(-1), v)


def test_prompt_decode_and_result_give_causal_attention() -> None:
    cache, sequences = world([40, 23, 300])
    outs: list[list[Tensor]] = [[], [], []]
    for slot, piece in enumerate(
        call(cache, sequences, [], [Span(0, 0, 30), Span(1, 0, 1), Span(2, 0, 250)])
    ):
        outs[slot].append(piece)
    at = [30, 1, 250]
    while at[0] < 35:
        for slot, piece in enumerate(call(cache, sequences, at, [])):
            outs[slot].append(piece)
        at = [position + 1 for position in at]
    # Slot 0 goes on decoding while the others get a stretch of tokens in the same call.
    pieces = call(cache, sequences, at[:1], [Span(2, at[2], 300), Span(1, at[1], 23)])
    for slot, piece in zip((0, 2, 1), pieces, strict=True):
        outs[slot].append(piece)
    for sequence, pieces in zip(sequences, outs, strict=True):
        got, right = torch.cat(pieces), naive(sequence)
        assert right[: len(got)].abs().max() > 0.5
        torch.testing.assert_close(got.double(), right[: len(got)], atol=2e-6, rtol=0)


@pytest.mark.skipif(not rows_are_exact(), reason="this CPU's matrix products are not exact")
def test_bits_are_those_of_the_training_forward_whoever_is_beside() -> None:
    lengths = [1, 5, 16, 17, 100, 255, 256, 257, 258, 400, 512, 513, 700]
    cache, sequences = world(lengths)
    right = [attend_causally(*sequence) for sequence in sequences]
    prefixes = [Span(slot, 0, n - 1) for slot, n in enumerate(lengths) if n > 1]
    call(cache, sequences, [], prefixes)
    for rows in (len(lengths), 9, 7, 3, 1):
        pieces = call(cache, sequences, [n - 1 for n in lengths[:rows]], [])
        for piece, whole in zip(pieces, right, strict=False):
            assert torch.equal(piece, whole[-1:])


@pytest.mark.skipif(not rows_are_exact(), reason="this CPU's matrix products are not exact")
@pytest.mark.parametrize("split", [1, 7, 16, 250, 256, 300])
def test_bits_of_a_stretch_are_those_of_the_training_forward(split: int) -> None:
    cache, sequences = world([320])
    right = attend_causally(*sequences[0])
    (prompt,) = call(cache, sequences, [], [Span(0, 0, split)])
    (stretch,) = call(cache, sequences, [], [Span(0, split, 320)])
    assert torch.equal(torch.cat([prompt, stretch]), right)


def test_what_lies_behind_a_sequence_does_not_reach_it() -> None:
    cache, sequences = world([10, 200])
    call(cache, sequences, [], [Span(0, 0, 9), Span(1, 0, 199)])
    before = call(cache, sequences, [9, 199], [])
    cache.keys_LSCKD[:, 0, 10:] = 1e4
    cache.values_LSCKD[:, 0, 10:] = 1e4
    after = call(cache, sequences, [9, 199], [])
    assert torch.equal(before[0], after[0]) and torch.equal(before[1], after[1])
    cache.keys_LSCKD[:, 0, 5] = 1e4
    assert not torch.equal(call(cache, sequences, [9, 199], [])[0], after[0])


def test_growing_keeps_what_is_there() -> None:
    cache, sequences = world([8, 8])
    call(cache, sequences, [], [Span(0, 0, 7), Span(1, 0, 7)])
    before, length = call(cache, sequences, [7, 7], []), cache.length
    cache.reserve(length + 1)
    assert cache.length > length
    after = call(cache, sequences, [7, 7], [])
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_copy_and_swap_move_whole_prefixes() -> None:
    cache, _ = world([1, 1, 1])
    cache.reserve(6)
    for slot in range(3):
        cache.keys_LSCKD[:, slot], cache.values_LSCKD[:, slot] = slot + 1, -slot - 1
    cache.copy(0, 1, 4)
    assert cache.keys_LSCKD[1, 1, :6, 0, 0].tolist() == [1, 1, 1, 1, 2, 2]
    cache.swap(0, 2, 3)
    assert cache.keys_LSCKD[0, 0, :5, 1, 3].tolist() == [3, 3, 3, 1, 1]
    assert cache.values_LSCKD[0, 2, :5, 1, 3].tolist() == [-1, -1, -1, -3, -3]
