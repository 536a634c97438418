"""Causal attention over packed sequences: the training side's `attend`.

Two providers compute the same thing. `varlen` runs torch's variable-length flash attention on the
flat tokens (CUDA, 16-bit). `sequence` runs causal scaled dot-product attention once per sequence,
on slices of the packed rows; measured on a CPU this is as fast as one padded rectangle when lengths
are equal and a third faster end to end when they are not. The choice is made once per batch, with
its reason.

Left out: caches, paging, masks other than causal. Rollout has its own `attend`.

Invariants: a token sees exactly the earlier tokens of its own sequence and itself. On an exact CPU
(`exact.py`) its bits are those of a single-token decode against the same keys.

Shape suffixes: B sequence, S tokens of one sequence, N padded keys, T packed token, H query head,
K key/value head, D head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from r1ci_engine.model.exact import stable_key_count


@dataclass(frozen=True)
class Provider:
    """Which implementation attends, and why that one."""

    name: str
    reason: str


def choose_provider(device: torch.device, dtype: torch.dtype) -> Provider:
    """Pick the implementation for tensors of this device and dtype."""
    if device.type != "cuda":
        return Provider("sequence", f"variable-length attention does not run on {device.type}")
    if dtype not in (torch.bfloat16, torch.float16):
        return Provider("sequence", f"variable-length attention does not take {dtype}")
    return Provider("varlen", "CUDA and 16-bit")


class PackedAttention:
    """Causal attention within each of B sequences laid end to end.

    `cu_seqlens` holds B + 1 ascending offsets, the first 0 and the last T. Give it as a list, a
    numpy array or a CPU tensor: lengths are read on the host, once, here.
    """

    def __init__(self, cu_seqlens: Sequence[int] | np.ndarray | Tensor) -> None:
        self.cu_seqlens_B1 = torch.as_tensor(cu_seqlens, dtype=torch.int32, device="cpu")
        self.lengths: list[int] = self.cu_seqlens_B1.diff().tolist()
        assert self.cu_seqlens_B1[0] == 0 and min(self.lengths) > 0, "offsets ascend from 0"
        self.longest = max(self.lengths)
        self.provider: Provider | None = None

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """Return `out_THD`; T must be the last offset. The layer index is not used."""
        if self.provider is None:
            self.provider = choose_provider(q_THD.device, q_THD.dtype)
            self.cu_seqlens_B1 = self.cu_seqlens_B1.to(q_THD.device)
        if self.provider.name == "varlen":
            return self._varlen(q_THD, k_TKD, v_TKD)
        each = zip(*(x.split(self.lengths) for x in (q_THD, k_TKD, v_TKD)), strict=True)
        return torch.cat([attend_causally(q_SHD, k_SKD, v_SKD) for q_SHD, k_SKD, v_SKD in each])

    def _varlen(self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        # torch 2.11 wants as many key heads as query heads; later versions can share them.
        shared = q_THD.shape[1] // k_TKD.shape[1]
        k_THD, v_THD = (x.repeat_interleave(shared, dim=1) for x in (k_TKD, v_TKD))
        offsets, longest = self.cu_seqlens_B1, self.longest
        causal = (-1, 0)
        out_THD = varlen_attn(
            q_THD, k_THD, v_THD, offsets, offsets, longest, longest, window_size=causal
        )
        assert isinstance(out_THD, Tensor)
        return out_THD


def attend_causally(q_SHD: Tensor, k_SKD: Tensor, v_SKD: Tensor) -> Tensor:
    """Attend within one whole sequence; returns `[S, H, D]`.

    Keys are padded to a stable count. The causal mask is aligned to the first key, so no query sees
    the padding, and the kernel skips blocks beyond the last query.
    """
    missing = stable_key_count(k_SKD.shape[0]) - k_SKD.shape[0]
    k_NKD, v_NKD = k_SKD, v_SKD
    if missing:
        k_NKD, v_NKD = (F.pad(x, (0, 0, 0, 0, 0, missing)) for x in (k_SKD, v_SKD))
    out_HSD = F.scaled_dot_product_attention(
        q_SHD.transpose(0, 1)[None],
        k_NKD.transpose(0, 1)[None],
        v_NKD.transpose(0, 1)[None],
        is_causal=True,
        enable_gqa=q_SHD.shape[1] != k_SKD.shape[1],
    )[0]
    return out_HSD.transpose(0, 1)
