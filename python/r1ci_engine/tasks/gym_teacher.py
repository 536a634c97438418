"""Lessons for Reasoning-Gym tasks: the script a good model would write on reading the question.

A lesson reads the facts out of the question's text, nothing else: neither the stored answer nor
the library's metadata, so that whoever imitates it learns what can be done at the time of asking.
Scripts are short and print the answer last; `teacher.py` runs and judges them. Where a guess or a
chain of sums in text is plausible there is a reason too, often wrong for whoever imitates it.

Left out: all datasets that no few lines of Python solve.
"""

import math
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from r1ci_engine.errors import DataError
from r1ci_engine.tasks.family import Facts
from r1ci_engine.trajectory import Item


@dataclass(frozen=True)
class Lesson:
    """How the questions of one dataset are read and solved."""

    question: str
    """Regular expression; its named groups are the facts."""
    scripts: Sequence[str | Callable[[Facts], str]]
    """Scripts that print the answer: format strings over the facts, or functions of them."""
    reason: Callable[[Facts], str] | None = None
    """The way to the answer in words, without the answer marker; None where only code will do."""

    def read(self, item: Item) -> Facts:
        """What the question says. Raises DataError if it is not worded as expected."""
        match = re.search(self.question, item.prompt)
        if match is None:
            raise DataError(
                f"the teacher of `{item.task}` cannot read `{item.id}`: `{item.prompt[:80]}`",
                hint='set sft.source = "jsonl" and give trajectories, or sft.steps = 0',
            )
        return match.groupdict()

    def script(self, facts: Facts, rng: random.Random) -> str:
        """One of the scripts for these facts."""
        chosen = rng.choice(self.scripts)
        return chosen.format(**facts) if isinstance(chosen, str) else chosen(facts)


def _sum_step_by_step(facts: Facts) -> str:
    first, *rest = facts["x"].split()
    value, steps = int(first), list[str]()
    for sign, term in zip(rest[::2], rest[1::2], strict=True):
        result = value + (int(term) if sign == "+" else -int(term))
        steps.append(f"{value} {sign} {term} = {result}.")
        value = result
    return " ".join(steps)


def _gcd(facts: Facts) -> str:
    return f"Both can be divided by {math.gcd(*_integers(facts))}."


def _lcm(facts: Facts) -> str:
    return f"Both divide {math.lcm(*_integers(facts))}."


def _product(facts: Facts) -> str:
    return f"{facts['x']} = {math.prod(int(factor) for factor in facts['x'].split('*'))}."


def _letters(facts: Facts) -> str:
    count = facts["text"].lower().count(facts["letter"])
    return f"I see {' '.join(facts['letter'] * count) or 'none'}, so {count}."


def _letters_script(facts: Facts) -> str:
    return f"text = {facts['text']!r}\nprint(text.lower().count({facts['letter']!r}))"


def _integers(facts: Facts) -> list[int]:
    return [int(number) for number in facts["xs"].split(",")]


_BASES = {"binary": "2", "hexadecimal": "16"}


def _base_script(facts: Facts) -> str:
    source, target = (
        _BASES.get(facts[key], facts[key].removeprefix("base-")) for key in ("source", "target")
    )
    return (
        f"n = int('{facts['n']}', {source})\ntext = ''\n"
        f"while n:\n    n, digit = divmod(n, {target})\n"
        "    text = '0123456789abcdef'[digit] + text\nprint(text or 0)"
    )


def _numbers_script(facts: Facts) -> str:
    return (
        f"numbers = [{facts['xs']}]\nnumbers.sort({_order(facts)})\n"
        "print([str(x) for x in numbers])"
    )


def _words_script(facts: Facts) -> str:
    words = facts["words"].split(", ")
    return f"words = {words!r}\nwords.sort({_order(facts)})\nprint(', '.join(words))"


def _order(facts: Facts) -> str:
    return "reverse=True" if facts["order"] == "descending" else ""


_ORDER = "(?P<order>ascending|descending)"
_BASE = "base-[0-9]+|binary|hexadecimal"

LESSONS: dict[str, Lesson] = {
    "chain_sum": Lesson(
        r"arithmetic problem: (?P<x>[0-9 +-]+) =$",
        ("print({x})", "x = {x}\nprint(x)"),
        _sum_step_by_step,
    ),
    "gcd": Lesson(
        r"of these numbers: (?P<xs>[0-9, ]+)\.",
        ("import math\nprint(math.gcd({xs}))", "from math import gcd\nprint(gcd({xs}))"),
        _gcd,
    ),
    "lcm": Lesson(
        r"of these numbers: (?P<xs>[0-9, ]+)$",
        ("import math\nprint(math.lcm({xs}))", "from math import lcm\nprint(lcm({xs}))"),
        _lcm,
    ),
    "products": Lesson(
        r"multiplication: (?P<x>[0-9 *]+)\.",
        ("print({x})", "x = {x}\nprint(x)"),
        _product,
    ),
    "count_bits": Lesson(
        r"of the number (?P<n>[0-9]+)\?",
        ("print(bin({n}).count('1'))", "n = {n}\nprint(bin(n).count('1'))"),
    ),
    "spell_backward": Lesson(
        r"-> nus\): (?P<word>\w+)$",
        ("print('{word}'[::-1])", "word = '{word}'\nprint(word[::-1])"),
        lambda facts: f"From the end: {'-'.join(reversed(facts['word']))}.",
    ),
    "basic_arithmetic": Lesson(
        r"^Calculate (?P<x>[0-9 +*/()-]+)\.$",
        ("print(round({x}))", "x = {x}\nprint(round(x))"),
    ),
    "prime_factorization": Lesson(
        r"factorization of (?P<n>[0-9]+)\.",
        (
            "n, d, factors = {n}, 2, []\nwhile n > 1:\n    if n % d:\n        d += 1\n    else:\n"
            "        factors.append(d)\n        n //= d\nprint(' \u00d7 '.join(map(str, factors)))",
        ),
    ),
    "base_conversion": Lesson(
        rf"convert the (?P<source>{_BASE}) number (?P<n>\w+) to (?P<target>{_BASE})$",
        (_base_script,),
    ),
    "letter_counting": Lesson(
        r'the letter "(?P<letter>\w)" appear in the text: "(?P<text>.*)"\?$',
        (_letters_script,),
        _letters,
    ),
    "number_sorting": Lesson(
        rf"in {_ORDER} order: (?P<xs>[0-9., -]+)\n",
        (_numbers_script,),
    ),
    "word_sorting": Lesson(
        rf"these words in {_ORDER} order .*: (?P<words>.+)$",
        (_words_script,),
    ),
}
"""By the library's name of the dataset."""

GYM_LESSONS = {f"reasoning_gym/{name}": lesson for name, lesson in LESSONS.items()}
"""By name in the catalogue."""
