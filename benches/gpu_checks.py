"""How the kernels are checked on the machine that is to be timed: what a check is, what it proves.

Each check is a value and what it may be at most, on inputs that no one has seen, against fp64. A
check that raises has failed, with the reason; one for which time or memory did not suffice was not
made, which is not the same as good. The error of a gradient is taken relative to that of plain
torch in the same type, which has no more digits.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from gpu_measure import Bench, free
from torch import Tensor

RATIO = 1.1  # error relative to that of plain torch in the same type


class NotMade(Exception):
    """There is no room for this check here; says why."""


class Checks:
    """What was checked, in order; a limit of None is an observation that cannot fail.

    `written` is called after every group, so that what was found is not lost with what comes next.
    """

    def __init__(self, bench: Bench, written: Callable[[], None] = lambda: None) -> None:
        self.bench = bench
        self.written = written
        self.rows: list[dict[str, Any]] = []
        self.not_made: list[str] = []

    def at_most(self, name: str, value: float | Tensor, limit: float | None) -> None:
        number = float(value.detach() if isinstance(value, Tensor) else value)
        good = limit is None or number <= limit  # NaN is not
        shown = number if math.isfinite(number) else str(number)  # JSON has no NaN
        self._add({"check": name, "value": shown, "limit": limit, "good": good})

    def same(self, name: str, found: Tensor, expected: Tensor, limit: int | None = 0) -> None:
        self.at_most(f"{name}: elements that differ", (found != expected).sum(), limit)

    def run(self, name: str, check: Callable[["Checks"], None]) -> None:
        """One group, out of whose failing nothing follows for the others."""
        if not self.bench.clock.allows(f"check of {name}", 0.0):
            self.not_made.append(name)
            self.written()
            return
        try:
            check(self)
        except (torch.OutOfMemoryError, NotMade) as error:
            reason = str(error) if isinstance(error, NotMade) else "out of memory"
            self.bench.clock.leave_out(f"check of {name}", reason)
            self.not_made.append(name)
        except Exception as error:
            reason = f"{name}: {type(error).__name__}: {error}"[:300]
            self._add({"check": reason, "value": None, "limit": None, "good": False})
        free(self.bench)
        self.written()

    def failed(self) -> list[str]:
        return [row["check"] for row in self.rows if not row["good"]]

    def good(self) -> bool:
        """Whether there was one, and none failed."""
        return bool(self.rows) and not self.failed()

    def _add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        value = "raised" if row["value"] is None else f"{float(row['value']):.2e}"
        allowed = "" if row["limit"] is None else f" (allowed {row['limit']:.1e})"
        verdict = "" if row["good"] else "  FAILED"
        print(f"  {row['check']}: {value}{allowed}{verdict}", flush=True)


def doubled(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x
    return x.detach().double().requires_grad_(x.requires_grad)


def gradients(
    results: Sequence[Tensor], leaves: Sequence[Tensor], kept_T: Tensor | None = None
) -> list[Tensor]:
    """Of a sum that weighs the elements of every result differently, alike in every type.

    Of the rows `kept_T` only, where that is given.
    """
    total = torch.zeros((), dtype=results[0].dtype, device=results[0].device)
    for at, x in enumerate(results):
        weight = torch.linspace(-1 - at, 1, x.numel(), device=x.device).bfloat16().view(x.shape)
        if kept_T is not None:
            weight = weight.where(kept_T, 0)
        total = total + (weight.to(x.dtype) * x).sum()
    wanted = [x for x in leaves if x.requires_grad]
    return list(torch.autograd.grad(total, wanted, retain_graph=True))


def compare(checks: Checks, name: str, ours: Tensor, plain: Tensor, exact: Tensor) -> None:
    error, usual = ((x.double() - exact).norm() for x in (ours, plain))
    # NaN is not above 0 either.
    if not exact.abs().max() > 0 or not usual > 0:
        raise ValueError(f"{name}: the exact one is zero, or plain torch exact: nothing is proved")
    checks.at_most(f"{name}: error / plain torch", error / usual, RATIO)
