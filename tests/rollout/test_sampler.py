"""The sampler: right frequencies, right log-probabilities, noise that knows no company."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from r1ci_engine.rollout.sampler import _STEP, _mix, gumbel_noise, sample, seeds_tensor
from r1ci_engine.seeds import derive_seed

MASK = (1 << 64) - 1
CHI_SQUARE_999 = {7: 24.32, 63: 103.44}
"""The 0.999 quantile of the chi-square distribution, by degrees of freedom."""


def seeds(count: int, name: str = "s") -> Tensor:
    return seeds_tensor([derive_seed(name, i) for i in range(count)], "cpu")


def draw(logits_NV: Tensor, temperature: float, seeds_N: Tensor, position: int = 5) -> Tensor:
    n = len(seeds_N)
    temperature_N, positions_N = torch.full((n,), temperature), torch.full((n,), position)
    return sample(logits_NV.expand(n, -1), temperature_N, seeds_N, positions_N)[0]


def chi_square(counts_V: Tensor, probabilities_V: Tensor) -> float:
    expected_V = probabilities_V * counts_V.sum()
    return float(((counts_V - expected_V).square() / expected_V).sum())


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_frequencies_are_those_of_softmax_over_seeds(temperature: float) -> None:
    logits_1V = torch.linspace(-1.0, 2.0, 8)[None]
    tokens = draw(logits_1V, temperature, seeds(40_000))
    counts_V = torch.bincount(tokens, minlength=8).double()
    right_V = (logits_1V[0].double() / temperature).softmax(0)
    assert chi_square(counts_V, right_V) < CHI_SQUARE_999[7]
    wrong_V = (logits_1V[0].double() / (temperature + 0.1)).softmax(0)
    assert chi_square(counts_V, wrong_V) > CHI_SQUARE_999[7]


def test_frequencies_are_those_of_softmax_over_positions_of_one_seed() -> None:
    n = 40_000
    logits_V = torch.linspace(-1.0, 2.0, 8)
    one_seed_N = seeds(1).expand(n)
    tokens, _ = sample(logits_V.expand(n, -1), torch.ones(n), one_seed_N, torch.arange(n))
    counts_V = torch.bincount(tokens, minlength=8).double()
    assert chi_square(counts_V, logits_V.double().softmax(0)) < CHI_SQUARE_999[7]


@pytest.mark.parametrize("other", ["next position", "next sample"])
def test_neighbouring_draws_are_independent(other: str) -> None:
    n = 30_000
    flat_NV, ones_N = torch.zeros(n, 8), torch.ones(n)
    seeds_N, positions_N = seeds(n), torch.full((n,), 7)
    first, _ = sample(flat_NV, ones_N, seeds_N, positions_N)
    second = first.roll(1)
    if other == "next position":
        second, _ = sample(flat_NV, ones_N, seeds_N, positions_N + 1)
    counts_VV = torch.bincount(first * 8 + second, minlength=64).double()
    assert chi_square(counts_VV, torch.full((64,), 1 / 64)) < CHI_SQUARE_999[63]


def test_noises_of_a_row_are_independent() -> None:
    n = 30_000
    noise_VN = gumbel_noise(seeds(n), torch.full((n,), 7), 12).double().T
    correlation_VV = torch.corrcoef(noise_VN) - torch.eye(12)
    assert float(correlation_VV.abs().max()) < 4.5 / math.sqrt(n)


def test_noise_is_standard_gumbel_and_always_finite() -> None:
    noise = gumbel_noise(seeds(300), torch.arange(300), 5000)
    assert noise.isfinite().all()
    assert abs(float(noise.double().mean()) - 0.57722) < 0.005
    assert abs(float(noise.double().var()) - math.pi**2 / 6) < 0.01
    # Of 1.5 million draws the largest is near log(1.5e6) = 14.2, beyond what 16 bits could give.
    assert 12.0 < float(noise.max()) < 22.0


@given(seed=st.integers(0, MASK), position=st.integers(0, 1 << 20))
def test_noise_is_the_published_generator_at_a_hashed_start(seed: int, position: int) -> None:
    step = 0x9E3779B97F4A7C15

    def mix(x: int) -> int:
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & MASK
        return x ^ x >> 31

    start = mix((mix(seed) + (position + 1) * step) & MASK)
    uniforms = [(mix((start + (v + 1) * step) & MASK) >> 24) + 0.5 for v in range(4)]
    expected = [-math.log(-math.log1p(-u * 2.0**-40)) for u in uniforms]
    noise = gumbel_noise(seeds_tensor([seed], "cpu"), torch.tensor([position]), 4)[0]
    np.testing.assert_allclose(noise.double().numpy(), expected, rtol=1e-4, atol=1e-5)


def test_the_generator_is_splitmix64() -> None:
    # Its first outputs for seed 1234567, as other implementations print them.
    out = _mix(torch.tensor([1234567]) + torch.arange(1, 4) * _STEP)
    assert [int(x) & MASK for x in out] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_a_row_does_not_depend_on_its_company() -> None:
    generator = torch.Generator().manual_seed(0)
    logits_NV = 3 * torch.randn(40, 700, generator=generator)
    seeds_N, positions_N = seeds(40), torch.arange(40) * 3
    temperature_N = torch.rand(40, generator=generator) + 0.5
    whole = sample(logits_NV, temperature_N, seeds_N, positions_N)
    for rows in ([0], [39], [3, 2, 1], list(range(17)), [5, 5, 5, 5]):
        part = sample(logits_NV[rows], temperature_N[rows], seeds_N[rows], positions_N[rows])
        assert torch.equal(part[0], whole[0][rows])
        assert torch.equal(part[1], whole[1][rows])


def test_a_single_row_of_a_large_vocabulary_has_the_same_bits_on_two_threads() -> None:
    logits_NV = 3 * torch.randn(2, 100_000, generator=torch.Generator().manual_seed(0))
    arguments = (torch.ones(2), seeds(2), torch.zeros(2, dtype=torch.int64))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        both = sample(logits_NV, *arguments)[1]
        alone = sample(logits_NV[:1], *(x[:1] for x in arguments))[1]
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(alone, both[:1])


def test_logprob_is_that_of_softmax_at_the_temperature() -> None:
    logits_NV = 4 * torch.randn(12, 300, generator=torch.Generator().manual_seed(0))
    temperature_N = torch.linspace(0.3, 1.7, 12)
    tokens_N, logprobs_N = sample(logits_NV, temperature_N, seeds(12), torch.arange(12))
    right_NV = (logits_NV.double() / temperature_N[:, None].double()).log_softmax(-1)
    assert logprobs_N.dtype is torch.float32
    torch.testing.assert_close(
        logprobs_N.double(), right_NV[torch.arange(12), tokens_N], atol=2e-6, rtol=0
    )
    wrong_NV = logits_NV.double().log_softmax(-1)
    assert not torch.allclose(logprobs_N.double(), wrong_NV[torch.arange(12), tokens_N], atol=1e-3)


def test_temperature_zero_takes_the_largest_and_leaves_its_neighbours_alone() -> None:
    logits_NV = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    temperature_N = torch.tensor([0.0, 1.0] * 3)
    tokens_N, logprobs_N = sample(logits_NV, temperature_N, seeds(6), torch.arange(6))
    assert torch.equal(tokens_N[::2], logits_NV[::2].argmax(-1))
    warm = sample(logits_NV[1::2], torch.ones(3), seeds(6)[1::2], torch.arange(6)[1::2])
    assert torch.equal(tokens_N[1::2], warm[0]) and torch.equal(logprobs_N[1::2], warm[1])
    assert not torch.equal(warm[0], logits_NV[1::2].argmax(-1))


def test_an_impossible_token_is_never_drawn() -> None:
    logits_1V = torch.tensor([[0.0, -torch.inf, 0.0, -torch.inf]])
    assert set(draw(logits_1V, 1.0, seeds(2000)).tolist()) == {0, 2}
