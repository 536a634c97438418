"""The head operator: against fp64, whatever the chunks, with memory that does not grow with T."""

import sys
import weakref
from typing import Any

import pytest
import torch
from allocations import peak_bytes
from torch import Tensor

from r1ci_engine.errors import DataError
from r1ci_engine.kernels import force_backend, linear_logprob, linear_logprob_reference
from r1ci_engine.kernels.head import cheapest_rows, plan_chunks

V, D = 203, 24


def head(
    T: int, device: torch.device, dtype: torch.dtype = torch.float32, D: int = D
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(T)
    hidden_TD = torch.randn(T, D, generator=generator)
    weight_VD = torch.randn(V, D, generator=generator) * 0.5
    target_T = torch.randint(V, (T,), generator=generator)
    return [hidden_TD.to(device, dtype), weight_VD.to(device, dtype), target_T.to(device)]


def run(
    fn, inputs: list[Tensor], g_T: Tensor, h_T: Tensor | None, temperature: float = 1.0, **options
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(logprob, entropy, dhidden, dweight) of sum(g logprob + h entropy)."""
    hidden_TD, weight_VD, target_T = inputs
    hidden_TD, weight_VD = (x.detach().clone().requires_grad_() for x in (hidden_TD, weight_VD))
    logprob_T, entropy_T = fn(hidden_TD, weight_VD, target_T, temperature, **options)
    loss = (logprob_T * g_T.to(logprob_T)).sum()
    if h_T is not None:
        loss = loss + (entropy_T * h_T.to(logprob_T)).sum()
    loss.backward()
    assert hidden_TD.grad is not None and weight_VD.grad is not None
    return logprob_T.detach(), entropy_T.detach(), hidden_TD.grad, weight_VD.grad


def reference(inputs: list[Tensor], g_T: Tensor, h_T: Tensor | None, temperature: float = 1.0):
    doubles = [inputs[0].double(), inputs[1].double(), inputs[2]]
    return run(linear_logprob_reference, doubles, g_T, h_T, temperature)


def close(found: Tensor, expected: Tensor, relative: float) -> None:
    scale = expected.abs().max().item()
    assert scale > 0, "a comparison of nothing with nothing"
    error = (found.double() - expected.double()).abs().max().item() / scale
    assert error <= relative, f"relative error {error:.2e}"


def coefficients(T: int, device: torch.device) -> tuple[Tensor, Tensor]:
    g_T = torch.linspace(-1, 2, T, device=device)
    h_T = torch.linspace(0.5, -0.25, T, device=device)
    return g_T, h_T


# One byte of budget means chunks of sixteen rows; the default keeps everything.
BUDGETS = [None, 1]


@pytest.mark.parametrize("T", [1, 15, 16, 17, 40])
@pytest.mark.parametrize("chunk_bytes", BUDGETS)
def test_agrees_with_fp64(
    T: int, chunk_bytes: int | None, backend: str, device: torch.device
) -> None:
    inputs = head(T, device)
    g_T, h_T = coefficients(T, device)
    found = run(linear_logprob, inputs, g_T, h_T, 0.7, chunk_bytes=chunk_bytes)
    for name, one, other in zip(
        ["logp", "entropy", "dx", "dw"], found, reference(inputs, g_T, h_T, 0.7), strict=True
    ):
        assert one.dtype == torch.float32, name
        close(one, other, 1e-5)


@pytest.mark.parametrize("chunk_bytes", BUDGETS)
def test_no_term_may_go_missing(
    chunk_bytes: int | None, backend: str, device: torch.device
) -> None:
    T = 19
    inputs = head(T, device)
    g_T, h_T = coefficients(T, device)
    _, _, dhidden_TD, dweight_VD = run(
        linear_logprob, inputs, g_T, h_T, 0.7, chunk_bytes=chunk_bytes
    )
    for broken in (
        reference(inputs, g_T, None, 0.7),  # entropy without a gradient
        reference(inputs, torch.zeros_like(g_T), h_T, 0.7),  # log-probability without one
        reference(inputs, g_T, h_T, 1.0),  # temperature forgotten
        reference(inputs, g_T, h_T, 0.49),  # temperature applied twice
    ):
        with pytest.raises(AssertionError):
            close(dhidden_TD, broken[2], 1e-3)
        with pytest.raises(AssertionError):
            close(dweight_VD, broken[3], 1e-3)


def test_values_have_the_same_bits_for_any_chunks_and_neighbours(
    backend: str, device: torch.device
) -> None:
    if device.type != "cpu":
        pytest.skip("holds for a CPU product; cuBLAS chooses its order by shape")
    T = 61
    inputs = head(T, device, D=576)  # long enough sums that their order shows
    g_T, h_T = coefficients(T, device)
    whole = run(linear_logprob, inputs, g_T, h_T)
    chunked = run(linear_logprob, inputs, g_T, h_T, chunk_bytes=1)
    for name, one, other in zip(["logp", "entropy", "dx"], whole, chunked, strict=False):
        assert torch.equal(one, other), name
    close(whole[3], chunked[3], 1e-6)  # a sum over chunks: its order may differ
    hidden_TD, weight_VD, target_T = inputs
    for n in (1, 3, 9, 50):
        alone_T, _ = linear_logprob(hidden_TD[-n:], weight_VD, target_T[-n:])
        assert torch.equal(alone_T, whole[0][-n:]), f"{n} rows"


def test_rows_without_gradient_are_skipped_without_effect(
    backend: str, device: torch.device
) -> None:
    T = 40
    inputs = head(T, device)
    g_T, h_T = coefficients(T, device)
    active_T = torch.arange(T, device=device) % 3 == 0
    g_T, h_T = g_T * active_T, h_T * active_T
    expected = reference(inputs, g_T, h_T)
    for chunk_bytes in BUDGETS:
        _, _, dhidden_TD, dweight_VD = run(
            linear_logprob, inputs, g_T, h_T, chunk_bytes=chunk_bytes
        )
        close(dhidden_TD, expected[2], 1e-5)
        close(dweight_VD, expected[3], 1e-5)
        assert (dhidden_TD[~active_T] == 0).all()


def test_backward_makes_only_the_rows_that_matter(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = sys.modules[linear_logprob.__module__]
    whole, seen = module.row_stats_backward, []

    def counted(*arguments: Any) -> Tensor:
        dlogits_CV = whole(*arguments)
        seen.append(len(dlogits_CV))
        return dlogits_CV

    monkeypatch.setattr(module, "row_stats_backward", counted)
    inputs = head(40, device)
    active_T = (torch.arange(40, device=device) % 4 == 0).float()
    for chunk_bytes in BUDGETS:
        run(linear_logprob, inputs, active_T, None, chunk_bytes=chunk_bytes)
        assert sum(seen) == 10
        seen.clear()


class Watched:
    """Rows of each product of logits, and what of earlier chunks was alive when it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = sys.modules[linear_logprob.__module__]
        self.rows: list[int] = []
        self.left: list[int] = []
        made: list[weakref.ref[Tensor]] = []
        logits, backward = module.head_logits, module.row_stats_backward

        def watched(tensor: Tensor) -> Tensor:
            made.append(weakref.ref(tensor))
            return tensor

        def watched_logits(hidden_CD: Tensor, *others: Any) -> Tensor:
            self.rows.append(len(hidden_CD))
            self.left.append(sum(tensor() is not None for tensor in made))
            return watched(logits(hidden_CD, *others))

        monkeypatch.setattr(module, "head_logits", watched_logits)
        monkeypatch.setattr(module, "row_stats_backward", lambda *x: watched(backward(*x)))


def test_a_chunk_is_gone_before_the_next_asks_for_as_much(
    backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(monkeypatch)
    g_T, h_T = coefficients(40, device)
    run(linear_logprob, head(40, device), g_T, h_T, chunk_bytes=1)
    assert watched.rows == 2 * [16, 16, 8] and watched.left == 6 * [0]


@pytest.mark.parametrize("trained", ["hidden", "weight", "bias"])
def test_logits_are_kept_for_whichever_wants_a_gradient(
    trained: str, backend: str, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it is the bias alone: nothing is multiplied twice."""
    hidden_TD, weight_VD, target_T = head(12, device)
    leaves = {"hidden": hidden_TD, "weight": weight_VD, "bias": torch.zeros(V, device=device)}
    leaves[trained].requires_grad_()
    watched = Watched(monkeypatch)
    logprob_T, _ = linear_logprob(hidden_TD, weight_VD, target_T, bias_V=leaves["bias"])
    logprob_T.sum().backward()
    assert watched.rows == [12]
    assert [name for name, x in leaves.items() if x.grad is not None] == [trained]
    found = leaves[trained].grad
    assert found is not None and (found != 0).any()


def test_nothing_active_gives_zero_gradients(backend: str, device: torch.device) -> None:
    inputs = head(5, device)
    zero_T = torch.zeros(5, device=device)
    _, _, dhidden_TD, dweight_VD = run(linear_logprob, inputs, zero_T, zero_T)
    assert (dhidden_TD == 0).all() and (dweight_VD == 0).all()


def test_no_rows(backend: str, device: torch.device) -> None:
    inputs = head(0, device)
    empty_T = torch.empty(0, device=device)
    logprob_T, entropy_T, dhidden_TD, dweight_VD = run(linear_logprob, inputs, empty_T, empty_T)
    assert logprob_T.shape == entropy_T.shape == (0,)
    assert dhidden_TD.shape == (0, D) and (dweight_VD == 0).all()


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_a_frozen_side_costs_and_gets_nothing(
    frozen: str, backend: str, device: torch.device
) -> None:
    hidden_TD, weight_VD, target_T = head(12, device)
    expected = reference([hidden_TD, weight_VD, target_T], torch.ones(12, device=device), None)
    hidden_TD.requires_grad_(frozen != "hidden")
    weight_VD.requires_grad_(frozen != "weight")
    linear_logprob(hidden_TD, weight_VD, target_T, chunk_bytes=1)[0].sum().backward()
    if frozen == "hidden":
        assert hidden_TD.grad is None and weight_VD.grad is not None
        close(weight_VD.grad, expected[3], 1e-5)
    else:
        assert weight_VD.grad is None and hidden_TD.grad is not None
        close(hidden_TD.grad, expected[2], 1e-5)


def test_bf16_is_no_worse_than_the_plain_path(device: torch.device) -> None:
    inputs = head(64, device, torch.bfloat16)
    g_T, _ = coefficients(64, device)
    expected = reference(inputs, g_T, None)
    plain = run(linear_logprob_reference, inputs, g_T, None)
    found = run(linear_logprob, inputs, g_T, None)
    assert found[0].dtype == torch.float32 and found[3].dtype == torch.bfloat16
    for ours, eager, exact in zip(found, plain, expected, strict=True):
        error = (ours.double() - exact).pow(2).mean().sqrt().item()
        assert error <= 1.1 * (eager.double() - exact).pow(2).mean().sqrt().item()
    assert (found[0].double() - expected[0]).abs().max() < 1e-4


def test_gradcheck_in_fp64(device: torch.device) -> None:
    hidden_TD, weight_VD, target_T = head(5, device, torch.float64)
    hidden_TD.requires_grad_()
    weight_VD = weight_VD[:11].clone().requires_grad_()
    target_T %= 11
    with force_backend("torch"):
        for chunk_bytes in BUDGETS:
            assert torch.autograd.gradcheck(
                lambda h, w, b=chunk_bytes: linear_logprob(h, w, target_T, 0.8, chunk_bytes=b),
                (hidden_TD, weight_VD),
            )


def test_triton_refuses_fp64(triton_backend: None, device: torch.device) -> None:
    with pytest.raises(DataError, match="float64") as refused:
        linear_logprob(*head(5, device, torch.float64))
    assert "torch" in (refused.value.hint or "")


@pytest.mark.parametrize("chunk_bytes", BUDGETS)
@pytest.mark.parametrize(
    ("dtype", "bias_dtype"), [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)]
)
def test_a_bias_keeps_its_own_type(
    dtype: torch.dtype,
    bias_dtype: torch.dtype,
    chunk_bytes: int | None,
    backend: str,
    device: torch.device,
) -> None:
    """Its gradient is rounded to that type and no other."""
    hidden_TD, weight_VD, target_T = head(40, device, dtype)
    bias_V = torch.linspace(-1, 1, V, device=device).to(bias_dtype).requires_grad_()
    g_T, _ = coefficients(40, device)
    logprob_T, _ = linear_logprob(
        hidden_TD, weight_VD, target_T, bias_V=bias_V, chunk_bytes=chunk_bytes
    )
    (found_V,) = torch.autograd.grad((logprob_T * g_T).sum(), bias_V)
    wide_V = bias_V.detach().double().requires_grad_()
    right_T, _ = linear_logprob_reference(
        hidden_TD.double(), weight_VD.double(), target_T, bias_V=wide_V
    )
    (right_V,) = torch.autograd.grad((right_T * g_T).sum(), wide_V)
    assert found_V.dtype == bias_dtype
    close(found_V, right_V, 1e-2)
    short = (found_V.bfloat16() == found_V).all()
    assert short == (bias_dtype == torch.bfloat16), "rounded on the way"


def test_the_plan_keeps_to_the_budget() -> None:
    for T, vocabulary, budget in [(8192, 512, 256 << 20), (8192, 50_000, 256 << 20), (9, 512, 1)]:
        hidden_TD = torch.empty(T, 4)
        rows, keep = plan_chunks(hidden_TD, vocabulary, budget)
        working = 4 * 4 * vocabulary * min(rows, T) + keep * 4 * vocabulary * T
        assert rows % 16 == 0
        assert rows == 16 or working <= budget
    assert plan_chunks(torch.empty(8192, 4), 512, 256 << 20)[1], "a small head is not recomputed"
    assert plan_chunks(torch.empty(9, 8), 152_064, 256 << 20) == (16, True), "nor are few rows"
    assert not plan_chunks(torch.empty(8192, 4), 50_000, 256 << 20)[1]


def test_logits_are_kept_only_where_a_chunk_fits_beside_them(
    backend: str, device: torch.device
) -> None:
    """Of a budget that grows by a chunk's share: first neither, then the logits, then both."""
    hidden_TD = torch.empty(8192, 4, device=device if backend == "triton" else "cpu")
    vocabulary, kept = 512, []
    for budget in range(15 << 20, 72 << 20, 1 << 20):
        rows, keep = plan_chunks(hidden_TD, vocabulary, budget)
        logits, chunk = 4 * vocabulary * 8192, vocabulary * min(rows, 8192)
        # Where all rows are one chunk its logits are the ones that are kept.
        working = chunk * 8 if backend == "triton" else keep * logits + chunk * 16
        assert rows % 16 == 0 and working <= budget
        kept.append(keep)
    assert kept == sorted(kept) and not kept[0] and kept[-1]
    assert not kept[2], "the logits alone would fit into 17 MiB"


def test_rows_that_fit_are_one_chunk(triton_backend: None, device: torch.device) -> None:
    """Also where their number is no multiple of sixteen."""
    hidden_TD, _, _ = head(40, device)
    per_row = V * 8
    assert plan_chunks(hidden_TD, V, 40 * per_row) == (48, True)
    rows, keep = plan_chunks(hidden_TD, V, 40 * per_row - 1)
    assert rows < 40 and not keep


@pytest.mark.parametrize(("D", "rows"), [(2048, 2048), (3584, 2176), (5120, 2176)])
def test_chunks_fill_the_waves_of_an_h100(D: int, rows: int) -> None:
    """132 processors and 2 GB at six bytes an element of a Qwen2.5 head."""
    most = 2_000_000_000 // (6 * 152_064)
    assert cheapest_rows(most, D, 132) == rows
    assert cheapest_rows(100, D, 132) == 100, "fewer than a tile: as many as there are"
    assert all(
        most // 2 < cheapest_rows(most, width, 132) <= most for width in range(256, 9000, 256)
    )


@pytest.mark.parametrize("trains", [True, False])
def test_memory_does_not_grow_with_rows(trains: bool) -> None:
    """Allocations on CPU as the profiler counts them, with gradients and without."""
    wide_V, budget = 3000, 1 << 20

    def peak(T: int, chunk_bytes: int | None) -> int:
        hidden_TD = torch.randn(T, D, requires_grad=True)
        weight_VD = torch.randn(wide_V, D, requires_grad=trains)
        target_T = torch.arange(T) % wide_V

        def step() -> None:
            with torch.set_grad_enabled(trains):
                logprob_T, _ = linear_logprob(
                    hidden_TD, weight_VD, target_T, chunk_bytes=chunk_bytes
                )
            if trains:
                logprob_T.sum().backward()

        return peak_bytes(step)

    small, large = (peak(T, budget) for T in (256, 4096))
    assert large - small <= (4096 - 256) * 4 * (D * trains + 16)
    assert large <= 2 * wide_V * D * 4 + 1.5 * budget + 4096 * 4 * (D * trains + 16)
    kept = 4096 * wide_V * 4
    assert (peak(4096, None) > kept) == trains, "logits are kept for a backward only"


def test_mistakes_are_named(device: torch.device) -> None:
    hidden_TD, weight_VD, target_T = head(4, device)
    with pytest.raises(DataError, match="one type"):
        linear_logprob(hidden_TD, weight_VD.double(), target_T)
    with pytest.raises(DataError, match="shapes"):
        linear_logprob(hidden_TD, weight_VD.T, target_T)
    with pytest.raises(DataError, match="shapes"):
        linear_logprob(hidden_TD, weight_VD, target_T[1:])
    with pytest.raises(DataError, match="V > 0"):
        linear_logprob(hidden_TD, weight_VD[:0], target_T)
    with pytest.raises(DataError, match="temperature"):
        linear_logprob(hidden_TD, weight_VD, target_T, float("nan"))


def test_it_trains_a_head(backend: str, device: torch.device) -> None:
    """Twenty steps of descent on the operator and on full logits stay together."""
    hidden_TD, weight_VD, target_T = head(40, device)
    weights = [weight_VD.clone().requires_grad_() for _ in range(2)]
    curves: list[list[float]] = []
    for fn, weight in zip((linear_logprob, linear_logprob_reference), weights, strict=True):
        losses = []
        for _ in range(20):
            loss = -fn(hidden_TD, weight, target_T)[0].mean()
            (gradient,) = torch.autograd.grad(loss, weight)
            weight.data -= 2.0 * gradient
            losses.append(loss.item())
        curves.append(losses)
    assert curves[0][-1] < 0.5 * curves[0][0]
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)
