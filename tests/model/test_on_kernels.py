"""The decoder on the Triton kernels against torch: one pass, cached decoding, a training curve.

It also compiles whole on both.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from tiny_models import VOCAB_SIZE, tiny_config, tiny_model
from torch import Tensor

from r1ci_engine.config import OptimizerSection
from r1ci_engine.kernels import (
    LinearLoss,
    PolicyLoss,
    Tokens,
    force_backend,
    linear_grpo_loss,
    linear_grpo_loss_reference,
)
from r1ci_engine.kernels.dispatch import HAS_TRITON, interpreting
from r1ci_engine.model.attention import PackedAttention
from r1ci_engine.model.config import ARCHITECTURES
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.rollout.cache import CachedAttention, KVCache, Span
from r1ci_engine.train.optimizer import Optimizer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RTOL = 1e-3 if DEVICE.type == "cuda" else 1e-5
"""Of the largest value; on a GPU sums run in other orders."""

needs_triton = pytest.mark.skipif(
    not HAS_TRITON or (DEVICE.type == "cpu" and not interpreting()),
    reason="no triton, or no CUDA device and TRITON_INTERPRET was not set",
)


@pytest.fixture
def device() -> torch.device:
    return DEVICE


@pytest.fixture(autouse=True)
def forget_compiled_code() -> Iterator[None]:
    torch.compiler.reset()  # or the code found for another backend would be taken again
    yield
    torch.compiler.reset()


def decoder_of(family: str, device: torch.device) -> Decoder:
    return tiny_model(tiny_config(family)).to(device)


def far_apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    """Names of what differs by more than roundings."""
    assert found.keys() == expected.keys()
    apart = []
    for name, value in expected.items():
        scale = value.abs().max()
        assert scale > 0, name
        if not (found[name] - value).abs().max() <= RTOL * scale:
            apart.append(name)
    return apart


def outcome(
    family: str, device: torch.device, change: Callable[[torch.nn.Module], Callable]
) -> dict[str, Tensor]:
    """Logits of two packed sequences, and the gradient of every parameter."""
    decoder = decoder_of(family, device)
    tokens_T = torch.arange(37, device=device) * 7 % VOCAB_SIZE
    positions_T = torch.cat([torch.arange(17), torch.arange(20)]).to(device)
    hidden_TD = change(decoder)(tokens_T, positions_T, PackedAttention([0, 17, 37]))
    logits_TV = decoder.logits(hidden_TD)
    logits_TV.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in decoder.named_parameters()}
    return {"logits": logits_TV.detach(), **{n: g for n, g in gradients.items() if g is not None}}


@needs_triton
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_both_backends_give_the_same_logits_and_gradients(
    family: str, device: torch.device
) -> None:
    with force_backend("torch"):
        expected = outcome(family, device, lambda decoder: decoder)
    with force_backend("triton"):
        found = outcome(family, device, lambda decoder: decoder)
    assert len(found) > 20
    assert not torch.equal(found["logits"], expected["logits"]), "the kernels were not reached"
    assert not far_apart(found, expected)


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=needs_triton)])
def test_it_compiles_whole(backend: str, device: torch.device) -> None:
    def compiled(decoder: torch.nn.Module) -> Callable:
        return torch.compile(decoder, fullgraph=True, backend="aot_eager")

    with force_backend(backend):
        expected, found = (outcome("qwen3", device, how) for how in (lambda d: d, compiled))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=max(RTOL, 1e-4), atol=1e-7, msg=name)


def tamper(
    monkeypatch: pytest.MonkeyPatch, room: str, change: Callable[[list, dict], None]
) -> list[str]:
    """Lets `change` at the arguments and options of a room's launches; returns their names."""
    module = import_module(f"r1ci_engine.kernels.{room}")
    launch, names = module.launch, []

    def tampered(kernel: Any, grid: Any, device: Any, *arguments: Any, **options: Any) -> None:
        inputs = list(arguments)
        change(inputs, options)
        names.append(kernel.__name__)
        launch(kernel, grid, device, *inputs, **options)

    monkeypatch.setattr(module, "launch", tampered)
    return names


@torch.inference_mode()
def generation(family: str, device: torch.device) -> dict[str, Tensor]:
    """Two prompts, a third while the others decode already, four steps of decoding; and the cache.

    As in `rollout/engine.py`, with tokens that are given.
    """
    decoder = decoder_of(family, device)
    config = decoder.config
    cache = KVCache(
        layers=config.layers, slots=3, kv_heads=config.kv_heads, head_dim=config.head_dim,
        dtype=torch.float32, device=device,
    )  # fmt: skip

    def call(decode_positions: list[int], spans: list[Span]) -> Tensor:
        positions = decode_positions + [p for s in spans for p in range(s.start, s.end)]
        positions_T = torch.tensor(positions, device=device)
        tokens_T = (positions_T * 31 + torch.arange(len(positions), device=device)) % VOCAB_SIZE
        attend = CachedAttention(cache, decode_positions, spans)
        return decoder.logits(decoder(tokens_T, positions_T, attend))

    found = {"prompts": call([], [Span(0, 0, 9), Span(1, 0, 20)])}
    found["a third"] = call([9, 20], [Span(2, 0, 5)])
    for step in range(1, 5):
        found[f"step {step}"] = call([9 + step, 20 + step, 4 + step], [])
    return found | {"keys": cache.keys_LSCKD, "values": cache.values_LSCKD}


@needs_triton
def test_decoding_from_the_cache_agrees(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with force_backend("torch"):
        expected = generation("qwen3", device)
    assert expected["keys"].count_nonzero() == 2 * (9 + 5 + 20 + 5 + 5 + 4) * 2 * 24
    with force_backend("triton"):
        launches = tamper(monkeypatch, "kv_cache_write", lambda inputs, options: None)
        assert not far_apart(generation("qwen3", device), expected)
        assert launches == ["_write_kernel"] * 2 * 6  # in each layer, at each call

        def lose_one(inputs: list, options: dict) -> None:
            inputs[2] = torch.where(torch.arange(len(inputs[2])).to(device) == 2, -1, inputs[2])

        tamper(monkeypatch, "kv_cache_write", lose_one)
        assert {"keys", "values", "prompts", "step 4"} <= set(
            far_apart(generation("qwen3", device), expected)
        )


STEPS = 20
TOLERANCE = 1e-3 if DEVICE.type == "cuda" else 2e-5
"""Between two losses of one step: roundings, as far as twenty steps of AdamW carry them."""


class Training:
    """Two answers, one better than the other, packed; a divergence and a bonus for entropy.

    Old log-probabilities are renewed at every fifth step, so that ratios leave 1 and some are
    clipped.
    """

    def __init__(self, device: torch.device, on_kernels: bool) -> None:
        self.on_kernels = on_kernels
        self.decoder = decoder_of("qwen3", device)
        self.optimizer = Optimizer(self.decoder, OptimizerSection(lr=3e-4), STEPS)
        self.tokens_T = torch.arange(16, device=device) * 47 % VOCAB_SIZE
        self.positions_T = torch.cat([torch.arange(7), torch.arange(9)]).to(device)
        self.advantage_T = torch.where(torch.arange(16) < 7, 1.5, -0.5).to(device)
        self.weight_T = torch.full((16,), 0.1, device=device)
        self.weight_T[[0, 6, 7, 8, 15]] = 0  # prompts, and ends that predict nothing
        self.old_T: Tensor | None = None
        self.steps = 0
        with torch.no_grad(), force_backend("torch"):
            self.reference_T = self._loss(linear_grpo_loss_reference, PolicyLoss()).logprob_T

    def step(self) -> float:
        """The loss before the update."""
        function = linear_grpo_loss if self.on_kernels else linear_grpo_loss_reference
        if self.steps % 5 == 0:
            self.old_T = None  # the present one
        with force_backend("triton" if self.on_kernels else "torch"):
            found = self._loss(function, PolicyLoss(kl_coef=0.05, entropy_coef=0.02))
            found.loss.backward()
        self.optimizer.step()
        if self.steps % 5 == 0:
            self.old_T = found.logprob_T
        self.steps += 1
        return found.loss.item()

    def _loss(self, function: Callable[..., LinearLoss], loss: PolicyLoss) -> LinearLoss:
        hidden_TD = self.decoder(self.tokens_T, self.positions_T, PackedAttention([0, 7, 16]))
        reference_T = self.reference_T if loss.kl_coef else None
        tokens = Tokens(self.advantage_T, self.weight_T, self.old_T, reference_T)
        head_VD, target_T = self.decoder.head_weight, self.tokens_T.roll(-1)
        return function(hidden_TD, head_VD, target_T, tokens, loss, 0.9)


def curves(device: torch.device) -> tuple[list[float], list[float]]:
    """Losses of plain torch and of the kernels, up to the step at which they part."""
    plain, kernels = [], []
    trainings = Training(device, on_kernels=False), Training(device, on_kernels=True)
    while len(plain) < STEPS:
        for curve, training in zip((plain, kernels), trainings, strict=True):
            curve.append(training.step())
        if not abs(plain[-1] - kernels[-1]) <= TOLERANCE:
            break
    return plain, kernels


@needs_triton
def test_a_training_curve_is_the_same_on_the_kernels(device: torch.device) -> None:
    plain, kernels = curves(device)
    assert len(plain) == STEPS, (plain, kernels)
    for curve in (plain, kernels):
        assert max(curve) - min(curve) > 100 * TOLERANCE
    assert plain != kernels, "the kernels were not reached"


@needs_triton
@pytest.mark.parametrize(
    ("room", "option"), [("rms_norm", "HAS_DTOTAL"), ("rope", "INVERSE"), ("row_stats", "HAS_H")]
)
def test_a_lost_term_of_a_gradient_shows_in_the_curve(
    room: str, option: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(inputs: list, options: dict) -> None:
        if option in options:
            options[option] = False

    launches = tamper(monkeypatch, room, lose)
    plain, kernels = curves(device)
    assert len(plain) < STEPS and launches, (plain, kernels)
    assert plain[0] == pytest.approx(kernels[0], abs=TOLERANCE), "forward is whole"
