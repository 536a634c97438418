"""JSON from places that are not trusted: read as plain data, or refused.

Stricter than the standard library's reader, which takes `NaN`, turns `1e999` into infinity and
lets the last of two equal keys win. Invariant: what is read consists of None, bool, int, finite
float, str, list and dict with str keys, and is no deeper than asked for. Lone surrogates are kept;
two that make a pair are written as escapes, and so come back as the one character they stand for.
"""

import json
import math
from collections import Counter
from typing import NoReturn, TypeAlias

from r1ci_engine.errors import DataError, short_repr

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MOST_DEPTH = 100
"""Lists and objects within each other."""


def parse_json(text: bytes, *, most_depth: int = MOST_DEPTH) -> JsonValue:
    """The value that one UTF-8 document stands for. Raises DataError for anything else."""
    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_without_repeats,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise DataError(f"not JSON: no UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise DataError(_too_deep(most_depth)) from None
    except ValueError as error:
        raise DataError(f"not JSON: {error}") from None
    _check(value, most_depth)
    return value


def dump_json(value: JsonValue) -> bytes:
    """The document, in ASCII, that `parse_json` reads as an equal value; tuples become lists.

    Raises DataError for what JSON has no word for.
    """
    _check(value, MOST_DEPTH)
    try:
        return json.dumps(value, allow_nan=False).encode("ascii")
    except ValueError as error:  # an integer of more digits than Python is willing to write
        raise DataError(f"not a JSON value: {error}") from None


def _check(value: object, most_depth: int) -> None:
    level, depth = [value], 0
    while level:
        below: list[object] = []
        for entry in level:
            if isinstance(entry, dict | list | tuple):
                if depth == most_depth:
                    raise DataError(_too_deep(most_depth))
                if isinstance(entry, dict):
                    _check_keys(entry)
                below.extend(entry.values() if isinstance(entry, dict) else entry)
            elif isinstance(entry, float):
                if not math.isfinite(entry):
                    raise DataError(f"not a JSON value: `{entry}`")
            elif not (entry is None or isinstance(entry, bool | int | str)):
                raise DataError(f"not a JSON value: `{short_repr(entry)}`")
        level, depth = below, depth + 1


def _check_keys(entry: dict[object, object]) -> None:
    for key in entry:
        if not isinstance(key, str):
            raise DataError(f"not a JSON value: the key `{short_repr(key)}` is no text")


def _too_deep(most_depth: int) -> str:
    return f"JSON with lists or objects more than {most_depth} deep"


def _without_repeats(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key `{short_repr(twice)}` is there twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"`{name}` is no number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number `{digits[:40]}` is too large")
    return number
