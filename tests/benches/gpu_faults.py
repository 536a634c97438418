"""Runs the self-check of benches/gpu.py with something in it broken on purpose.

    python tests/benches/gpu_faults.py FAULT [ARGUMENT ...]

A script of its own, for what it replaces.
"""

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benches"))

import gpu
import gpu_cases
import gpu_check_head
import gpu_check_rows
import gpu_rows
import gpu_step
from torch import Tensor


def wrong_gate() -> None:
    right = gpu_check_rows.swiglu
    gpu_check_rows.swiglu = lambda gate, up: right(gate, up) * 1.05


def wrong_entropy() -> None:
    right: Any = gpu_check_head.linear_grpo_loss

    def wrong(*head: Any, **options: Any) -> Any:
        result = right(*head, **options)
        return result._replace(entropy_T=result.entropy_T * 1.01)

    gpu_check_head.linear_grpo_loss = wrong


def no_temperature() -> None:
    right: Any = gpu_check_head.linear_logprob
    gpu_check_head.linear_logprob = lambda h, w, t, temperature, **o: right(h, w, t, **o)


def rounded_slope() -> None:
    """As a GPU multiplies by a tensor of no dimensions, if one lets it."""
    right: Any = gpu_check_head.linear_grpo_loss

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> Tensor:
            return slope.bfloat16().float()

    def wrong(*head: Any, **options: Any) -> Any:
        result = right(*head, **options)
        return result._replace(loss=Rounded.apply(result.loss))

    gpu_check_head.linear_grpo_loss = wrong


def no_memory_for_plain() -> None:
    def full_logprob(*head: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("tried to allocate 60.00 GiB\nand more lines")

    gpu_cases.full_logprob = full_logprob


def no_memory_for_checks() -> None:
    def head_operator(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("tried to allocate 60.00 GiB")

    gpu_check_head.head_operator = head_operator


def lost_device() -> None:
    def operator(*arguments: Any) -> None:
        raise RuntimeError(LOST)

    gpu.operator = operator


def lost_in_one_pass() -> None:
    def one_pass(*arguments: Any) -> None:
        raise RuntimeError(LOST)

    gpu_step.linear_grpo_loss = one_pass


def lost_in_all_timings() -> None:
    def lost(*arguments: Any) -> None:
        raise RuntimeError(LOST)

    gpu_cases.make_step = gpu_rows.row_stats = lost


def wrong_row_stats() -> None:
    right: Any = gpu_check_rows.row_stats

    def wrong(*rows: Any) -> tuple[Tensor, Tensor]:
        logprob_T, entropy_T = right(*rows)
        return logprob_T + 1e-3, entropy_T

    gpu_check_rows.row_stats = wrong


def torch_on_cuda() -> None:
    gpu.machine = lambda device: {"device": "H100", "cuda": "13.0"}


LOST = "CUDA error: an illegal memory access was encountered"


if __name__ == "__main__":
    fault, *sys.argv[1:] = sys.argv[1:]
    globals()[fault]()
    gpu.main()
