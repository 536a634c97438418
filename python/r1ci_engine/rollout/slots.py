"""Which sequence lies in which slot of the cache.

The first slots hold the sequences that decode, so that a step reads a plain prefix: short ones,
then long ones, which attention computes apart. The slots behind them are free or hold sequences
that wait, for a script or to be computed. Whoever crosses a border changes place with the one at
the border, keys and values included.
"""

from dataclasses import dataclass

from r1ci_engine.rollout.cache import KVCache, is_long
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
    """Moves sequences between slots, which lie as `short | long | waiting or free`."""

    def __init__(self, cache: KVCache, slots: int) -> None:
        self._cache = cache
        self._holders: list[Sequence | None] = [None] * slots
        self._short = 0
        self._active = 0

    @property
    def active(self) -> list[Sequence]:
        """The decoding sequences, in slot order: short ones first."""
        return [s for s in self._holders[: self._active] if s is not None]

    @property
    def free(self) -> int:
        """Slots that hold nothing."""
        return self._holders.count(None)

    def is_active(self, sequence: Sequence) -> bool:
        """Whether the sequence decodes."""
        return 0 <= sequence.slot < self._active

    def admit(self, sequence: Sequence) -> None:
        """Give a sequence a free slot, not yet decoding."""
        slot = self._holders.index(None)
        self._holders[slot], sequence.slot = sequence, slot

    def activate(self, sequence: Sequence) -> None:
        """Let a sequence decode; its next token counts towards its length."""
        assert not self.is_active(sequence)
        self._exchange(sequence.slot, self._active)
        self._active += 1
        if not is_long(sequence.cached + 1):
            self._exchange(sequence.slot, self._short)
            self._short += 1

    def sort(self) -> None:
        """Move sequences that have grown long behind the short ones."""
        for sequence in self.active[: self._short]:
            if is_long(sequence.cached + 1):
                self._short -= 1
                self._exchange(sequence.slot, self._short)

    def park(self, sequence: Sequence) -> None:
        """Take a sequence out of decoding; it keeps its cache."""
        assert self.is_active(sequence)
        if sequence.slot < self._short:
            self._short -= 1
            self._exchange(sequence.slot, self._short)
        self._active -= 1
        self._exchange(sequence.slot, self._active)

    def release(self, sequence: Sequence) -> None:
        """Give the slot of a finished sequence back."""
        sequence.cached = 0  # What it leaves behind need not be moved.
        if self.is_active(sequence):
            self.park(sequence)
        self._holders[sequence.slot], sequence.slot = None, -1

    def _exchange(self, one: int, other: int) -> None:
        if one == other:
            return
        first, second = self._holders[one], self._holders[other]
        first_length = first.cached if first is not None else 0
        second_length = second.cached if second is not None else 0
        if first_length and second_length:
            self._cache.swap(one, other, max(first_length, second_length))
        elif first_length:
            self._cache.copy(one, other, first_length)
        elif second_length:
            self._cache.copy(other, one, second_length)
        self._holders[one], self._holders[other] = second, first
        if first is not None:
            first.slot = other
        if second is not None:
            second.slot = one
