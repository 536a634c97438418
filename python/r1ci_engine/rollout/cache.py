"""Keys and values of the sequences under way, and the attention that reads them.

One slot per sequence, all of one length, which grows with the longest sequence. The rows that
decode lie in the first slots, so that a step reads plain views and copies nothing; `slots.py` keeps
them there.

Left out: pages, eviction, quantised keys.

Invariant: a token's attention depends on its own sequence only, bit for bit on an exact CPU
(`model/exact.py`), and equals that of the training forward. A span of several tokens is computed
alone. A decode row is computed with its neighbours and reads as many keys as the longest of them
needs; those beyond its own weigh exactly zero, and the counts come from the ladder that training
uses, so that sums are cut in the same places.

Shape suffixes: L layer, N decode row, S slot, C length of a slot, E keys read, T packed token,
H query head, K key head, G query heads per key head, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from r1ci_engine.kernels import kv_cache_write_
from r1ci_engine.model.exact import SMALL_KEYS, stable_key_count

GROWTH = 256
"""Slots are lengthened by multiples of this."""


class KVCache:
    """Keys and values of `slots` sequences; plain storage that knows no sequences."""

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """Slots of length 0; see `reserve`."""
        shape = (layers, slots, 0, kv_heads, head_dim)
        self.keys_LSCKD = torch.zeros(shape, dtype=dtype, device=device)
        self.values_LSCKD = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def length(self) -> int:
        """Tokens that fit a slot."""
        return self.keys_LSCKD.shape[2]

    def reserve(self, length: int) -> None:
        """Make every slot at least this long; what it holds stays."""
        if length > self.length:
            length = -(-length // GROWTH) * GROWTH
            self.keys_LSCKD = _lengthened(self.keys_LSCKD, length)
            self.values_LSCKD = _lengthened(self.values_LSCKD, length)

    def copy(self, source: int, target: int, length: int) -> None:
        """Make the first `length` positions of slot `target` those of slot `source`."""
        for x in (self.keys_LSCKD, self.values_LSCKD):
            x[:, target, :length] = x[:, source, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for x in (self.keys_LSCKD, self.values_LSCKD):
            kept = x[:, one, :length].clone()
            x[:, one, :length] = x[:, other, :length]
            x[:, other, :length] = kept


@dataclass(frozen=True)
class Span:
    """Several new tokens of one sequence: positions `start` to `end` (exclusive) of `slot`."""

    slot: int
    start: int
    end: int


class CachedAttention:
    """The rollout's `attend` for one call of the decoder.

    The call's tokens are one for each of the slots 0 to N - 1, at `decode_positions`, and then
    those of the spans, in order. Each token's key and value enter the cache before it attends to
    its sequence so far and itself.

    Decode rows of short and of long sequences are computed apart, because beyond `SMALL_KEYS` the
    ladder takes large steps: a single long sequence would make all others read several times their
    keys. It pays when each kind is contiguous, and is right in any order.
    """

    def __init__(
        self, cache: KVCache, decode_positions: Sequence[int], spans: Sequence[Span]
    ) -> None:
        self.cache = cache
        self.spans = spans
        needed = [position + 1 for position in decode_positions] + [span.end for span in spans]
        cache.reserve(stable_key_count(max(needed)))
        device = cache.keys_LSCKD.device
        row = [slot * cache.length + position for slot, position in enumerate(decode_positions)]
        for span in spans:
            row += range(span.slot * cache.length + span.start, span.slot * cache.length + span.end)
        self._row_T = torch.tensor(row, dtype=torch.int64, device=device)
        self._runs = [
            _DecodeRun(first, decode_positions[first:end], cache.keys_LSCKD)
            for first, end in _runs([is_long(position + 1) for position in decode_positions])
        ]
        self._masks = [_span_mask(span, device) for span in spans]

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """Return `out_THD`."""
        keys_SCKD, values_SCKD = self.cache.keys_LSCKD[layer], self.cache.values_LSCKD[layer]
        kv_cache_write_(
            k_TKD, v_TKD, self._row_T, keys_SCKD.flatten(0, 1), values_SCKD.flatten(0, 1)
        )
        outs = [run.attend(q_THD, keys_SCKD, values_SCKD) for run in self._runs]
        at = sum(len(out_NHD) for out_NHD in outs)
        for span, mask in zip(self.spans, self._masks, strict=True):
            read = stable_key_count(span.end)
            q_SHD = q_THD[at : at + span.end - span.start]
            outs.append(
                _extend(q_SHD, keys_SCKD[span.slot, :read], values_SCKD[span.slot, :read], mask)
            )
            at += len(q_SHD)
        return torch.cat(outs) if len(outs) > 1 else outs[0]


class _DecodeRun:
    """One query for each of some neighbouring slots."""

    def __init__(self, first: int, positions: Sequence[int], like: Tensor) -> None:
        self.rows = slice(first, first + len(positions))
        self.read = stable_key_count(max(positions) + 1)
        positions_N = torch.tensor(positions, dtype=torch.int64, device=like.device)
        hidden_NE = torch.arange(self.read, device=like.device) > positions_N[:, None]
        # One bias for all layers, in the type that the kernel would turn a boolean mask into.
        bias_NE = like.new_zeros(hidden_NE.shape).masked_fill_(hidden_NE, float("-inf"))
        self.bias_N11E = bias_NE[:, None, None]

    def attend(self, q_THD: Tensor, keys_SCKD: Tensor, values_SCKD: Tensor) -> Tensor:
        # The query heads that share a key head take the place of query positions.
        return F.scaled_dot_product_attention(
            q_THD[self.rows].unflatten(1, (keys_SCKD.shape[2], -1)),
            keys_SCKD[self.rows, : self.read].transpose(1, 2),
            values_SCKD[self.rows, : self.read].transpose(1, 2),
            attn_mask=self.bias_N11E,
        ).flatten(1, 2)


def _extend(q_THD: Tensor, keys_EKD: Tensor, values_EKD: Tensor, mask: Tensor | None) -> Tensor:
    """Several queries of one sequence; causal where no mask is given."""
    return F.scaled_dot_product_attention(
        q_THD.transpose(0, 1)[None],
        keys_EKD.transpose(0, 1)[None],
        values_EKD.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=mask is None,
        enable_gqa=q_THD.shape[1] != keys_EKD.shape[1],
    )[0].transpose(0, 1)


def is_long(length: int) -> bool:
    """Whether a sequence of this many keys is beyond the fine steps of the ladder."""
    return length > SMALL_KEYS


def _runs(flags: list[bool]) -> list[tuple[int, int]]:
    """First and end (exclusive) of every stretch of equal flags."""
    edges = [i for i in range(1, len(flags)) if flags[i] != flags[i - 1]]
    return list(zip([0, *edges], [*edges, len(flags)], strict=True)) if flags else []


def _span_mask(span: Span, device: torch.device) -> Tensor | None:
    """True where a token of the span may look; None for a span that starts its sequence."""
    if span.start == 0:
        return None
    shape = (span.end - span.start, stable_key_count(span.end))
    return torch.ones(shape, dtype=torch.bool, device=device).tril_(span.start)


def _lengthened(x_LSCKD: Tensor, length: int) -> Tensor:
    # Zeros, not empty: a masked key weighs 0, and 0 times a stray NaN is NaN.
    layers, slots, old, *width = x_LSCKD.shape
    longer = x_LSCKD.new_zeros(layers, slots, length, *width)
    longer[:, :, :old] = x_LSCKD
    return longer
