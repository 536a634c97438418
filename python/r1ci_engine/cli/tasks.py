"""The verbs `tasks list`, `tasks show` and `tasks generate`."""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from r1ci_engine.cli.output import Json, print_json, print_pairs, print_table
from r1ci_engine.errors import ConfigError

MOST_ITEMS = 1_000_000
"""Items of `tasks generate` are told apart by holding all of them: about a KiB each."""


@dataclass(frozen=True)
class TasksList:
    """List every task by name.

    The column `selected` says whether the task is in the suite's recommended selection (for
    Reasoning-Gym 84 tasks, without those newer than the paper, with long grids or programs as
    answers, with a twin in another suite, or with several right answers). Any task can be named.

    The column `reference` says whether the items carry an answer to compare with; without one,
    only the task's own scorer knows what is right.

    Example: r1ci-engine tasks list
    """

    as_json: Json = False

    def run(self) -> int:
        """One row per task."""
        from r1ci_engine.tasks.catalogue import list_tasks

        infos = [asdict(info) for info in list_tasks()]
        if self.as_json:
            print_json(infos)
        else:
            print_table(list(infos[0]), [list(info.values()) for info in infos])
        return 0


@dataclass(frozen=True)
class TasksShow:
    """Show one item of a task: the question and the answer.

    Example: r1ci-engine tasks show starter/gcd --seed 3
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")]
    """A name from `tasks list`, or a JSONL file."""
    seed: int = 0
    """Another seed, another item."""
    as_json: Json = False

    def run(self) -> int:
        """Generate one item and print it."""
        from r1ci_engine.report.text import visible
        from r1ci_engine.tasks.catalogue import find_task

        (item,) = find_task(self.name).generate(1, self.seed)
        if self.as_json:
            print_json(asdict(item))
        else:
            print_pairs({"task": item.task, "check": item.check, "answer": item.answer})
            sys.stdout.write(f"\n{visible(item.prompt)}\n")
        return 0


@dataclass(frozen=True)
class TasksGenerate:
    """Generate items of a task, one JSON line each.

    Example: r1ci-engine tasks generate starter/gcd --count 100 > gcd.jsonl
    """

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="TASK")]
    """A name from `tasks list`, or a JSONL file."""
    count: int = 10
    """How many."""
    seed: int = 0
    """Same seed, same items."""
    as_json: Json = False

    def run(self) -> int:
        """Print the items: JSON lines, or one array with `--json`."""
        from r1ci_engine.tasks.catalogue import find_task

        if not 1 <= self.count <= MOST_ITEMS:
            raise ConfigError(
                f"`--count` is `{self.count}`: it has to be from 1 to {MOST_ITEMS}",
                "all items are held in memory to keep them different; for more, give other seeds",
            )
        items = find_task(self.name).generate(self.count, self.seed)
        if self.as_json:
            print_json([asdict(item) for item in items])
        else:
            for item in items:
                sys.stdout.write(json.dumps(asdict(item), ensure_ascii=False) + "\n")
        return 0


@dataclass(frozen=True)
class Tasks:
    """List, show and generate tasks.

    Example: r1ci-engine tasks show starter/gcd
    """

    verb: (
        Annotated[TasksList, tyro.conf.subcommand("list")]
        | Annotated[TasksShow, tyro.conf.subcommand("show")]
        | Annotated[TasksGenerate, tyro.conf.subcommand("generate")]
    )

    def run(self) -> int:
        """Pass on to the inner verb."""
        return self.verb.run()
