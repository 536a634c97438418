"""When each item is trained on: measured improvement potential, groups, cumulative stages.

No torch, no clock, no state that depends on call order: everything here is a pure function of
the configuration, the seed and the measured results. Source: paper section 4.
"""

from r1ci_engine.curriculum.groups import group_by_quartiles, group_by_thresholds, group_items
from r1ci_engine.curriculum.potential import Measure, Measurement, measure_items, potential
from r1ci_engine.curriculum.stages import Curriculum, Stage

__all__ = [
    "Curriculum",
    "Measure",
    "Measurement",
    "Stage",
    "group_by_quartiles",
    "group_by_thresholds",
    "group_items",
    "measure_items",
    "potential",
]
