"""What a task is: a name and a way to make items.

Judging is not part of it: an item names its check (`checks.py`), so that stored items can be
judged without the code that made them.
"""

import hashlib
from typing import Protocol

from r1ci_engine.trajectory import Item


class Task(Protocol):
    """A family of questions."""

    @property
    def name(self) -> str:
        """Unique, with its source first: `starter/gcd`, `reasoning_gym/gcd`, `data/sums.jsonl`."""
        ...

    @property
    def about(self) -> str:
        """One line for `r1ci-engine tasks list`."""
        ...

    def generate(self, count: int, seed: int) -> list[Item]:
        """Up to `count` items; the same arguments give the same items.

        Items may repeat each other's prompts (`items.py` removes those). A task that runs out
        returns fewer items or raises DataError.
        """
        ...


def question_key(prompt: str) -> str:
    """What makes two prompts the same question: all but the blanks."""
    return " ".join(prompt.split())


def content_id(task: str, prompt: str) -> str:
    """An item's id from what it asks: the same in every run, split and order."""
    return f"{task}/{hashlib.blake2b(prompt.encode(), digest_size=6).hexdigest()}"
