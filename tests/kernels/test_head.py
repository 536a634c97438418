"""The head's working memory: what a chunk may take, how many rows that is, and what is not copied.

No GPU is needed: a plan asks a tensor for its shape and type only, so a fake one on CUDA will do.
"""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from allocations import peak_bytes
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from r1ci_engine.kernels import head
from r1ci_engine.kernels.head import (
    default_chunk_bytes,
    head_logits,
    plan_chunks,
    scale_,
    scale_gradients,
)

V = 152_064
"""Of Qwen2.5 from 7B on."""
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def test_the_default_budgets_are_the_documented_ones() -> None:
    """On CUDA thousands of rows of a real head at six bytes a logit, or its products starve."""
    assert default_chunk_bytes(CUDA) == 2_000_000_000 > 2048 * 6 * V
    assert default_chunk_bytes(CPU) == 256 << 20
    assert default_chunk_bytes(torch.device("mps")) == 256 << 20


@pytest.fixture
def on_h100(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, bool]]:
    """`plan_chunks` at the default budget for rows that are said to be on an H100."""
    properties = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(head, "backend_for", lambda device: "triton")

    def plan(T: int, D: int, dtype: torch.dtype) -> tuple[int, bool]:
        with FakeTensorMode():
            hidden_TD = torch.empty(T, D, dtype=dtype, device="cuda")
        assert hidden_TD.is_cuda
        return plan_chunks(hidden_TD, V, default_chunk_bytes(CUDA))

    return plan


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("D", "rows"), [(3584, 2176), (5120, 2176)])
def test_a_chunk_of_16_bit_operands_takes_six_bytes_a_logit(
    D: int, rows: int, dtype: torch.dtype, on_h100: Callable[..., tuple[int, bool]]
) -> None:
    """fp32 logits and 16-bit gradients of them: 17 tiles of 128 rows at the heads of 7B and 14B."""
    assert on_h100(32_768, D, dtype) == (rows, False)
    most = 2_000_000_000 // (6 * V)
    assert most == 2192
    assert on_h100(most, D, dtype) == (most, True), "all of them fit, so they are kept"
    assert on_h100(most + 1, D, dtype) == (rows, False)


def test_a_chunk_of_fp32_operands_takes_eight_bytes_a_logit(
    on_h100: Callable[..., tuple[int, bool]],
) -> None:
    most = 2_000_000_000 // (8 * V)
    assert most == 1644
    assert on_h100(32_768, 3584, torch.float32) == (1152, False)
    assert on_h100(most, 3584, torch.float32) == (1648, True), "up to a multiple of sixteen"
    assert on_h100(most + 1, 3584, torch.float32) == (1152, False)


@pytest.mark.parametrize(
    ("vocabulary", "dtype", "rows"),
    [
        (512, torch.float32, 512),  # 4 MiB at 16 bytes a logit
        (512, torch.bfloat16, 512),  # all is fp32 beside the operands
        (512, torch.float64, 256),  # and fp64 beside such
        (5000, torch.float32, 256),  # no fewer, although 20 MB are no cache
        (V, torch.float32, 96),  # 256 MiB
    ],
)
def test_a_chunk_on_cpu_stays_in_the_cache_or_passes_over_the_head_seldom(
    vocabulary: int, dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "backend_for", lambda device: "torch")
    hidden_TD = torch.empty(1 << 18, 4, dtype=dtype)
    assert plan_chunks(hidden_TD, vocabulary, 256 << 20) == (rows, False)


def test_a_bias_is_added_in_place() -> None:
    """A copy would be a third more than the plan allows for."""
    hidden_CD, weight_VD, bias_V = torch.randn(64, 16), torch.randn(5000, 16), torch.randn(5000)
    logits_CV = head_logits(hidden_CD, weight_VD, bias_V)
    torch.testing.assert_close(logits_CV, hidden_CD @ weight_VD.T + bias_V)
    peak = peak_bytes(lambda: head_logits(hidden_CD, weight_VD, bias_V))
    assert 4 * logits_CV.numel() <= peak < 4.2 * logits_CV.numel()


N = 1 << 18


def gradient(dtype: torch.dtype, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N, generator=generator).to(device, dtype)


SUMS = [  # of the head's gradient, which is summed in fp32, and of the rows'
    (torch.float32, torch.float32),
    (torch.float32, torch.bfloat16),
    (torch.float32, torch.float16),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float16),
]


@pytest.mark.parametrize(("dtype", "like"), SUMS)
def test_a_gradient_is_scaled_in_fp32_and_rounded_once(
    dtype: torch.dtype, like: torch.dtype, device: torch.device
) -> None:
    """Not by a slope that was rounded first: a third is another number in 16 bits."""
    given_N, slope = gradient(dtype, device), torch.tensor(1 / 3, device=device)
    expected_N = (given_N.float() * slope).to(like)
    rounded_N = (given_N.float() * slope.bfloat16().float()).to(like)
    found_N = scale_(given_N.clone(), slope, torch.empty(0, dtype=like, device=device))
    assert found_N.dtype == like and torch.equal(found_N, expected_N)
    assert not torch.equal(found_N, rounded_N)
    one = torch.empty(0, dtype=like, device=device)
    others = scale_gradients(
        slope, one, given_N, one, one, torch.empty(N, dtype=like, device=device), None,
        [False, True, False],
    )  # fmt: skip
    assert torch.equal(others[1], expected_N)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_gradient_in_its_own_type_is_scaled_without_a_copy(dtype: torch.dtype) -> None:
    """On CPU, as the profiler counts it: the rows' in fp32 would be twice as much again."""
    given_N, slope, none = gradient(dtype, CPU), torch.tensor(1 / 3), torch.empty(0)

    def in_place() -> None:
        torch.empty(16)  # so that there is an allocation to count
        scale_(given_N, slope, given_N)

    def anew() -> None:
        scale_gradients(slope, given_N, none, none, given_N, none, None, [True, False, False])

    assert peak_bytes(in_place) <= 1024
    assert given_N.nbytes <= peak_bytes(anew) <= given_N.nbytes + 1024
