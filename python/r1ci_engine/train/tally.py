"""Means over the tokens of a step that comes in pieces.

Sums and counts are kept apart until the end: the mean of micro-batch means would give the token of
a small piece more weight than that of a large one. Values stay on their device until then.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

MAXIMA = frozenset({"ratio/max_deviation"})
"""Metrics of which the largest value counts, not the mean."""


class Tally:
    """Collects per-token values, each name at its own pace."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Take in vectors of one value per token; they must not be empty."""
        for name, value_N in values.items():
            value_N = value_N.detach()
            if name in MAXIMA:
                value = value_N.max()
                value = torch.maximum(self._totals[name], value) if name in self._totals else value
            else:
                value = self._totals.get(name, 0.0) + value_N.sum(dtype=torch.float64)
            self._totals[name] = value
            self._counts[name] = self._counts.get(name, 0) + len(value_N)

    def result(self) -> dict[str, float]:
        """One number per name."""
        return {
            name: float(total) / (1 if name in MAXIMA else self._counts[name])
            for name, total in self._totals.items()
        }
