"""A token's bits do not depend on its company (strict mode of the matrix library)."""

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from tiny_models import VOCAB_SIZE, tiny_config, tiny_model

from r1ci_engine.model.attention import PackedAttention
from r1ci_engine.model.exact import rows_are_exact, stable_key_count

needs_exact_rows = pytest.mark.skipif(
    not rows_are_exact(), reason="this processor's matrix library has no strict mode"
)


def test_stable_key_counts() -> None:
    counts = {1: 16, 16: 16, 17: 32, 256: 256, 257: 512, 512: 512, 513: 1024}
    assert {keys: stable_key_count(keys) for keys in counts} == counts


@needs_exact_rows
@pytest.mark.parametrize("rows", [1, 2, 5, 8, 15, 16, 17, 64, 190])
def test_hidden_rows_do_not_depend_on_their_number(rows: int) -> None:
    decoder = tiny_model(tiny_config("qwen3"))
    tokens = torch.randint(VOCAB_SIZE, (191,), generator=torch.Generator().manual_seed(0))
    positions = torch.arange(191)

    def alone(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Every token looks at itself only, so that rows are all there is to differ."""
        return v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)

    with torch.no_grad():
        whole = decoder.logits(decoder(tokens, positions, alone))
        part = decoder.logits(decoder(tokens[:rows], positions[:rows], alone))
    assert whole.abs().max() > 0.1
    assert torch.equal(part, whole[:rows])


@needs_exact_rows
@pytest.mark.parametrize("length", [5, 200, 300, 700])
def test_one_query_against_cached_keys_has_the_bits_of_the_whole(length: int) -> None:
    generator = torch.Generator().manual_seed(length)
    q_THD, k_TKD, v_TKD = (
        torch.randn(length, heads, 32, generator=generator) for heads in (6, 3, 3)
    )
    whole_THD = PackedAttention([0, length])(0, q_THD, k_TKD, v_TKD)
    for seen in {1, length // 2 + 1, length}:
        keys = stable_key_count(seen)
        cached = [
            F.pad(x[:seen], (0, 0, 0, 0, 0, keys - seen)).transpose(0, 1)[None]
            for x in (k_TKD, v_TKD)
        ]
        mask = torch.zeros(1, keys).masked_fill(torch.arange(keys) >= seen, -torch.inf)
        query = q_THD[seen - 1 : seen].transpose(0, 1)[None]
        out = F.scaled_dot_product_attention(query, *cached, attn_mask=mask, enable_gqa=True)
        assert torch.equal(out[0, :, 0], whole_THD[seen - 1])


@needs_exact_rows
def test_the_probe_notices_when_strict_mode_is_off() -> None:
    probe = "from r1ci_engine.model.exact import rows_are_exact; print(rows_are_exact())"
    for mode, expected in (("AUTO", "False"), ("AUTO,STRICT", "True")):
        done = subprocess.run(
            [sys.executable, "-c", probe],
            env={**os.environ, "MKL_CBWR": mode},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == expected
