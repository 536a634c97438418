"""The decoder computes what `transformers` computes, packed or alone, in every family."""

from pathlib import Path

import pytest
import torch
from tiny_models import VOCAB_SIZE, tiny_config, tiny_folder, tiny_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from r1ci_engine.model.attention import PackedAttention
from r1ci_engine.model.config import ARCHITECTURES, RopeConfig
from r1ci_engine.model.decoder import Decoder, init_model
from r1ci_engine.model.exact import rows_are_exact
from r1ci_engine.model.folder import load_model, save_model

LENGTHS = (7, 33, 1, 120)

ROPES = {
    "default": RopeConfig(theta=10_000.0),
    "linear": RopeConfig(theta=10_000.0, kind="linear", factor=4.0),
    "llama3": RopeConfig(
        theta=500_000.0,
        kind="llama3",
        factor=8.0,
        original_context=64,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
    ),
    "yarn": RopeConfig(theta=10_000.0, kind="yarn", factor=4.0, original_context=64),
}


def sequences(lengths: tuple[int, ...] = LENGTHS, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCAB_SIZE, (length,), generator=generator) for length in lengths]


def packed_logits(decoder: Decoder, tokens: list[Tensor]) -> Tensor:
    lengths = [len(sequence) for sequence in tokens]
    offsets = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    positions = torch.cat([torch.arange(length) for length in lengths])
    with torch.no_grad():
        return decoder.logits(decoder(torch.cat(tokens), positions, PackedAttention(offsets)))


def reference_logits(folder: Path, tokens: list[Tensor]) -> Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return torch.cat([model(sequence[None]).logits[0] for sequence in tokens])


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_logits_match_transformers(family: str, rope: str, tied: bool, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, family, tied_head=tied, rope=ROPES[rope])
    tokens = sequences()
    ours = packed_logits(load_model(folder), tokens)
    reference = reference_logits(folder, tokens)
    assert reference.std() > 0.5
    assert (ours - reference).abs().max() <= 1e-4


@pytest.mark.parametrize(
    ("family", "part"),
    [
        ("qwen2", "self_attn.k_proj.bias"),
        ("qwen3", "self_attn.q_norm.weight"),
        ("llama", "self_attn.v_proj.weight"),
        ("llama", "post_attention_layernorm.weight"),
    ],
)
def test_parity_notices_a_broken_part(family: str, part: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, family)
    decoder, tokens = load_model(folder), sequences()
    with torch.no_grad():
        decoder.get_parameter(f"model.layers.1.{part}").mul_(1.5).add_(0.1)
    assert (packed_logits(decoder, tokens) - reference_logits(folder, tokens)).abs().max() > 1e-3


@pytest.mark.parametrize("rope", ["linear", "llama3", "yarn"])
def test_rotary_scaling_is_not_idle(rope: str) -> None:
    plain = tiny_model(tiny_config(rope=RopeConfig(theta=ROPES[rope].theta)))
    scaled = tiny_model(tiny_config(rope=ROPES[rope]))
    tokens = sequences()
    assert (packed_logits(plain, tokens) - packed_logits(scaled, tokens)).abs().max() > 1e-2


def test_greedy_continuations_are_identical(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, "qwen2", tied_head=True)
    decoder = load_model(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours = reference = sequences((9,))[0]
    for _ in range(24):
        ours = torch.cat([ours, packed_logits(decoder, [ours])[-1:].argmax(-1)])
        with torch.no_grad():
            following = model(reference[None]).logits[0, -1:].argmax(-1)
        reference = torch.cat([reference, following])
    assert ours.tolist() == reference.tolist()


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_saved_folder_loads_in_transformers(family: str, tmp_path: Path) -> None:
    decoder = tiny_model(tiny_config(family), seed=3)
    save_model(decoder, tmp_path)
    tokens = sequences()
    difference = packed_logits(decoder, tokens) - reference_logits(tmp_path, tokens)
    assert difference.abs().max() <= 1e-4


@pytest.mark.parametrize("family", ARCHITECTURES)
def test_folder_saved_by_transformers_loads_here(family: str, tmp_path: Path) -> None:
    tiny_folder(tmp_path / "ours", family, tied_head=family == "qwen2")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    model.save_pretrained(tmp_path / "theirs", max_shard_size="60KB")
    assert len(list((tmp_path / "theirs").glob("model-*.safetensors"))) > 1
    tokens = sequences()
    ours = packed_logits(load_model(tmp_path / "theirs"), tokens)
    assert (ours - reference_logits(tmp_path / "ours", tokens)).abs().max() <= 1e-4


def test_packed_equals_alone() -> None:
    decoder, tokens = tiny_model(tiny_config("qwen3")), sequences()
    alone = torch.cat([packed_logits(decoder, [sequence]) for sequence in tokens])
    tolerance = 0.0 if rows_are_exact() else 1e-5
    assert (packed_logits(decoder, tokens) - alone).abs().max() <= tolerance


def test_packed_sequences_do_not_see_each_other() -> None:
    decoder, tokens = tiny_model(tiny_config()), sequences()
    before = packed_logits(decoder, tokens).split(LENGTHS)
    tokens[1] = (tokens[1] + 1) % VOCAB_SIZE
    after = packed_logits(decoder, tokens).split(LENGTHS)
    assert not torch.equal(before[1], after[1])
    for index in (0, 2, 3):
        assert torch.equal(before[index], after[index])


def test_later_tokens_do_not_change_earlier_ones() -> None:
    decoder, (tokens,) = tiny_model(tiny_config()), sequences((40,))
    changed = tokens.clone()
    changed[25:] = (changed[25:] + 1) % VOCAB_SIZE
    before, after = packed_logits(decoder, [tokens]), packed_logits(decoder, [changed])
    assert torch.equal(before[:25], after[:25])
    assert not torch.equal(before[25:], after[25:])


def test_gradients_reach_every_parameter_and_match_transformers(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path, "qwen3")
    decoder, tokens = load_model(folder), sequences((17, 30))
    positions = torch.cat([torch.arange(17), torch.arange(30)])
    attend = PackedAttention([0, 17, 47])
    decoder.logits(decoder(torch.cat(tokens), positions, attend)).square().mean().backward()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.cat([model(t[None]).logits[0] for t in tokens]).square().mean().backward()
    reference = dict(model.named_parameters())
    for name, parameter in decoder.named_parameters():
        expected = reference[name].grad
        assert parameter.grad is not None and expected is not None, name
        assert parameter.grad.abs().max() > 0, name
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5)


def test_initial_weights_depend_on_the_seed_only() -> None:
    first, again, other = (init_model(tiny_config(), seed) for seed in (1, 1, 2))
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, again.get_parameter(name)), name
    assert not torch.equal(first.head_weight, other.head_weight)
    embedding = first.model.embed_tokens.weight
    output = first.get_parameter("model.layers.0.self_attn.o_proj.weight")
    assert embedding.std().item() == pytest.approx(0.02, rel=0.05)
    assert output.std().item() == pytest.approx(0.02 / 2, rel=0.05)
