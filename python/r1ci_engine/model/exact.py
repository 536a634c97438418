"""What it takes for one token to get the same bits in rollout and in training on a CPU.

Rollout computes a token alone against cached keys; training computes it among thousands. Both run
the same modules, so only the order of the sums inside matrix products can differ, and how threads
share out elements. Three rules fix it:

1. MKL in strict mode (`MKL_CBWR=AUTO,STRICT`, set on import of the room): a row of a product no
   longer depends on how many rows there are. Without it, one to fifteen rows sum in another order,
   and a large product split over threads does too.
2. `stable_key_count`: attention's second product sums over the keys, and MKL splits that sum by the
   number of keys, masked or not. Padding the keys to a count from a fixed ladder keeps the split.
3. `swiglu` takes its rows in slices of one thread's share each.

Measured with torch 2.11, 1 and 2 threads, head widths 32 to 64, lengths to 1180: single-token
decode, chunks of 7, prefixes and the full causal forward agree in every bit. Strict mode changes
the speed of products by less than the noise.

Left out: GPUs (see the kernels) and processors whose library has no strict mode. There
`rows_are_exact` says no, and the mismatch must be measured and corrected like anywhere else.
"""

from functools import cache

import torch
import torch.nn.functional as F

from r1ci_engine.kernels.swiglu import swiglu

SMALL_KEYS = 256
"""Up to here one step of 16 keys is enough; the sum is not split."""


def stable_key_count(keys: int) -> int:
    """Return the number of keys to attend over, padding included, for `keys` real ones."""
    step = 16 if keys <= SMALL_KEYS else 512
    return -(-keys // step) * step


@cache
def rows_are_exact() -> bool:
    """Whether this process computes a row's bits independently of its company (a 20 ms probe)."""
    generator = torch.Generator().manual_seed(0)
    for inner, outer in ((192, 576), (576, 1536), (1536, 576)):
        x = torch.randn(64, inner, generator=generator)
        weight = torch.randn(outer, inner, generator=generator)
        whole = F.linear(x, weight)
        for rows in (1, 2, 8, 15, 33):
            if not torch.equal(F.linear(x[:rows], weight), whole[:rows]):
                return False
    for rows, width in ((40, 11_008), (375, 96), (205, 576), (9, 500)):
        gate, up = torch.randn(2, rows, width, generator=generator)
        alone = [swiglu(*pair) for pair in zip(gate.split(1), up.split(1), strict=True)]
        if not torch.equal(torch.cat(alone), swiglu(gate, up)):
            return False
    heads, keys, width = 2, 300, 32
    padded = stable_key_count(keys)
    q, k, v = (torch.randn(1, heads, padded, width, generator=generator) for _ in range(3))
    whole = F.scaled_dot_product_attention(q[:, :, :keys], k, v, is_causal=True)
    for seen in (1, 17, 200, 300):
        count = stable_key_count(seen)
        mask = torch.zeros(1, count).masked_fill(torch.arange(count) >= seen, -torch.inf)
        alone = F.scaled_dot_product_attention(
            q[:, :, seen - 1 : seen], k[:, :, :count], v[:, :, :count], attn_mask=mask
        )
        if not torch.equal(alone[:, :, 0], whole[:, :, seen - 1]):
            return False
    return True
