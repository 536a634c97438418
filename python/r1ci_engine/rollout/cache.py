"""Keys and values of the sequences under way, and the attention that reads them.

One slot per sequence, as long as the longest sequence may become. The rows that decode lie in the
first slots, so that a step reads plain views and copies nothing; `slots.py` keeps them there.

Left out: pages, eviction, quantised keys. A slot is reserved whole.

Invariant: a token's attention depends on its own sequence only, bit for bit on CPU in fp32. A span
of several tokens is computed alone. A decode row is computed with its neighbours, up to the longest
of them; beyond its own length it adds exact zeros, and the sum over keys is cut at fixed multiples
of `KEY_TILE`, because MKL sums more than about 400 terms in an order that depends on their number.

Shape suffixes: L layer, N decode row, S slot, C length of a slot, E key length read in this step,
T packed token, H query head, K key/value head, G query heads per key head, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

KEY_TILE = 256
"""Keys summed in one matrix product of a decode step; borders are absolute positions."""

LENGTH_MULTIPLE = 32
"""Key lengths are rounded up to this, so that few different shapes occur."""


class KVCache:
    """Preallocated keys and values; plain storage that knows no sequences."""

    def __init__(
        self,
        *,
        layers: int,
        slots: int,
        length: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """Room for `slots` sequences of `length` tokens."""
        shape = (layers, slots, kv_heads, round_length(length), head_dim)
        # Zeros, not empty: a masked key weighs 0, and 0 times a stray NaN is NaN.
        self.keys_LSKCD = torch.zeros(shape, dtype=dtype, device=device)
        self.values_LSKCD = torch.zeros(shape, dtype=dtype, device=device)

    def copy(self, source: int, target: int, length: int) -> None:
        """Make the first `length` positions of slot `target` those of slot `source`."""
        for x in (self.keys_LSKCD, self.values_LSKCD):
            x[:, target, :, :length] = x[:, source, :, :length]

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first `length` positions of two slots."""
        for x in (self.keys_LSKCD, self.values_LSKCD):
            kept = x[:, one, :, :length].clone()
            x[:, one, :, :length] = x[:, other, :, :length]
            x[:, other, :, :length] = kept


@dataclass(frozen=True)
class Span:
    """Several new tokens of one sequence: positions `start` to `start + count` of `slot`."""

    slot: int
    start: int
    count: int


class CachedAttention:
    """The rollout's `attend` for one call of the decoder.

    The call's tokens are one for each of the slots 0 to N - 1, at `decode_positions`, and then
    those of the spans, in order. Each token's key and value enter the cache before it attends to
    its sequence so far and itself.
    """

    def __init__(
        self, cache: KVCache, decode_positions: Sequence[int], spans: Sequence[Span]
    ) -> None:
        self.cache = cache
        self.spans = spans
        self.rows = len(decode_positions)
        device = cache.keys_LSKCD.device
        self._slots_N = torch.arange(self.rows, device=device)
        self._positions_N = torch.tensor(decode_positions, dtype=torch.int64, device=device)
        self._read = round_length(max(decode_positions, default=-1) + 1)
        hidden_NE = torch.arange(self._read, device=device) > self._positions_N[:, None]
        self._bias_N11E = torch.zeros(
            hidden_NE.shape, dtype=torch.float32, device=device
        ).masked_fill_(hidden_NE, float("-inf"))[:, None, None]
        self._masks = [_span_mask(span, device) for span in spans]

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """Return `out_THD`."""
        keys_SKCD, values_SKCD = self.cache.keys_LSKCD[layer], self.cache.values_LSKCD[layer]
        out_THD = torch.empty_like(q_THD)
        if self.rows:
            n = self.rows
            keys_SKCD[self._slots_N, :, self._positions_N] = k_TKD[:n]
            values_SKCD[self._slots_N, :, self._positions_N] = v_TKD[:n]
            out_THD[:n] = self._decode(
                q_THD[:n], keys_SKCD[:n, :, : self._read], values_SKCD[:n, :, : self._read]
            )
        at = self.rows
        for span, mask in zip(self.spans, self._masks, strict=True):
            rows, end = slice(at, at + span.count), span.start + span.count
            keys_KCD, values_KCD = keys_SKCD[span.slot], values_SKCD[span.slot]
            keys_KCD[:, span.start : end] = k_TKD[rows].transpose(0, 1)
            values_KCD[:, span.start : end] = v_TKD[rows].transpose(0, 1)
            out_THD[rows] = _extend(q_THD[rows], keys_KCD[:, :end], values_KCD[:, :end], mask)
            at += span.count
        return out_THD

    def _decode(self, q_NHD: Tensor, keys_NKED: Tensor, values_NKED: Tensor) -> Tensor:
        """One query per sequence; the heads that share a key head form the rows of a product."""
        kv_heads, width = keys_NKED.shape[1], keys_NKED.shape[3]
        q_NKGD = (q_NHD * width**-0.5).unflatten(1, (kv_heads, -1))
        scores_NKGE = torch.matmul(q_NKGD, keys_NKED.transpose(2, 3)).float()
        scores_NKGE += self._bias_N11E
        scores_NKGE -= scores_NKGE.amax(-1, keepdim=True)
        weights_NKGE = scores_NKGE.exp_()
        tiles = zip(
            weights_NKGE.split(KEY_TILE, dim=3), values_NKED.split(KEY_TILE, dim=2), strict=True
        )
        weights, values = next(tiles)
        total_NKG1 = weights.sum(-1, keepdim=True)
        out_NKGD = torch.matmul(weights.to(values.dtype), values).float()
        for weights, values in tiles:
            total_NKG1 += weights.sum(-1, keepdim=True)
            out_NKGD += torch.matmul(weights.to(values.dtype), values)
        return (out_NKGD / total_NKG1).to(q_NHD.dtype).flatten(1, 2)


def _extend(q_THD: Tensor, keys_KED: Tensor, values_KED: Tensor, mask: Tensor | None) -> Tensor:
    """Several queries of one sequence; causal where no mask is given."""
    kv_heads = keys_KED.shape[0]
    q_KGTD = q_THD.transpose(0, 1).unflatten(0, (kv_heads, -1))
    shape = (kv_heads, q_KGTD.shape[1], *keys_KED.shape[1:])
    out_KGTD = F.scaled_dot_product_attention(
        q_KGTD,
        keys_KED[:, None].expand(shape),
        values_KED[:, None].expand(shape),
        attn_mask=mask,
        is_causal=mask is None,
    )
    return out_KGTD.flatten(0, 1).transpose(0, 1)


def _span_mask(span: Span, device: torch.device) -> Tensor | None:
    """True where a token of the span may look; None for a span that starts its sequence."""
    if span.start == 0:
        return None
    shape = (span.count, span.start + span.count)
    return torch.ones(shape, dtype=torch.bool, device=device).tril_(span.start)


def round_length(length: int) -> int:
    """The next multiple of `LENGTH_MULTIPLE`."""
    return -(-length // LENGTH_MULTIPLE) * LENGTH_MULTIPLE
