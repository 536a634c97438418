"""What a task of the starter suite consists of: facts, wordings, an answer, two ways to it."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from r1ci_engine.errors import DataError
from r1ci_engine.seeds import derive_seed
from r1ci_engine.trajectory import Item

Facts = dict[str, Any]
"""What one question is about, such as its numbers."""


@dataclass(frozen=True)
class Family:
    """One task of the suite; `Task` for the catalogue, and a teacher for supervised training."""

    short: str
    """Name without the suite."""
    about: str
    """One line for `r1ci-engine tasks list`."""
    check: str
    """Rule that judges answers (`tasks/checks.py`)."""
    draw: Callable[[random.Random], Facts]
    """Random facts of one question."""
    wordings: Sequence[str]
    """Questions as format strings over the facts."""
    solve: Callable[[Facts], str]
    """The answer."""
    scripts: Sequence[str | Callable[[Facts], str]]
    """Scripts that print the answer: format strings over the facts, or functions of them."""
    reason: Callable[[Facts], str]
    """The way to the answer in words, without the answer marker."""

    @property
    def name(self) -> str:
        """Name in the catalogue."""
        return f"starter/{self.short}"

    def generate(self, count: int, seed: int) -> list[Item]:
        """`count` items with distinct prompts, the same for the same seed.

        Raises DataError if the family has not that many different questions.
        """
        rng = random.Random(derive_seed(seed, self.name))
        items: dict[str, Item] = {}
        draws = 0
        while len(items) < count:
            draws += 1
            if draws > 20 * count + 1000:
                raise DataError(
                    f"`{self.name}` has no `{count}` different questions",
                    hint=f"ask for fewer items; {len(items)} were found",
                )
            facts = self.draw(rng)
            prompt = rng.choice(self.wordings).format(**facts)
            if prompt not in items:
                index = len(items)
                items[prompt] = Item(
                    task=self.name,
                    id=f"{self.name}/{seed}-{index}",
                    prompt=prompt,
                    answer=self.solve(facts),
                    check=self.check,
                    metadata={"facts": facts},
                )
        return list(items.values())

    def script(self, facts: Facts, rng: random.Random) -> str:
        """One of the family's scripts for these facts."""
        chosen = rng.choice(self.scripts)
        return chosen.format(**facts) if isinstance(chosen, str) else chosen(facts)
