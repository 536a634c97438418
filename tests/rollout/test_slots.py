"""The slot table: whatever happens to sequences, each keeps its own keys and values."""

from typing import Any, cast

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from r1ci_engine.rollout.cache import KVCache, is_long
from r1ci_engine.rollout.slots import Sequence, SlotTable

SLOTS = 5
ACTIONS = ("admit", "activate", "grow", "jump", "park", "release")


def mark(cache: KVCache, sequence: Sequence) -> None:
    cache.keys_LSCKD[:, sequence.slot, : sequence.cached] = float(sequence.index)
    cache.values_LSCKD[:, sequence.slot, : sequence.cached] = -float(sequence.index)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTIONS), st.integers(0, 99)), max_size=60))
def test_any_history_keeps_sequences_whole_and_in_order(history: list[tuple[str, int]]) -> None:
    cache = KVCache(
        layers=1, slots=SLOTS, kv_heads=1, head_dim=2, dtype=torch.float32, device="cpu"
    )
    cache.reserve(600)
    table = SlotTable(cache, SLOTS)
    live: list[Sequence] = []
    for number, (action, pick) in enumerate(history, start=1):
        chosen = live[pick % len(live)] if live else None
        if action == "admit" and table.free:
            sequence = Sequence(number, cast(Any, None), cast(Any, None), (), 0)
            table.admit(sequence)
            live.append(sequence)
        elif action == "activate" and chosen and not table.is_active(chosen):
            chosen.cached += 3
            mark(cache, chosen)
            table.activate(chosen)
        elif action in ("grow", "jump"):
            for sequence in table.active:
                sequence.cached = min(sequence.cached + (1 if action == "grow" else 100), 590)
                mark(cache, sequence)
            table.sort()
        elif action == "park" and chosen and table.is_active(chosen):
            table.park(chosen)
        elif action == "release" and chosen:
            table.release(chosen)
            live.remove(chosen)
        active = table.active
        assert [sequence.slot for sequence in active] == list(range(len(active)))
        lengths = [is_long(sequence.cached + 1) for sequence in active]
        assert lengths == sorted(lengths)
        assert len({sequence.slot for sequence in live}) == len(live) == SLOTS - table.free
        for sequence in live:
            kept = cache.keys_LSCKD[:, sequence.slot, : sequence.cached]
            assert (kept == sequence.index).all()
            kept = cache.values_LSCKD[:, sequence.slot, : sequence.cached]
            assert (kept == -sequence.index).all()
