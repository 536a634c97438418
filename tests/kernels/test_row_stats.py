"""Row statistics: both twins against fp64, and the properties a softmax must have."""

import math

import pytest
import torch
from torch import Tensor

from r1ci_engine.errors import DataError
from r1ci_engine.kernels import force_backend, row_stats, row_stats_reference
from r1ci_engine.kernels.row_stats import row_stats_backward, row_stats_forward

TAIL = 4096 + 37  # one whole block of the Triton kernel and a tail


def rows(T: int, V: int, device: torch.device, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(T * 100_003 + V)
    logits_TV = torch.randn(T, V, generator=generator) * scale
    target_T = torch.randint(V, (T,), generator=generator)
    return logits_TV.to(device), target_T.to(device)


def gradient(
    fn, logits_TV: Tensor, target_T: Tensor, temperature: float, g_T: Tensor, h_T: Tensor
) -> Tensor:
    leaf_TV = logits_TV.detach().clone().requires_grad_()
    logprob_T, entropy_T = fn(leaf_TV, target_T, temperature)
    (logprob_T * g_T.to(logprob_T) + entropy_T * h_T.to(logprob_T)).sum().backward()
    assert leaf_TV.grad is not None
    return leaf_TV.grad


def close(found: Tensor, expected: Tensor, tolerance: float) -> None:
    assert expected.abs().max() > 100 * tolerance, "a comparison of nothing with nothing"
    error = (found.double() - expected.double()).abs().max().item()
    assert error <= tolerance, f"largest error {error:.2e}"


@pytest.mark.parametrize(("T", "V"), [(1, 2), (3, 129), (5, 512), (4, TAIL)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_values_agree_with_fp64(
    T: int, V: int, temperature: float, backend: str, device: torch.device
) -> None:
    logits_TV, target_T = rows(T, V, device)
    target_T[0] = V - 1  # the last column of the tail
    logprob_T, entropy_T = row_stats(logits_TV, target_T, temperature)
    expected = row_stats_reference(logits_TV.double(), target_T, temperature)
    assert logprob_T.dtype == entropy_T.dtype == torch.float32
    close(logprob_T, expected[0], 2e-5)
    close(entropy_T, expected[1], 2e-5)


def test_rows_with_gaps_are_read_as_they_are(backend: str, device: torch.device) -> None:
    """Transposed logits, and columns of wider ones."""
    logits_TV, target_T = rows(4, 129, device)
    g_T, h_T = torch.linspace(-1, 1, 4, device=device), torch.linspace(0.5, 1, 4, device=device)
    expected = gradient(row_stats, logits_TV, target_T, 0.7, g_T, h_T)
    wide_TW = torch.cat([logits_TV, logits_TV], 1)
    for strided_TV in (logits_TV.T.contiguous().T, wide_TW[:, :129]):
        leaf_TV = strided_TV.detach().requires_grad_()
        logprob_T, entropy_T = row_stats(leaf_TV, target_T, 0.7)
        (found,) = torch.autograd.grad((logprob_T * g_T + entropy_T * h_T).sum(), leaf_TV)
        assert torch.equal(found, expected) and expected.abs().max() > 0


def spread(x_T: Tensor) -> Tensor:
    """The same numbers with a wrong one behind each."""
    return torch.stack([x_T, x_T.flip(0) + 1], 1).view(-1)[::2]


@pytest.mark.parametrize("odd", ["target", "g", "h"])
def test_targets_and_slopes_with_gaps_are_read_as_they_are(
    odd: str, backend: str, device: torch.device
) -> None:
    """A column of wider numbers, or one slope that was expanded."""
    logits_TV, target_T = rows(4, 129, device)
    target_T %= 120
    one = {"target": target_T, "g": torch.tensor([1.0, -0.5, 2.0, 0.25], device=device)}
    one["h"] = one["g"].flip(0) * 0.7

    def halves(target: Tensor, g: Tensor, h: Tensor) -> tuple[Tensor, ...]:
        logprob_T, entropy_T, lse_T = row_stats_forward(logits_TV, target, 0.7)
        dlogits_TV = row_stats_backward(
            logits_TV, target, lse_T, entropy_T, g, h, 0.7, torch.float32
        )
        return logprob_T, entropy_T, dlogits_TV

    changes = [spread(one[odd])]
    if odd != "target":
        one_T = one[odd][:1].expand(4)
        assert one_T.stride() == (0,)
        changes.append(one_T)
    for gaps_T in changes:
        assert not gaps_T.is_contiguous()
        expected = halves(**{**one, odd: gaps_T.clone(memory_format=torch.contiguous_format)})
        for found, right in zip(halves(**{**one, odd: gaps_T}), expected, strict=True):
            assert torch.equal(found, right) and (right != 0).any()


@pytest.mark.parametrize("order", ["rising", "falling", "first block impossible"])
def test_a_row_may_be_anything_from_block_to_block(
    order: str, backend: str, device: torch.device
) -> None:
    """The running maximum rises with every block, with none, or begins with the second."""
    V = 2 * 4096 + 37
    logits_TV, target_T = rows(2, V, device, scale=1.0)
    slope_V = torch.linspace(0, 9, V, device=device)
    logits_TV = logits_TV + (slope_V.flip(0) if order == "falling" else slope_V)
    if order == "first block impossible":
        logits_TV[:, :4096] = -math.inf
        target_T[:] = V - 1
    found = row_stats(logits_TV, target_T)
    finite_TV = logits_TV.double().clamp(min=-1e4)  # the reference has no 0 log 0
    expected = row_stats_reference(finite_TV, target_T)
    for one, true in zip(found, expected, strict=True):
        close(one, true, 2e-5)


@pytest.mark.parametrize(("T", "V"), [(3, 129), (3, TAIL)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0), (1.0, 0.7)])
def test_gradients_agree_with_fp64_and_no_term_may_go_missing(
    T: int,
    V: int,
    temperature: float,
    weights: tuple[float, float],
    backend: str,
    device: torch.device,
) -> None:
    logits_TV, target_T = rows(T, V, device)
    target_T[-1] = V - 1
    g_T, h_T = (w * torch.linspace(1, 2, T, device=device) for w in weights)
    found_TV = gradient(row_stats, logits_TV, target_T, temperature, g_T, h_T)

    def expected(temperature: float, g_T: Tensor, h_T: Tensor) -> Tensor:
        return gradient(row_stats_reference, logits_TV.double(), target_T, temperature, g_T, h_T)

    close(found_TV, expected(temperature, g_T, h_T), 2e-6)
    # Each of these is a bug that the comparison above has to notice.
    for broken_TV in (
        expected(temperature, g_T, h_T + 0.1),
        expected(temperature, g_T - 0.1, h_T),
        expected(temperature * 1.1, g_T, h_T),
        expected(temperature, g_T, h_T) * temperature * 1.1,
    ):
        assert (found_TV - broken_TV).abs().max() > 1e-4


def test_the_reference_gradient_is_the_derivative(device: torch.device) -> None:
    logits_TV, target_T = rows(3, 7, device)
    leaf_TV = logits_TV.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: row_stats_reference(z, target_T, 0.8), leaf_TV)
    with force_backend("torch"):
        assert torch.autograd.gradcheck(lambda z: row_stats(z, target_T, 0.8), leaf_TV)


def test_the_twins_agree(triton_backend: None, device: torch.device) -> None:
    logits_TV, target_T = rows(4, 300, device)
    by_triton = row_stats(logits_TV, target_T, 0.9)
    with force_backend("torch"):
        by_torch = row_stats(logits_TV, target_T, 0.9)
    for one_T, other_T in zip(by_triton, by_torch, strict=True):
        close(one_T, other_T, 5e-6)


@pytest.mark.parametrize("offset", [-1e4, 1e4, -80.0])
def test_a_common_offset_changes_nothing(offset: float, backend: str, device: torch.device) -> None:
    # Quarters stay exact under the offset, so any difference is the kernel's own.
    logits_TV, target_T = rows(3, 200, device)
    logits_TV = (logits_TV * 4).round() / 4
    plain = row_stats(logits_TV, target_T)
    moved = row_stats(logits_TV + offset, target_T)
    # lse carries the offset, so the log-probability can keep no more than fp32 has up there.
    close(moved[0], plain[0], max(2e-6, abs(offset) * 2.0**-23))
    close(moved[1], plain[1], 2e-6)


def test_all_negative_logits_in_the_tail_tile(backend: str, device: torch.device) -> None:
    logits_TV, target_T = rows(3, TAIL, device)
    logits_TV = -logits_TV.abs() - 50.0
    expected = row_stats_reference(logits_TV.double(), target_T)
    found = row_stats(logits_TV, target_T)
    close(found[0], expected[0], 2e-5)
    close(found[1], expected[1], 2e-5)


def test_temperature_is_applied_once(backend: str, device: torch.device) -> None:
    logits_TV, target_T = rows(4, 300, device)
    cold, plain = row_stats(logits_TV, target_T, 0.5), row_stats(logits_TV * 2, target_T, 1.0)
    close(cold[0], plain[0], 2e-6)
    close(cold[1], plain[1], 2e-6)
    assert (row_stats(logits_TV, target_T, 1.0)[0] - cold[0]).abs().max() > 0.1


def test_impossible_tokens_add_nothing(backend: str, device: torch.device) -> None:
    logits_TV, target_T = rows(3, TAIL, device)
    target_T %= 64
    barred_TV = logits_TV.clone()
    barred_TV[:, 64:] = -math.inf
    g_T = torch.ones(3, device=device)
    whole, few = row_stats(barred_TV, target_T), row_stats(logits_TV[:, :64], target_T)
    close(whole[0], few[0], 5e-6)
    close(whole[1], few[1], 5e-6)
    dlogits_TV = gradient(row_stats, barred_TV, target_T, 1.0, g_T, g_T)
    assert dlogits_TV.isfinite().all()
    assert (dlogits_TV[:, 64:] == 0).all() and (dlogits_TV[:, :64] != 0).any()


def test_limits_of_entropy(backend: str, device: torch.device) -> None:
    V = 1000
    uniform = row_stats(torch.full((1, V), 2.5, device=device), torch.tensor([3], device=device))
    assert uniform[1].item() == pytest.approx(math.log(V), rel=1e-6)
    assert uniform[0].item() == pytest.approx(-math.log(V), rel=1e-6)
    peak_TV = torch.zeros(1, V, device=device)
    peak_TV[0, 3] = 200.0
    certain = row_stats(peak_TV, torch.tensor([3], device=device))
    assert certain[0].item() == 0.0
    assert certain[1].item() == pytest.approx(0.0, abs=1e-6)


def test_rows_do_not_see_each_other(backend: str, device: torch.device) -> None:
    logits_TV, target_T = rows(6, 300, device)
    together = row_stats(logits_TV, target_T)
    order = torch.tensor([4, 0, 5, 2, 1, 3], device=device)
    shuffled = row_stats(logits_TV[order], target_T[order])
    for one_T, other_T in zip(together, shuffled, strict=True):
        assert torch.equal(one_T[order], other_T)


def test_a_target_outside_the_vocabulary_poisons_its_row(
    triton_backend: None, device: torch.device
) -> None:
    """Not its neighbours, whose logits lie before and behind it in memory (torch refuses it)."""
    logits_TV, target_T = rows(6, 300, device)
    known = row_stats(logits_TV, target_T)
    wrong_T = target_T.clone()
    wrong_T[2], wrong_T[3] = -1, 300
    logprob_T, entropy_T = row_stats(logits_TV, wrong_T)
    assert logprob_T.isnan().tolist() == [False, False, True, True, False, False]
    right_T = torch.tensor([0, 1, 4, 5], device=device)
    assert torch.equal(logprob_T[right_T], known[0][right_T])
    assert torch.equal(entropy_T, known[1])
    one_T = torch.ones(6, device=device)
    found_TV = gradient(row_stats, logits_TV, wrong_T, 0.7, one_T, one_T)
    expected_TV = gradient(row_stats, logits_TV, target_T, 0.7, one_T, one_T)
    assert torch.equal(found_TV[right_T], expected_TV[right_T])


def test_triton_refuses_fp64(triton_backend: None, device: torch.device) -> None:
    logits_TV, target_T = rows(3, 9, device)
    with pytest.raises(DataError, match="float64") as refused:
        row_stats(logits_TV.double(), target_T)
    assert "torch" in (refused.value.hint or "")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_short_types_are_widened_first(
    dtype: torch.dtype, backend: str, device: torch.device
) -> None:
    logits_TV, target_T = rows(3, 200, device)
    logits_TV = logits_TV.to(dtype)
    expected = row_stats_reference(logits_TV.double(), target_T)
    found = row_stats(logits_TV, target_T)
    close(found[0], expected[0], 2e-5)
    g_T = torch.ones(3, device=device)
    dlogits_TV = gradient(row_stats, logits_TV, target_T, 1.0, g_T, g_T)
    assert dlogits_TV.dtype == dtype
    expected_TV = gradient(row_stats_reference, logits_TV.double(), target_T, 1.0, g_T, g_T)
    close(dlogits_TV, expected_TV, 2.0**-7 * expected_TV.abs().max().item())


def test_no_rows_and_strided_rows(backend: str, device: torch.device) -> None:
    empty_TV = torch.empty(0, 50, device=device, requires_grad=True)
    none = row_stats(empty_TV, torch.empty(0, dtype=torch.int64, device=device))
    assert none[0].shape == none[1].shape == (0,)
    (none[0].sum() + none[1].sum()).backward()
    logits_TV, target_T = rows(4, 90, device)
    wide_TV = torch.cat([logits_TV, logits_TV + 1], dim=1)
    assert torch.equal(row_stats(wide_TV[:, :90], target_T)[0], row_stats(logits_TV, target_T)[0])
    turned_TV = logits_TV.T.contiguous().T
    assert torch.equal(row_stats(turned_TV, target_T)[0], row_stats(logits_TV, target_T)[0])


def test_inputs_are_left_alone(backend: str, device: torch.device) -> None:
    logits_TV, target_T = rows(3, 90, device)
    before_TV = logits_TV.clone()
    g_T = torch.ones(3, device=device)
    for temperature in (1.0, 0.5):
        gradient(row_stats, logits_TV, target_T, temperature, g_T, g_T)
        assert torch.equal(logits_TV, before_TV)


def test_mistakes_are_named(device: torch.device) -> None:
    logits_TV, target_T = rows(3, 9, device)
    with pytest.raises(DataError, match="temperature is `0"):
        row_stats(logits_TV, target_T, 0.0)
    with pytest.raises(DataError, match="shapes"):
        row_stats(logits_TV, target_T[:2])
    with pytest.raises(DataError, match="int64"):
        row_stats(logits_TV, target_T.int())
    with pytest.raises(DataError, match="no columns"):
        row_stats(logits_TV[:, :0], target_T)
    for temperature in (math.inf, -math.inf, math.nan, -1.0):
        with pytest.raises(DataError, match=f"temperature is `{temperature}`"):
            row_stats(logits_TV, target_T, temperature)
    for dtype in (torch.int64, torch.int32, torch.bool):
        with pytest.raises(DataError, match=f"rows are `{dtype}`, expected a floating type"):
            row_stats(logits_TV.to(dtype), target_T)
    with pytest.raises(DataError, match="on `meta`, expected int64"):
        row_stats(logits_TV, target_T.to("meta"))


def test_it_compiles_whole(backend: str, device: torch.device) -> None:
    torch.compiler.reset()
    logits_TV, target_T = rows(3, 129, device)
    g_T, h_T = torch.ones(3, device=device), torch.full((3,), 0.5, device=device)
    eager = gradient(row_stats, logits_TV, target_T, 0.7, g_T, h_T)
    compiled = torch.compile(row_stats, backend="aot_eager", fullgraph=True)
    found = gradient(compiled, logits_TV, target_T, 0.7, g_T, h_T)
    assert torch.equal(found, eager) and eager.abs().max() > 0
