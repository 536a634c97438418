"""The schedule of items: stage s trains on the union of groups 1..s (paper section 4).

A pure function: `batch(step, n)` depends on the seed, the step, n and the measures, never on
which batches were asked for before. There is no cursor, so a resumed run needs nothing but the
measures, and a state saved under another configuration is refused.

Steps are counted from 1 over all stages. Measuring and sampling are done elsewhere.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from r1ci_engine.curriculum.groups import group_items
from r1ci_engine.curriculum.potential import Measure
from r1ci_engine.errors import ConfigError, DataError
from r1ci_engine.seeds import derive_seed

if TYPE_CHECKING:  # pydantic costs more to import than the whole of this room
    from r1ci_engine.config import CurriculumSection

STATE_VERSION = 1


@dataclass(frozen=True)
class Stage:
    """Steps `first_step` to `last_step` (both inclusive) draw from `pool`."""

    number: int
    first_step: int
    last_step: int
    groups: tuple[int, ...]
    pool: tuple[str, ...]
    """Item ids, sorted."""
    widened: bool = False
    """True if the stage's own groups were empty and later ones were added."""

    @property
    def steps(self) -> int:
        """Length of the stage; 0 for one that is left out."""
        return self.last_step - self.first_step + 1


class Curriculum:
    """Measures, groups and stages of one run.

    `section.mode`:
    - `stages`: stage s draws from groups 1..s for `stage_steps[s - 1]` steps. Where these groups
      are all empty, the stage is widened to the first group that is not; its steps are kept, so
      the total never changes. That is an event in `records()`.
    - `none`: one stage over all items for the same total of steps. Items need not be measured.
    """

    def __init__(
        self, section: "CurriculumSection", seed: int, measures: Sequence[Measure]
    ) -> None:
        """Raises DataError if there are no items, or one twice."""
        if not measures:
            raise DataError(
                "there are no items to train on",
                hint="raise `tasks.train_items` or name more tasks in `tasks.train`",
            )
        self.measures = {measure.item_id: measure for measure in measures}
        if len(self.measures) != len(measures):
            raise DataError("an item id occurs twice among the measures")
        self.groups = group_items(measures, section)
        self._config: dict[str, Any] = {"seed": seed, **section.model_dump(mode="json")}
        self._seed = seed
        self.stages = (
            _stages(self.groups, section.stage_steps)
            if section.mode == "stages"
            else _one_stage(self.groups, section.stage_steps)
        )
        self._passes: dict[tuple[int, int], list[tuple[str, ...]]] = {}

    @property
    def total_steps(self) -> int:
        """Steps over all stages."""
        return self.stages[-1].last_step

    def stage_of(self, step: int) -> Stage:
        """The stage that `step` (1 to `total_steps`) belongs to; never one without steps."""
        assert 1 <= step <= self.total_steps
        return next(stage for stage in self.stages if step <= stage.last_step)

    def batch(self, step: int, n: int) -> list[str]:
        """Ids of the items to sample at `step`: min(n, size of the pool) of them, all different.

        Within a stage batches run through the pool in passes; each pass is a fresh shuffle and
        holds every item once. A batch across the end of a pass holds no item twice either, since
        two groups of one item would be one group to the advantages.
        """
        assert n >= 1
        stage = self.stage_of(step)
        size = len(stage.pool)
        n = min(n, size)
        start = (step - stage.first_step) * n
        number, offset = divmod(start, size)
        first = self._pass(stage, n, number)[offset : offset + n]
        if len(first) == n:
            return list(first)
        return [*first, *self._pass(stage, n, number + 1)[: n - len(first)]]

    def _pass(self, stage: Stage, n: int, number: int) -> tuple[str, ...]:
        """The order of the pool in pass `number` (from 0) of a stage, for batches of n items."""
        # Each pass depends on the end of the one before, so they are made in order, and kept.
        passes = self._passes.setdefault((stage.number, n), [])
        while len(passes) <= number:
            index = len(passes)
            order = _shuffled(stage.pool, self._seed, stage.number, index)
            carried = index * len(stage.pool) % n  # items of the last pass in the shared batch
            if carried:
                barred = set(passes[-1][-carried:])
                head = [item for item in order if item not in barred][: n - carried]
                taken = set(head)
                order = head + [item for item in order if item not in taken]
            passes.append(tuple(order))
        return passes[number]

    def records(self) -> Iterator[dict[str, Any]]:
        """Lines of `curriculum.jsonl`: every item, then every stage, for people and reports."""
        for measure in self.measures.values():
            low, high = measure.interval()
            yield {
                "task": measure.task,
                "item_id": measure.item_id,
                "p": measure.p,
                "p_low": low,
                "p_high": high,
                "potential": measure.potential,
                "group": self.groups[measure.item_id],
                "n": measure.samples,
                "by_agent": {agent: list(counts) for agent, counts in measure.by_agent.items()},
            }
        for stage in self.stages:
            event = {
                "event": "stage",
                "stage": stage.number,
                "first_step": stage.first_step,
                "last_step": stage.last_step,
                "groups": list(stage.groups),
                "items": len(stage.pool),
            }
            yield event
            if stage.widened and stage.steps:
                yield {**event, "event": "widened"}

    def to_json(self) -> dict[str, Any]:
        """State for a checkpoint; `from_json` is its inverse."""
        return {
            "version": STATE_VERSION,
            "config": self._config,
            "measures": [measure.to_json() for measure in self.measures.values()],
        }

    @classmethod
    def from_json(
        cls, record: Mapping[str, Any], section: "CurriculumSection", seed: int
    ) -> "Curriculum":
        """Rebuild from `to_json`.

        Raises ConfigError naming the keys that differ if the state was made under another
        configuration or seed, and DataError if it is not such a state.
        """
        try:
            version, config, measures = record["version"], record["config"], record["measures"]
        except (KeyError, TypeError) as error:
            raise DataError(f"not a curriculum state: {error} is missing") from error
        if version != STATE_VERSION:
            raise DataError(f"curriculum state has version `{version}`, not {STATE_VERSION}")
        if not isinstance(config, Mapping) or not isinstance(measures, list):
            raise DataError("not a curriculum state: `config` or `measures` is of the wrong form")
        curriculum = cls(section, seed, [Measure.from_json(measure) for measure in measures])
        mine = curriculum._config
        differing = [key for key in sorted({*mine, *config}) if mine.get(key) != config.get(key)]
        if differing:
            told = ", ".join(
                f"`{key}` was `{config.get(key)}`, now `{mine.get(key)}`" for key in differing
            )
            raise ConfigError(
                f"the curriculum was measured under another configuration: {told}",
                hint="resume with the run folder's own config.toml, or start in a new folder",
            )
        return curriculum


def _stages(groups: Mapping[str, int], stage_steps: Sequence[int]) -> tuple[Stage, ...]:
    stages: list[Stage] = []
    first_filled = min(groups.values())
    step = 1
    for number, steps in enumerate(stage_steps, 1):
        last_group = max(number, first_filled)
        pool = tuple(sorted(item for item, group in groups.items() if group <= last_group))
        stages.append(
            Stage(
                number=number,
                first_step=step,
                last_step=step + steps - 1,
                groups=tuple(range(1, last_group + 1)),
                pool=pool,
                widened=last_group > number,
            )
        )
        step += steps
    return tuple(stages)


def _one_stage(groups: Mapping[str, int], stage_steps: Sequence[int]) -> tuple[Stage, ...]:
    everything = tuple(range(1, len(stage_steps) + 1))
    return (Stage(1, 1, sum(stage_steps), everything, tuple(sorted(groups))),)


def _shuffled(pool: Sequence[str], seed: int, stage: int, index: int) -> list[str]:
    # Sorting by a hash per item, unlike a generator's shuffle, is the same on every Python.
    return sorted(
        pool, key=lambda item: (derive_seed("curriculum", seed, stage, index, item), item)
    )
