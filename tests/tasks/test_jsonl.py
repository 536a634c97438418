"""Questions from files: what is read, and how a fault is named."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from r1ci_engine.errors import DataError
from r1ci_engine.tasks.jsonl import JsonlTask


def write(path: Path, *records: Any) -> JsonlTask:
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    path.write_text("\n".join(lines), encoding="utf-8")
    return JsonlTask(str(path))


def test_plain_lines(tmp_path: Path) -> None:
    task = write(
        tmp_path / "sums.jsonl",
        {"prompt": "1 + 1?", "answer": 2, "check": "integer", "id": 7},
        "",
        {"prompt": "Half?", "answer": "0.5", "check": "number", "metadata": {"tolerance": 0.01}},
        {"prompt": "Capital of Peru?", "answer": "Lima", "colour": "ignored"},
    )
    first, second, third = task.items
    assert (first.prompt, first.answer, first.check) == ("1 + 1?", "2", "integer")
    assert first.id == f"{task.name}/7" and first.task == task.name
    assert second.metadata == {"tolerance": 0.01}
    assert third.check == "exact" and third.id != second.id


def test_verl_columns(tmp_path: Path) -> None:
    (item,) = write(
        tmp_path / "verl.jsonl",
        {
            "data_source": "gsm8k",
            "prompt": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "1 + 1?"},
            ],
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"index": 3},
            "ability": "math",
        },
    ).items
    assert item.prompt == "Be brief.\n\n1 + 1?" and item.answer == "2"
    assert item.metadata == {"data_source": "gsm8k", "extra_info": {"index": 3}}


GOOD = {"prompt": "1 + 1?", "answer": "2"}


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[1, 2]", "line 2 is a JSON list"),
        ({"answer": "2"}, "line 2: no field `prompt`"),
        ({"prompt": "?"}, "line 2: no field `answer`"),
        ({"prompt": "", "answer": "2"}, "line 2: `prompt` is neither"),
        ({"prompt": 5, "answer": "2"}, "line 2: `prompt` is neither"),
        ({"prompt": [], "answer": "2"}, "line 2: `prompt` is neither"),
        ({"prompt": ["hi"], "answer": "2"}, "line 2: `prompt` has a message without"),
        ({"prompt": [{"role": "tool", "content": "x"}], "answer": "2"}, "line 2: .* by `tool`"),
        ({"prompt": "?", "answer": ["2"]}, "line 2: `answer` is"),
        ({"prompt": "?", "answer": True}, "line 2: `answer` is `True`"),
        ({"prompt": "?", "answer": None}, "line 2: .* has no answer"),
        ({"prompt": "?", "answer": "2", "check": "magic"}, "line 2: .* unknown check `magic`"),
        ({"prompt": "?", "answer": "two", "check": "integer"}, "line 2: .* is no answer for"),
        ({"prompt": "?", "answer": "2", "metadata": 3}, "line 2: `metadata` is a int"),
        ({"prompt": "?", "reward_model": {"style": "rule"}}, "line 2: .* no `ground_truth`"),
        ({"prompt": "?", "answer": "2", "check": "reasoning_gym"}, "line 2: .* not its metadata"),
        (
            {"prompt": "?", "answer": "", "check": "reasoning_gym", "metadata": {"dataset": []}},
            "line 2: .* not its metadata",
        ),
    ],
)
def test_faults_name_file_and_line(tmp_path: Path, bad: Any, message: str) -> None:
    task = write(tmp_path / "bad.jsonl", GOOD, bad)
    with pytest.raises(DataError, match=message) as caught:
        task.generate(2, 0)
    assert "bad.jsonl" in caught.value.message


def test_repeated_id(tmp_path: Path) -> None:
    task = write(tmp_path / "a.jsonl", {**GOOD, "id": "x"}, {**GOOD, "prompt": "?", "id": "x"})
    with pytest.raises(DataError, match=r"line 2: id `.*x` occurs twice"):
        task.generate(1, 0)


def test_the_same_question_with_another_answer_names_both_lines(tmp_path: Path) -> None:
    for other in ({**GOOD, "answer": "3", "id": "x"}, {**GOOD, "check": "integer"}):
        task = write(tmp_path / "a.jsonl", GOOD, {**GOOD, "prompt": "?"}, other | {"id": "b"})
        with pytest.raises(DataError, match=r"lines 1 and 3 ask the same and want `'2'` \(exact\)"):
            task.generate(1, 0)


def test_the_same_question_and_answer_again_is_left_out_and_counted(tmp_path: Path) -> None:
    again = {"prompt": " 1  + 1? ", "answer": 2, "id": 9}
    task = write(tmp_path / "a.jsonl", GOOD, again, GOOD, {**GOOD, "prompt": "?"})
    assert [item.prompt for item in task.items] == ["1 + 1?", "?"]
    assert task.about == "2 questions from a file, 2 repeats left out"


@pytest.mark.parametrize("tolerance", [-1, "-0.5", "wide", [1], None])
def test_a_bad_tolerance_is_what_is_blamed(tolerance: Any, tmp_path: Path) -> None:
    bad = {**GOOD, "check": "number", "metadata": {"tolerance": tolerance}}
    with pytest.raises(DataError, match=r"line 1: item .* has tolerance `.*`") as caught:
        write(tmp_path / "a.jsonl", bad).generate(1, 0)
    assert caught.value.hint == "a tolerance is a number of at least zero"


def test_what_is_no_file_is_named_for_what_it_is(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "device.jsonl").symlink_to("/dev/zero")
    for kind in ("pipe", "folder", "device"):
        with pytest.raises(DataError, match=f"{kind}.jsonl`: it is a {kind}, not a file"):
            JsonlTask(str(tmp_path / f"{kind}.jsonl")).generate(1, 0)
    with pytest.raises(DataError, match="cannot read"):
        JsonlTask("a\0b.jsonl").generate(1, 0)


def test_empty_and_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no questions"):
        write(tmp_path / "empty.jsonl", "\n").generate(1, 0)
    with pytest.raises(DataError, match="cannot read"):
        JsonlTask(str(tmp_path / "none.jsonl")).generate(1, 0)


def test_order_is_drawn_from_the_seed(tmp_path: Path) -> None:
    records = [{"prompt": f"{n}?", "answer": str(n)} for n in range(50)]
    task = write(tmp_path / "many.jsonl", *records)
    assert task.generate(50, 1) == task.generate(50, 1) != task.generate(50, 2)
    assert task.generate(10, 1) == task.generate(50, 1)[:10]
    assert len(task.generate(99, 1)) == 50
