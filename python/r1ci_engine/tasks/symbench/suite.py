"""All puzzles of the suite by name, and the rules that judge their items."""

from importlib import import_module

from r1ci_engine.errors import DataError
from r1ci_engine.tasks.symbench.puzzle import Puzzle
from r1ci_engine.trajectory import Item

_MODULES = (
    "blocksworld",
    "boxlift",
    "boxnet",
    "combinatorial_calculation",
    "constrained_linear_arrangement",
    "cryptanalysis",
    "eight_queens",
    "game_24",
    "gsm_hard",
    "letter_logic_diagram",
    "letters",
    "light_puzzles",
    "logic_puzzle",
    "logical_equation",
    "mahjong_pattern",
    "math_counting_and_probability",
    "math_geometry",
    "matrix_transformation",
    "new_operator",
    "number_multiplication",
    "path_planning",
    "pattern_recognition",
    "permutations_and_combinations",
    "pooling",
    "reversi",
    "standard_sudoku",
    "statistical_counting",
    "string_deletion_and_modification",
    "string_insertion",
    "string_splitting",
    "string_synthesis",
    "synthesis_decomposition",
    "tile_2048",
)

PUZZLES: dict[str, Puzzle] = {
    puzzle.name: puzzle
    for puzzle in sorted(
        (import_module(f"{__package__}.{name}").PUZZLE for name in _MODULES), key=lambda p: p.short
    )
}
"""By name in the catalogue, which is the name of their check."""


def find_puzzle(name: str) -> Puzzle | None:
    """The puzzle of that name; `NAME@LEVEL` keeps to one level.

    Raises DataError if the puzzle has no such level; None if there is no such puzzle.
    """
    base, at, level = name.partition("@")
    puzzle = PUZZLES.get(base)
    if puzzle is None or not at:
        return puzzle
    if not level.isascii() or not level.isdigit() or not 1 <= int(level) <= puzzle.levels:
        raise DataError(
            f"`{base}` has no level `{level}`", hint=f"levels go from 1 to {puzzle.levels}"
        )
    return puzzle.at_level(int(level))


def judge_puzzle(item: Item, answer: str) -> bool:
    """Whether an answer to an item of the suite is right.

    Raises DataError for an item that is none (`validate_puzzle_item`).
    """
    puzzle = PUZZLES.get(item.check)
    try:
        if puzzle is not None:
            return puzzle.judge(item.metadata["facts"], item.answer or "", answer)
    except Exception:  # judges are total in the answer: it is the facts, of any form
        validate_puzzle_item(item)
        raise
    validate_puzzle_item(item)
    return False


def validate_puzzle_item(item: Item) -> None:
    """Raise DataError unless the item carries facts that its judge can read."""
    puzzle = PUZZLES.get(item.check)
    if puzzle is None:
        raise DataError(
            f"item `{item.id}` has unknown check `{item.check}`",
            hint=f"checks of this suite: {', '.join(PUZZLES)}",
        )
    try:
        right = puzzle.judge(item.metadata["facts"], item.answer or "", item.answer or "")
    except Exception as error:  # facts of any form: whatever it is, they are not a puzzle's
        raise DataError(
            f"item `{item.id}` has not the facts of `{item.check}`: {type(error).__name__}",
            hint=f"such items come from `r1ci-engine tasks generate {item.check}`",
        ) from None
    if not right:
        raise DataError(f"item `{item.id}`: `{(item.answer or '')[:80]}` is no answer to it")
