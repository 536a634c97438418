"""Questions from a JSONL file, one JSON object per line.

Fields: `prompt` (text, or chat messages as a list of `role`/`content`) and `answer` (text or a
number); optionally `check` (a rule of `checks.py`, default `exact`), `id` (unique in the file)
and `metadata`. The columns of verl's data sets are read too: `reward_model.ground_truth` stands
for `answer`, and `data_source` and `extra_info` go to the metadata. Other fields are ignored, so
that the output of `r1ci-engine tasks generate` is a task again.

A question that occurs again with the same answer counts once; with another answer it is a fault.
Every fault names file and line. The file is read whole, and nothing in it is evaluated.
"""

import random
from functools import cached_property
from pathlib import Path
from typing import Any

from r1ci_engine.errors import DataError, short_repr
from r1ci_engine.seeds import derive_seed
from r1ci_engine.tasks.checks import SANDBOXED, validate_item
from r1ci_engine.tasks.task import content_id, question_key
from r1ci_engine.trajectory import Item, read_jsonl

_FIELDS_HINT = "each line needs `prompt` and `answer`, or verl's `prompt` and `reward_model`"


class JsonlTask:
    """The questions of one file; its name is the path as it was given."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)
        self.name = path

    @property
    def about(self) -> str:
        """One line for `r1ci-engine tasks list`."""
        told = f"{len(self.items)} questions from a file"
        return told + (f", {self._repeats} repeats left out" if self._repeats else "")

    @cached_property
    def items(self) -> list[Item]:
        """All questions in the order of the file.

        Raises DataError for a file that is missing or has no questions, and for the first line
        that is not JSON, lacks a field, repeats an id, could never be answered right, or asks what
        an earlier line asks but wants another answer.
        """
        ids: set[str] = set()
        items: dict[str, tuple[int, Item]] = {}
        self._repeats = 0
        for number, record in read_jsonl(self.path):
            try:
                item = _read_item(self.name, record)
                validate_item(item)
            except DataError as error:
                raise DataError(
                    f"`{self.path}` line {number}: {error.message}", hint=error.hint
                ) from None
            if item.id in ids and "id" in record:
                raise DataError(f"`{self.path}` line {number}: id `{item.id}` occurs twice")
            ids.add(item.id)
            line, first = items.setdefault(question_key(item.prompt), (number, item))
            if first is item:
                continue
            # A scorer knows several right answers; which one a line carries says nothing.
            if item.check != SANDBOXED and (first.answer, first.check) != (item.answer, item.check):
                raise DataError(
                    f"`{self.path}` lines {line} and {number} ask the same and want "
                    f"`{short_repr(first.answer)}` ({first.check}) and "
                    f"`{short_repr(item.answer)}` ({item.check})",
                    hint="correct one of them, or leave it out",
                )
            self._repeats += 1
        if not items:
            raise DataError(f"`{self.path}` has no questions", hint=_FIELDS_HINT)
        return [item for _, item in items.values()]

    def generate(self, count: int, seed: int) -> list[Item]:
        """Up to `count` questions in an order drawn from `seed`."""
        order = list(self.items)
        random.Random(derive_seed(seed, "jsonl")).shuffle(order)
        return order[:count]


def _read_item(task: str, record: dict[str, Any]) -> Item:
    prompt = _read_prompt(_field(record, "prompt"))
    metadata = record.get("metadata", {})
    if not isinstance(metadata, dict):
        raise DataError(f"`metadata` is a {type(metadata).__name__}, not an object")
    if "reward_model" in record and "answer" not in record:
        model = record["reward_model"]
        answer = model.get("ground_truth") if isinstance(model, dict) else None
        if answer is None:
            raise DataError("`reward_model` has no `ground_truth`", hint=_FIELDS_HINT)
        kept = {key: record[key] for key in ("data_source", "extra_info") if key in record}
        metadata = {**kept, **metadata}
    else:
        answer = _field(record, "answer")
    return Item(
        task=task,
        # Ids count per file, but have to be unique in a run.
        id=f"{task}/{_text('id', record['id'])}" if "id" in record else content_id(task, prompt),
        prompt=prompt,
        answer=None if answer is None else _text("answer", answer),
        check=_text("check", record.get("check", "exact")),
        metadata=metadata,
    )


def _text(name: str, value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise DataError(f"`{name}` is `{short_repr(value)}`, neither text nor a number")
    return value


def _field(record: dict[str, Any], name: str) -> Any:
    if name not in record:
        raise DataError(f"no field `{name}`", hint=_FIELDS_HINT)
    return record[name]


def _read_prompt(prompt: Any) -> str:
    if isinstance(prompt, list):
        for message in prompt:
            if not isinstance(message, dict) or not isinstance(message.get("content"), str):
                raise DataError("`prompt` has a message without a text `content`")
            if message.get("role") not in ("system", "user"):
                raise DataError(
                    f"`prompt` has a message by `{message.get('role')}`",
                    hint="a question consists of `system` and `user` messages",
                )
        prompt = "\n\n".join(message["content"] for message in prompt)
    if not isinstance(prompt, str) or not prompt.strip():
        raise DataError("`prompt` is neither text nor a list of messages, or it is empty")
    return prompt
