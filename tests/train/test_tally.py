"""Means over tokens that come in pieces."""

import pytest
import torch

from r1ci_engine.train.tally import Tally


def test_mean_is_over_tokens_not_over_pieces() -> None:
    """One token here and ninety-nine there."""
    tally = Tally()
    tally.add({"entropy": torch.tensor([100.0])})
    tally.add({"entropy": torch.full((99,), 10.0)})
    assert tally.result() == {"entropy": 10.9}


def test_largest_deviation_is_kept() -> None:
    tally = Tally()
    for values in ([0.1, 0.3], [0.2]):
        tally.add({"ratio/max_deviation": torch.tensor(values)})
    assert tally.result() == pytest.approx({"ratio/max_deviation": 0.3})


def test_names_may_come_at_their_own_pace() -> None:
    tally = Tally()
    tally.add({"entropy": torch.ones(2), "clip/fraction": torch.ones(2)})
    tally.add({"entropy": torch.ones(2) * 3})
    assert tally.result() == {"entropy": 2.0, "clip/fraction": 1.0}
