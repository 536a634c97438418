"""The `starter` suite: small procedural tasks that a tiny model can learn on a laptop.

Each family draws facts, asks a question about them in several wordings, knows the answer, and can
solve it in two ways: as Python (always right once run) and as text (right here, but far easier to
get wrong for whoever imitates it). That gap between the two is what reinforcement has to find.

The last four are meant to be held out from all training, the base corpus included. They put
together what the others teach apart: products inside sums, counting in digits instead of letters,
"largest" with "digits", "smallest" with a plain list.
Left out: anything that needs a library or outside data. Invariant: `code` prints the answer.
"""

import math
import random
from collections.abc import Sequence

from r1ci_engine.tasks.family import Facts, Family

ONSETS = ("b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "st", "tr", "pl")
VOWELS = ("a", "e", "i", "o", "u")
DIGIT_VALUES = ("int(d) for d in str({n})", "int(c) for c in '{n}'")


def _number(rng: random.Random, low: int, high: int) -> int:
    """A number with `low` to `high` digits, every count of digits equally likely."""
    digits = rng.randint(low, high)
    return rng.randint(10 ** (digits - 1), 10**digits - 1)


def _numbers(rng: random.Random) -> Facts:
    return {"xs": [_number(rng, 1, 3) for _ in range(rng.randint(3, 7))]}


def _digits(rng: random.Random) -> Facts:
    return {"n": _number(rng, 2, 7)}


def _word(rng: random.Random) -> str:
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(2, 4)))


def _digit_list(facts: Facts) -> list[int]:
    return [int(d) for d in str(facts["n"])]


def _squares(facts: Facts) -> list[int]:
    return [x * x for x in facts["xs"]]


def _small_numbers(rng: random.Random) -> Facts:
    return {"xs": [rng.randint(1, 40) for _ in range(rng.randint(2, 5))]}


def _spaced(values: Sequence[object], joint: str = " ") -> str:
    return joint.join(str(value) for value in values)


# --- arithmetic --------------------------------------------------------------------------------


def _draw_chain(rng: random.Random) -> Facts:
    terms = [_number(rng, 1, 4) for _ in range(rng.randint(2, 4))]
    text = str(terms[0])
    for term in terms[1:]:
        text += f" {rng.choice('+-')} {term}"
    return {"sum": text}


def _draw_mixed(rng: random.Random) -> Facts:
    product = f"{_number(rng, 1, 2)} * {_number(rng, 1, 2)}"
    terms = [product, *(str(_number(rng, 1, 3)) for _ in range(rng.randint(1, 2)))]
    rng.shuffle(terms)
    text = terms[0]
    for term in terms[1:]:
        text += f" {rng.choice('+-')} {term}"
    return {"sum": text}


def _without_product(text: str) -> str:
    """A mixed expression with its one product worked out."""
    tokens = text.split()
    star = tokens.index("*")
    product = int(tokens[star - 1]) * int(tokens[star + 1])
    return " ".join([*tokens[: star - 1], str(product), *tokens[star + 2 :]])


def _chain_value(text: str) -> int:
    tokens = text.split()
    value = int(tokens[0])
    for sign, term in zip(tokens[1::2], tokens[2::2], strict=True):
        value += int(term) if sign == "+" else -int(term)
    return value


def _reason_chain(facts: Facts) -> str:
    tokens = facts["sum"].split()
    value, steps = int(tokens[0]), []
    for sign, term in zip(tokens[1::2], tokens[2::2], strict=True):
        result = value + (int(term) if sign == "+" else -int(term))
        steps.append(f"{value} {sign} {term} = {result}.")
        value = result
    return _spaced(steps)


def _draw_gcd(rng: random.Random) -> Facts:
    common = rng.randint(1, 60)
    return {"a": common * rng.randint(2, 60), "b": common * rng.randint(2, 60)}


def _draw_power(rng: random.Random) -> Facts:
    return {"a": rng.randint(2, 30), "e": rng.randint(2, 40), "m": rng.randint(3, 99)}


def _prime_script(facts: Facts) -> str:
    return (
        f"n = 0\nfor k in range({facts['a']}, {facts['b']} + 1):\n"
        "    if k > 1 and all(k % d for d in range(2, k)):\n        n += 1\nprint(n)"
    )


def _primes(facts: Facts) -> list[int]:
    span = range(facts["a"], facts["b"] + 1)
    return [k for k in span if k > 1 and all(k % d for d in range(2, math.isqrt(k) + 1))]


def _draw_span(rng: random.Random) -> Facts:
    start = rng.randint(1, 150)
    return {"a": start, "b": start + rng.randint(5, 40)}


# --- notation and words ------------------------------------------------------------------------

BASES = {2: "b", 8: "o", 16: "x"}


def _draw_base(rng: random.Random) -> Facts:
    base = rng.choice(list(BASES))
    return {"n": _number(rng, 1, 4), "base": base, "code": BASES[base]}


def _draw_letter(rng: random.Random) -> Facts:
    words = " ".join(_word(rng) for _ in range(rng.randint(1, 3)))
    return {"w": words, "c": rng.choice([c for c in words if c != " "])}


def _draw_digit(rng: random.Random) -> Facts:
    number = str(_number(rng, 4, 9))
    return {"w": number, "c": rng.choice(number)}


def _reason_letter(facts: Facts) -> str:
    marks = [c for c in facts["w"] if c == facts["c"]]
    return f"I see {_spaced(marks)}, so {len(marks)}."


# --- the table ---------------------------------------------------------------------------------

FAMILIES: tuple[Family, ...] = (
    Family(
        "chain_sum", "additions and subtractions of up to four numbers", "integer",
        _draw_chain,
        ("What is {sum}?", "Compute {sum}.", "Find the value of {sum}."),
        lambda f: str(_chain_value(f["sum"])),
        ("print({sum})", "x = {sum}\nprint(x)"),
        _reason_chain,
    ),
    Family(
        "product", "one multiplication", "integer",
        lambda rng: {"a": _number(rng, 1, 4), "b": _number(rng, 1, 3)},
        ("What is {a} times {b}?", "Multiply {a} by {b}.", "Compute {a} * {b}."),
        lambda f: str(f["a"] * f["b"]),
        ("print({a} * {b})", "x = {a} * {b}\nprint(x)"),
        lambda f: f"{f['a']} * {f['b']} = {f['a'] * f['b']}.",
    ),
    Family(
        "gcd", "greatest common divisor of two numbers", "integer",
        _draw_gcd,
        ("What is the greatest common divisor of {a} and {b}?", "Find the gcd of {a} and {b}."),
        lambda f: str(math.gcd(f["a"], f["b"])),
        ("import math\nprint(math.gcd({a}, {b}))", "from math import gcd\nprint(gcd({a}, {b}))"),
        lambda f: "Both can be divided by {}.".format(math.gcd(f["a"], f["b"])),
    ),
    Family(
        "power_mod", "remainder of a power", "integer",
        _draw_power,
        ("What is {a} to the power {e} modulo {m}?", "Compute {a} ** {e} modulo {m}."),
        lambda f: str(pow(f["a"], f["e"], f["m"])),
        ("print({a} ** {e} % {m})", "print(pow({a}, {e}, {m}))"),
        lambda f: f"The remainder is {pow(f['a'], f['e'], f['m'])}.",
    ),
    Family(
        "count_primes", "how many primes lie in a range", "integer",
        _draw_span,
        ("How many primes are there from {a} to {b}?", "Count the primes from {a} to {b}."),
        lambda f: str(len(_primes(f))),
        (_prime_script,),
        lambda f: f"They are {_spaced(_primes(f))}, so {len(_primes(f))}.",
    ),
    Family(
        "base_conversion", "a number in base 2, 8 or 16", "word",
        _draw_base,
        ("Write {n} in base {base}.", "What is {n} in base {base}?"),
        lambda f: format(f["n"], f["code"]),
        ('print(format({n}, "{code}"))', 'n = {n}\nprint(format(n, "{code}"))'),
        lambda f: f"In base {f['base']} it is {format(f['n'], f['code'])}.",
    ),
    Family(
        "letter_count", "how often a letter occurs", "integer",
        _draw_letter,
        ('How many times does "{c}" occur in "{w}"?', 'Count the letter "{c}" in "{w}".'),
        lambda f: str(f["w"].count(f["c"])),
        ('print("{w}".count("{c}"))', 's = "{w}"\nprint(s.count("{c}"))'),
        _reason_letter,
    ),
    Family(
        "spell_backward", "a made-up word backwards", "word",
        lambda rng: {"w": _word(rng)},
        ('Spell "{w}" backwards.', 'What is "{w}" reversed?'),
        lambda f: f["w"][::-1],
        ('print("{w}"[::-1])', 's = "{w}"\nprint(s[::-1])'),
        lambda f: f"From the end: {_spaced(f['w'][::-1])}.",
    ),
    Family(
        "word_length", "how many letters a made-up word has", "integer",
        lambda rng: {"w": _word(rng)},
        ('How many letters are in "{w}"?', 'What is the length of "{w}"?'),
        lambda f: str(len(f["w"])),
        ('print(len("{w}"))', 's = "{w}"\nprint(len(s))'),
        lambda f: f"The letters are {_spaced(f['w'])}, so {len(f['w'])}.",
    ),
    Family(
        "number_sorting", "a list in rising order", "list",
        _numbers,
        ("Sort {xs} in rising order.", "Put {xs} in rising order."),
        lambda f: str(sorted(f["xs"])),
        ("print(sorted({xs}))", "x = {xs}\nx.sort()\nprint(x)"),
        lambda f: f"From the smallest up: {_spaced(sorted(f['xs']))}.",
    ),
    Family(
        "digit_sum", "sum of the digits of a number", "integer",
        _digits,
        ("What is the sum of the digits of {n}?", "Find the sum of the digits of {n}."),
        lambda f: str(sum(_digit_list(f))),
        tuple(f"print(sum({values}))" for values in DIGIT_VALUES),
        lambda f: f"{_spaced(_digit_list(f), ' + ')} = {sum(_digit_list(f))}.",
    ),
    Family(
        "digit_min", "smallest digit of a number", "integer",
        _digits,
        ("What is the smallest of the digits of {n}?", "Find the smallest of the digits of {n}."),
        lambda f: str(min(_digit_list(f))),
        tuple(f"print(min({values}))" for values in DIGIT_VALUES),
        lambda f: f"The digits are {_spaced(_digit_list(f))}.",
    ),
    Family(
        "digit_product", "product of the digits of a number", "integer",
        _digits,
        ("What is the product of the digits of {n}?", "Find the product of the digits of {n}."),
        lambda f: str(math.prod(_digit_list(f))),
        tuple(f"import math\nprint(math.prod({values}))" for values in DIGIT_VALUES),
        lambda f: f"{_spaced(_digit_list(f), ' * ')} = {math.prod(_digit_list(f))}.",
    ),
    Family(
        "list_sum", "sum of a list", "integer",
        _numbers,
        ("What is the sum of {xs}?", "Find the sum of {xs}."),
        lambda f: str(sum(f["xs"])),
        ("print(sum({xs}))", "x = {xs}\nprint(sum(x))"),
        lambda f: f"{_spaced(f['xs'], ' + ')} = {sum(f['xs'])}.",
    ),
    Family(
        "list_max", "largest number of a list", "integer",
        _numbers,
        ("What is the largest of {xs}?", "Find the largest of {xs}."),
        lambda f: str(max(f["xs"])),
        ("print(max({xs}))", "x = {xs}\nprint(max(x))"),
        lambda f: f"I compare {_spaced(f['xs'])}.",
    ),
    Family(
        "list_product", "product of a list", "integer",
        _small_numbers,
        ("What is the product of {xs}?", "Find the product of {xs}."),
        lambda f: str(math.prod(f["xs"])),
        ("import math\nprint(math.prod({xs}))", "import math\nx = {xs}\nprint(math.prod(x))"),
        lambda f: f"{_spaced(f['xs'], ' * ')} = {math.prod(f['xs'])}.",
    ),
    Family(
        "square_sum", "sum of the squares of a list", "integer",
        _small_numbers,
        ("What is the sum of the squares of {xs}?", "Find the sum of the squares of {xs}."),
        lambda f: str(sum(_squares(f))),
        ("print(sum(x * x for x in {xs}))", "print(sum(k ** 2 for k in {xs}))"),
        lambda f: f"{_spaced(_squares(f), ' + ')} = {sum(_squares(f))}.",
    ),
    Family(
        "square_max", "largest square of a list", "integer",
        _small_numbers,
        ("What is the largest of the squares of {xs}?", "Find the largest square of {xs}."),
        lambda f: str(max(_squares(f))),
        ("print(max(x * x for x in {xs}))", "print(max(k ** 2 for k in {xs}))"),
        lambda f: f"The squares are {_spaced(_squares(f))}.",
    ),
    Family(
        "square_min", "smallest square of a list", "integer",
        _small_numbers,
        ("What is the smallest of the squares of {xs}?", "Find the smallest square of {xs}."),
        lambda f: str(min(_squares(f))),
        ("print(min(x * x for x in {xs}))", "print(min(k ** 2 for k in {xs}))"),
        lambda f: f"The squares are {_spaced(_squares(f))}.",
    ),
    Family(
        "mixed_arithmetic", "sums with one product (meant to be held out)", "integer",
        _draw_mixed,
        ("What is {sum}?", "Compute {sum}.", "Find the value of {sum}."),
        lambda f: str(_chain_value(_without_product(f["sum"]))),
        ("print({sum})", "x = {sum}\nprint(x)"),
        lambda f: _reason_chain({"sum": _without_product(f["sum"])}),
    ),
    Family(
        "digit_count", "how often a digit occurs (meant to be held out)", "integer",
        _draw_digit,
        ('How many times does "{c}" occur in "{w}"?', 'Count the digit "{c}" in "{w}".'),
        lambda f: str(f["w"].count(f["c"])),
        ('print("{w}".count("{c}"))', 's = "{w}"\nprint(s.count("{c}"))'),
        _reason_letter,
    ),
    Family(
        "digit_max", "largest digit of a number (meant to be held out)", "integer",
        _digits,
        ("What is the largest of the digits of {n}?", "Find the largest of the digits of {n}."),
        lambda f: str(max(_digit_list(f))),
        tuple(f"print(max({values}))" for values in DIGIT_VALUES),
        lambda f: f"The digits are {_spaced(_digit_list(f))}.",
    ),
    Family(
        "list_min", "smallest number of a list (meant to be held out)", "integer",
        _numbers,
        ("What is the smallest of {xs}?", "Find the smallest of {xs}."),
        lambda f: str(min(f["xs"])),
        ("print(min({xs}))", "x = {xs}\nprint(min(x))"),
        lambda f: f"I compare {_spaced(f['xs'])}.",
    ),
)  # fmt: skip

STARTER_TASKS: dict[str, Family] = {family.name: family for family in FAMILIES}
HELD_OUT = tuple(family.name for family in FAMILIES[-4:])
"""Never in the base corpus, so that a run may hold them out from all training."""
