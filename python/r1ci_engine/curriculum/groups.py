"""Items into groups by falling potential: by fixed cuts, or four parts of equal size.

Groups are numbered from 1 (highest potential), as in the paper (section 4). Every item is in
exactly one group. All comparisons are between fractions: at 20 samples the cut 0.64 is reached
exactly by 4 and by 16 right answers, and floats would put both on the wrong side.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

from r1ci_engine.curriculum.potential import Measure
from r1ci_engine.seeds import derive_seed

if TYPE_CHECKING:  # pydantic costs more to import than the whole of this room
    from r1ci_engine.config import CurriculumSection

QUARTILES = 4


def group_by_thresholds(measures: Sequence[Measure], thresholds: Sequence[float]) -> dict[str, int]:
    """Item id -> first group whose lower bound (inclusive) the potential reaches.

    `thresholds` fall and end in 0. A threshold means its decimal spelling: 0.64 is 16/25.
    """
    bounds = [Fraction(str(threshold)) for threshold in thresholds]
    assert bounds[-1] == 0 and bounds == sorted(bounds, reverse=True)
    return {
        measure.item_id: next(
            group for group, low in enumerate(bounds, 1) if measure.exact_potential >= low
        )
        for measure in measures
    }


def group_by_quartiles(measures: Sequence[Measure]) -> dict[str, int]:
    """Item id -> quarter of the order by falling potential; earlier quarters take the remainder.

    Tie rule: items of equal potential stand in the order of a hash of their id, so that a cut
    through a tie favours no task, and neither the input order nor the run's seed matters.
    Items of potential 0 are in the last group wherever the cuts fall, so it can be the largest
    and an earlier one can be short or empty: training first on what cannot teach helps nobody.
    """
    order = sorted(
        measures, key=lambda m: (-m.exact_potential, derive_seed("quartiles", m.item_id), m.item_id)
    )
    share, rest = divmod(len(order), QUARTILES)
    sizes = [share + (quarter < rest) for quarter in range(QUARTILES)]
    quarters = [group for group, size in enumerate(sizes, 1) for _ in range(size)]
    return {
        measure.item_id: group if measure.exact_potential > 0 else QUARTILES
        for measure, group in zip(order, quarters, strict=True)
    }


def group_items(measures: Sequence[Measure], section: "CurriculumSection") -> Mapping[str, int]:
    """Group as the configuration says."""
    if section.grouping == "quartiles":
        return group_by_quartiles(measures)
    return group_by_thresholds(measures, section.thresholds)
