"""The decoder computes the same on the Triton kernels as on torch, and compiles whole on both."""

from collections.abc import Callable, Iterator

import pytest
import torch
from tiny_models import VOCAB_SIZE, tiny_config, tiny_model
from torch import Tensor

from r1ci_engine.kernels import force_backend
from r1ci_engine.kernels.dispatch import HAS_TRITON, interpreting
from r1ci_engine.model.attention import PackedAttention
from r1ci_engine.model.config import ARCHITECTURES

needs_interpreter = pytest.mark.skipif(
    not HAS_TRITON or not interpreting(), reason="TRITON_INTERPRET was not set"
)


@pytest.fixture(autouse=True)
def forget_compiled_code() -> Iterator[None]:
    torch.compiler.reset()  # or the code found for another backend would be taken again
    yield
    torch.compiler.reset()


def outcome(family: str, change: Callable[[torch.nn.Module], Callable]) -> dict[str, Tensor]:
    """Logits of two packed sequences, and the gradient of every parameter."""
    decoder = tiny_model(tiny_config(family))
    tokens_T = torch.arange(37) * 7 % VOCAB_SIZE
    positions_T = torch.cat([torch.arange(17), torch.arange(20)])
    hidden_TD = change(decoder)(tokens_T, positions_T, PackedAttention([0, 17, 37]))
    logits_TV = decoder.logits(hidden_TD)
    logits_TV.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in decoder.named_parameters()}
    return {"logits": logits_TV.detach(), **{n: g for n, g in gradients.items() if g is not None}}


@needs_interpreter
@pytest.mark.parametrize("family", ARCHITECTURES)
def test_both_backends_give_the_same_logits_and_gradients(family: str) -> None:
    expected = outcome(family, lambda decoder: decoder)
    with force_backend("triton"):
        found = outcome(family, lambda decoder: decoder)
    assert found.keys() == expected.keys() and len(found) > 20
    assert not torch.equal(found["logits"], expected["logits"]), "the kernels were not reached"
    for name, value in expected.items():
        scale = value.abs().max()
        assert scale > 0, name
        assert (found[name] - value).abs().max() <= 1e-5 * scale, name


@pytest.mark.parametrize("backend", ["torch", pytest.param("triton", marks=needs_interpreter)])
def test_it_compiles_whole(backend: str) -> None:
    def compiled(decoder: torch.nn.Module) -> Callable:
        return torch.compile(decoder, fullgraph=True, backend="aot_eager")

    with force_backend(backend):
        expected, found = (outcome("qwen3", change) for change in (lambda d: d, compiled))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7, msg=name)
