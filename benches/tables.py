"""Markdown tables and numbers, as the pages of the benches write them."""

from collections.abc import Iterable


def table(header: str, rows: Iterable[Iterable[object]]) -> list[str]:
    """A markdown table; numbers stand right, because every column but the first is one."""
    names = header.split(" | ")
    rule = ["---", *["---:"] * (len(names) - 1)]
    return ["| " + " | ".join(map(str, line)) + " |" for line in (names, rule, *rows)]


def number(value: float | None, digits: int, missing: str = "-") -> str:
    return missing if value is None else f"{value:,.{digits}f}"
