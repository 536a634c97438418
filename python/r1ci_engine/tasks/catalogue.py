"""All tasks by name: the starter suite, Reasoning-Gym, JSONL files.

Listing is cheap: Reasoning-Gym is neither imported nor needed for it.
"""

import difflib
from dataclasses import dataclass

from r1ci_engine.errors import DataError
from r1ci_engine.tasks.jsonl import JsonlTask
from r1ci_engine.tasks.reasoning_gym import DATASETS, GymTask
from r1ci_engine.tasks.starter import STARTER_TASKS
from r1ci_engine.tasks.task import Task

GYM_SUITE = "reasoning_gym"


@dataclass(frozen=True)
class TaskInfo:
    """What `r1ci-engine tasks list` shows of a task."""

    name: str
    suite: str
    about: str
    selected: bool = True
    """Part of the suite's recommended selection (for Reasoning-Gym, an 84-task selection)."""
    reference: bool = True
    """Items carry a reference answer; without one only the scorer knows what is right."""


def list_tasks() -> list[TaskInfo]:
    """All tasks that have a name of their own, by name."""
    starter = [TaskInfo(t.name, "starter", t.about) for t in STARTER_TASKS.values()]
    gym = [
        TaskInfo(f"{GYM_SUITE}/{d.name}", GYM_SUITE, d.about, d.selected, d.reference)
        for d in DATASETS.values()
    ]
    return sorted(starter + gym, key=lambda info: info.name)


def find_task(name: str) -> Task:
    """The task of that name; a name that ends in `.jsonl` is a path.

    Raises DataError with the nearest name if there is none.
    """
    if name.endswith(".jsonl"):
        return JsonlTask(name)
    if name in STARTER_TASKS:
        return STARTER_TASKS[name]
    suite, _, short = name.partition("/")
    if suite == GYM_SUITE and short in DATASETS:
        return GymTask(DATASETS[short])
    known = [info.name for info in list_tasks()]
    # A bare name is taken for the second half of a full one.
    near = [n for n in known if n.partition("/")[2] == name]
    near = near or difflib.get_close_matches(name, known, n=1)
    told = " or ".join(f"`{n}`" for n in near)
    hint = f"did you mean {told}?" if near else "`r1ci-engine tasks list` names all tasks"
    raise DataError(f"there is no task `{name}`", hint=hint)
