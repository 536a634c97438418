"""Every item in exactly one group, and exactly the right one at the cuts."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1ci_engine.config import CurriculumSection
from r1ci_engine.curriculum import (
    Measure,
    group_by_quartiles,
    group_by_thresholds,
    group_items,
)

PAPER = (0.64, 0.48, 0.32, 0.0)


@st.composite
def measure_lists(draw: st.DrawFn) -> list[Measure]:
    counts = draw(st.lists(st.integers(0, 20), min_size=1, max_size=60))
    samples = draw(st.sampled_from([20, 20, 1, 7]))
    return [
        Measure(f"item-{index}", "t", min(right, samples), samples)
        for index, right in enumerate(counts)
    ]


def test_the_paper_s_ranges_at_twenty_samples():
    # Paper section 4: group 1 is 4..16 right of 20, 2 is 3 or 17, 3 is 2 or 18, 4 is the rest.
    measures = [Measure(str(right), "t", right, 20) for right in range(21)]
    groups = group_by_thresholds(measures, PAPER)
    expected = {**dict.fromkeys(range(4, 17), 1), 3: 2, 17: 2, 2: 3, 18: 3}
    assert groups == {str(right): expected.get(right, 4) for right in range(21)}


@pytest.mark.parametrize("right", [1, 4])
def test_a_bound_that_floats_would_miss_is_inside(right: int):
    p = right / 5
    measure = Measure("i", "t", right, 5)
    assert group_by_thresholds([measure], PAPER) == {"i": 1}
    if right == 4:
        assert 4 * p * (1 - p) < 0.64  # what plain floats would have said


@given(measure_lists())
def test_every_item_is_in_one_group(measures: list[Measure]):
    ids = {measure.item_id for measure in measures}
    for section in (CurriculumSection(), CurriculumSection(grouping="quartiles")):
        groups = group_items(measures, section)
        assert set(groups) == ids
        assert set(groups.values()) <= {1, 2, 3, 4}


@given(measure_lists(), st.randoms())
def test_groups_do_not_depend_on_order_and_follow_potential(measures: list[Measure], random):
    shuffled = list(measures)
    random.shuffle(shuffled)
    by_id = {measure.item_id: measure for measure in measures}
    for group in (group_by_quartiles, lambda m: group_by_thresholds(m, PAPER)):
        groups = group(measures)
        assert group(shuffled) == groups
        for one in groups:
            for other in groups:
                if by_id[one].exact_potential > by_id[other].exact_potential:
                    assert groups[one] <= groups[other]


@given(measure_lists())
def test_quartiles_are_equal_but_for_what_cannot_teach(measures: list[Measure]):
    groups = group_by_quartiles(measures)
    idle = {m.item_id for m in measures if m.exact_potential == 0}
    assert all(groups[item] == 4 for item in idle)
    sizes = Counter(groups.values())
    if not idle:
        assert max(sizes.values()) - min(sizes.get(g, 0) for g in (1, 2, 3, 4)) <= 1
    else:
        assert all(sizes.get(g, 0) <= -(-len(measures) // 4) for g in (1, 2, 3))


def test_quartile_ties_do_not_favour_the_first_task():
    measures = [Measure(f"{task}-{i}", task, 1, 2) for task in "ab" for i in range(40)]
    groups = group_by_quartiles(measures)
    first = Counter(item[0] for item, group in groups.items() if group == 1)
    assert min(first["a"], first["b"]) >= 4
