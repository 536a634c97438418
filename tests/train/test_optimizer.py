"""AdamW: what is decayed, when a step is skipped, schedules, fp32 copies, and going on."""

from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from tiny_models import tiny_config, tiny_model

from r1ci_engine.config import OptimizerSection
from r1ci_engine.errors import CheckpointError
from r1ci_engine.model.decoder import Decoder
from r1ci_engine.train.optimizer import Optimizer, learning_rate


def small_model(dtype: torch.dtype = torch.float32, **changes: Any) -> Decoder:
    return tiny_model(tiny_config(layers=1, **changes)).to(dtype)


def give_gradients(model: Decoder, value: float = 0.01, seed: int = 0) -> None:
    """As `backward` would: through autograd, so that hooks run."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(())
    for parameter in model.parameters():
        slope = value * torch.randn(parameter.shape, generator=generator)
        total = total + (parameter.float() * slope).sum()
    total.backward()


def copied(model: Decoder) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def test_warm_up_rises_from_the_first_step() -> None:
    section = OptimizerSection(lr=1.0, warmup_steps=4)
    rates = [learning_rate(section, step, 10) for step in range(6)]
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_decay_falls_to_a_tenth(decay: str) -> None:
    section = OptimizerSection(lr=2.0, warmup_steps=3, decay=decay)  # pyright: ignore
    rates = [learning_rate(section, step, 103) for step in range(3, 104)]
    assert rates[0] == 2.0 and rates[-1] == pytest.approx(0.2)
    assert rates[50] == pytest.approx(1.1)
    assert rates == sorted(set(rates), reverse=True)
    assert learning_rate(section, 500, 103) == pytest.approx(0.2)


def test_only_matrices_are_decayed() -> None:
    """With a gradient of 0 nothing but decay moves a weight."""
    model = small_model()
    optimizer = Optimizer(model, OptimizerSection(lr=0.1, weight_decay=0.5), 10)
    before = dict(zip((n for n, _ in model.named_parameters()), copied(model), strict=True))
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    shrunk = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    matrices = {n for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n}
    assert shrunk == matrices and "lm_head.weight" in shrunk
    for name in shrunk:
        torch.testing.assert_close(dict(model.named_parameters())[name], before[name] * 0.95)


def test_gradients_are_clipped_by_their_global_norm() -> None:
    """The reported norm is that before clipping; half the bound moves the moments half as far."""
    moments = []
    for bound in (1.0, 0.5):
        model = small_model()
        optimizer = Optimizer(model, OptimizerSection(max_grad_norm=bound), 10)
        give_gradients(model, 1.0)
        norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        assert optimizer.step()["grad/norm"] == pytest.approx(float(norm.norm()), rel=1e-5)
        state = optimizer.state_dict()
        moments.append(state["model.norm.weight/exp_avg"])
    assert float(moments[0].norm()) > 0
    torch.testing.assert_close(moments[0] * 0.5, moments[1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_skipped_and_counted(value: float) -> None:
    model = small_model()
    optimizer = Optimizer(model, OptimizerSection(lr=0.1), 10)
    before = copied(model)
    give_gradients(model)
    assert model.model.norm.weight.grad is not None
    model.model.norm.weight.grad[3] = value
    assert optimizer.step()["grad/skipped"] == 1.0
    assert (optimizer.steps, optimizer.skipped) == (1, 1)
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))
    give_gradients(model)
    assert optimizer.step()["grad/skipped"] == 0.0
    assert not torch.equal(model.model.norm.weight, before[-2])


def test_momentum_does_not_move_weights_that_nothing_has_judged() -> None:
    """A step without any gradient is none, although moments are there."""
    model = small_model()
    optimizer = Optimizer(model, OptimizerSection(lr=0.1, weight_decay=0.1), 10)
    give_gradients(model)
    optimizer.step()
    before = copied(model)
    made = optimizer.step()
    assert made["grad/skipped"] == 1.0 and made["grad/norm"] == 0.0
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_bfloat16_weights_learn_at_small_rates() -> None:
    """A step of 1e-5 vanishes in a bfloat16 weight of 1; a hundred of them must not."""
    section = OptimizerSection(lr=1e-5)
    model = small_model(torch.bfloat16)
    optimizer = Optimizer(model, section, 1000)
    before = model.lm_head.weight.detach().clone()
    for step in range(300):
        (model.lm_head.weight.float().sum() * 0.01).backward()
        assert model.lm_head.weight.grad is None, "handed over to the fp32 copy"
        optimizer.step()
        if step == 0:
            large = before.abs() > 0.1
            assert torch.equal(model.lm_head.weight[large], before[large])
    moved = (before.float() - model.lm_head.weight.detach().float())[large]
    assert float(moved.mean()) == pytest.approx(3e-3, rel=0.1)


def test_bfloat16_gradients_are_summed_in_fp32() -> None:
    """256 micro-batches of 1: in bfloat16 the sum would stop at 256, and 1/64 would add nothing."""
    model = small_model(torch.bfloat16)
    optimizer = Optimizer(model, OptimizerSection(max_grad_norm=1e9), 10)
    for share in [1.0] * 256 + [1 / 64] * 64:
        (model.model.norm.weight[0].float() * share).backward()
    assert optimizer.step()["grad/norm"] == pytest.approx(257.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_going_on_from_a_saved_state_is_exact(dtype: torch.dtype) -> None:
    """Through safetensors, into a fresh model with the same weights: the same bits afterwards."""
    section = OptimizerSection(lr=1e-3, warmup_steps=3, decay="cosine", weight_decay=0.1)
    model = small_model(dtype)
    optimizer = Optimizer(model, section, 10)
    for step in range(3):
        give_gradients(model, seed=step)
        optimizer.step()
    resumed_model = small_model(dtype)
    resumed_model.load_state_dict(model.state_dict())
    resumed = Optimizer(resumed_model, section, 10)
    resumed.load_state_dict(load(save(optimizer.state_dict())))
    assert resumed.steps == 3
    for step in range(3, 6):
        rates = []
        for one, of in ((model, optimizer), (resumed_model, resumed)):
            give_gradients(one, seed=step)
            rates.append(of.step()["lr"])
        assert rates[0] == rates[1]
    for name, value in optimizer.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    for one, other in zip(model.parameters(), resumed_model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_of_another_model_is_refused() -> None:
    model = small_model()
    optimizer = Optimizer(model, OptimizerSection(), 10)
    give_gradients(model)
    optimizer.step()
    wider = Optimizer(small_model(hidden=96), OptimizerSection(), 10)
    with pytest.raises(CheckpointError, match="has shape"):
        wider.load_state_dict(optimizer.state_dict())
    tied = Optimizer(small_model(tied_head=True), OptimizerSection(), 10)
    with pytest.raises(CheckpointError, match=r"names `lm_head\.weight`, which this model lacks"):
        tied.load_state_dict(optimizer.state_dict())
