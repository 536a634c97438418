"""Which sequence lies in which slot of the cache.

Slots 0 to `len(active) - 1` hold the sequences that decode, so that a step reads a plain prefix.
The slots behind them are free, or hold sequences that wait (for a script, or for their prefill).
Whoever starts or stops decoding is moved across that border; its keys and values go along.
"""

from dataclasses import dataclass

from r1ci_engine.rollout.cache import KVCache
from r1ci_engine.rollout.request import RolloutRequest
from r1ci_engine.rollout.turns import TurnLoop


@dataclass(eq=False)
class Sequence:
    """A trajectory under way with its place in the cache."""

    index: int
    """Position of its request in the call."""
    request: RolloutRequest
    turns: TurnLoop
    prompt: tuple[int, ...]
    seed: int
    """Of all its sampling noise."""
    slot: int = -1
    cached: int = 0
    """Tokens whose keys and values are in the cache; the last sampled one is not yet."""


class SlotTable:
    """Moves sequences between slots. `active` is a contiguous prefix at all times."""

    def __init__(self, cache: KVCache, slots: int) -> None:
        self._cache = cache
        self._holders: list[Sequence | None] = [None] * slots
        self._active = 0

    @property
    def active(self) -> list[Sequence]:
        """The decoding sequences, in slot order."""
        return [s for s in self._holders[: self._active] if s is not None]

    def is_active(self, sequence: Sequence) -> bool:
        """Whether the sequence decodes."""
        return 0 <= sequence.slot < self._active

    @property
    def free(self) -> int:
        """Slots that hold nothing."""
        return self._holders.count(None)

    def admit(self, sequence: Sequence) -> None:
        """Give a sequence a free slot, not yet decoding."""
        slot = self._holders.index(None)
        self._holders[slot], sequence.slot = sequence, slot

    def activate(self, sequence: Sequence) -> None:
        """Let a sequence decode."""
        assert not self.is_active(sequence)
        self._exchange(sequence.slot, self._active)
        self._active += 1

    def park(self, sequence: Sequence) -> None:
        """Take a sequence out of decoding; it keeps its cache."""
        assert self.is_active(sequence)
        self._active -= 1
        self._exchange(sequence.slot, self._active)

    def release(self, sequence: Sequence) -> None:
        """Give the slot of a finished sequence back."""
        if self.is_active(sequence):
            self.park(sequence)
        self._holders[sequence.slot], sequence.slot = None, -1

    def _exchange(self, one: int, other: int) -> None:
        if one == other:
            return
        first, second = self._holders[one], self._holders[other]
        if first is None or second is None:
            source, mover = (one, first) if first is not None else (other, second)
            if mover is not None:
                self._cache.copy(source, one + other - source, mover.cached)
        else:
            self._cache.swap(one, other, max(first.cached, second.cached))
        self._holders[one], self._holders[other] = second, first
        if first is not None:
            first.slot = other
        if second is not None:
            second.slot = one
