"""Causal attention over packed sequences: the training side's `attend`.

Two providers compute the same thing. `varlen` runs torch's variable-length flash attention on the
flat tokens (CUDA, 16-bit). `padded` spreads the sequences over a `[B, S]` rectangle, runs causal
scaled dot-product attention and gathers the rows back; padding comes after the real tokens of its
row, so the causal mask alone keeps it out. The choice is made once per batch, with its reason.

Left out: caches, paging, masks other than causal. Rollout has its own `attend`.

Invariant: a token sees exactly the earlier tokens of its own sequence and itself.

Shape suffixes: B sequence, S longest length, T packed token, H query head, K key/value head,
D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn


@dataclass(frozen=True)
class Provider:
    """Which implementation attends, and why that one."""

    name: str
    reason: str


def choose_provider(device: torch.device, dtype: torch.dtype) -> Provider:
    """Pick the implementation for tensors of this device and dtype."""
    if device.type != "cuda":
        return Provider("padded", f"variable-length attention does not run on {device.type}")
    if dtype not in (torch.bfloat16, torch.float16):
        return Provider("padded", f"variable-length attention does not take {dtype}")
    return Provider("varlen", "CUDA and 16-bit")


class PackedAttention:
    """Causal attention within each of B sequences laid end to end.

    `cu_seqlens` holds B + 1 ascending offsets, the first 0 and the last T. Give it as a list, a
    numpy array or a CPU tensor: lengths are read on the host, so a CUDA tensor would be copied
    back. Indices are built once here and shared by all layers.
    """

    def __init__(
        self, cu_seqlens: Sequence[int] | np.ndarray | Tensor, device: torch.device | str = "cpu"
    ) -> None:
        offsets = torch.as_tensor(cu_seqlens, dtype=torch.int64, device="cpu")
        lengths_B = offsets.diff()
        assert offsets[0] == 0 and bool((lengths_B > 0).all()), "offsets start at 0 and ascend"
        self.sequences = len(lengths_B)
        self.longest = int(lengths_B.max())
        self.device = torch.device(device)
        sequence_T = torch.repeat_interleave(torch.arange(self.sequences), lengths_B)
        within_T = torch.arange(int(offsets[-1])) - offsets[sequence_T]
        # Where token t lies in the flattened [B * S] rectangle.
        self.slot_T = (sequence_T * self.longest + within_T).to(self.device)
        self.cu_seqlens = offsets.to(self.device, torch.int32)
        self.provider: Provider | None = None

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """Return `out_THD`; T must be the last offset."""
        if self.provider is None:
            self.provider = choose_provider(q_THD.device, q_THD.dtype)
        if self.provider.name == "varlen":
            return self._varlen(q_THD, k_TKD, v_TKD)
        return self._padded(q_THD, k_TKD, v_TKD)

    def _varlen(self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        # torch 2.11 wants as many key heads as query heads; later versions can share them.
        shared = q_THD.shape[1] // k_TKD.shape[1]
        k_THD, v_THD = (x.repeat_interleave(shared, dim=1) for x in (k_TKD, v_TKD))
        offsets, longest = self.cu_seqlens, self.longest
        causal = (-1, 0)
        out_THD = varlen_attn(
            q_THD, k_THD, v_THD, offsets, offsets, longest, longest, window_size=causal
        )
        assert isinstance(out_THD, Tensor)
        return out_THD

    def _padded(self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        out_BHSD = F.scaled_dot_product_attention(
            self._spread(q_THD),
            self._spread(k_TKD),
            self._spread(v_TKD),
            is_causal=True,
            enable_gqa=q_THD.shape[1] != k_TKD.shape[1],
        )
        return out_BHSD.transpose(1, 2).flatten(0, 1)[self.slot_T]

    def _spread(self, x_THD: Tensor) -> Tensor:
        """Lay packed rows into a zero-filled rectangle, heads before positions: `[B, H, S, D]`."""
        rectangle = x_THD.new_zeros(self.sequences * self.longest, *x_THD.shape[1:])
        rectangle = rectangle.index_copy(0, self.slot_T, x_THD)
        return rectangle.unflatten(0, (self.sequences, self.longest)).transpose(1, 2)
