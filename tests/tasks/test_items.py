"""The items of a run: made once, split without overlap, read back or refused."""

import json
from pathlib import Path

import pytest

from r1ci_engine.config import TasksSection
from r1ci_engine.errors import DataError
from r1ci_engine.tasks import items as room
from r1ci_engine.tasks.items import SPLITS, prepare_items, read_items, write_items
from r1ci_engine.trajectory import Item

SECTION = TasksSection(
    train=("starter/gcd", "starter/list_sum"),
    heldout=("starter/list_min",),
    sft_items=20,
    train_items=10,
    eval_items=5,
)


def test_splits_have_their_sizes_and_share_no_prompt(tmp_path: Path) -> None:
    sets = prepare_items(SECTION, 1, tmp_path)
    assert [len(getattr(sets, split)) for split in SPLITS] == [40, 20, 10, 5]
    assert {item.task for item in sets.heldout} == {"starter/list_min"}
    assert {item.task for item in sets.sft} == set(SECTION.train)
    for split in SPLITS:
        assert {item.split for item in getattr(sets, split)} == {split}
    items = list(sets)
    assert len({item.prompt for item in items}) == len({item.id for item in items}) == len(items)


def test_a_function_of_seed_and_section(tmp_path: Path) -> None:
    first = prepare_items(SECTION, 1, tmp_path / "a")
    assert prepare_items(SECTION, 1, tmp_path / "b") == first
    other = prepare_items(SECTION, 2, tmp_path / "c")
    assert [i.prompt for i in other] != [i.prompt for i in first]


def test_measured_items_do_not_change_with_the_training_sets(tmp_path: Path) -> None:
    first = prepare_items(SECTION, 1, tmp_path / "a")
    more = SECTION.model_copy(update={"sft_items": 25, "train_items": 12})
    second = prepare_items(more, 1, tmp_path / "b")
    assert [i.prompt for i in second.heldout] == [i.prompt for i in first.heldout]
    assert [i.prompt for i in second.eval[:5]] == [i.prompt for i in first.eval[:5]]


def test_read_back_and_never_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepare_items(SECTION, 1, tmp_path)

    def fail(name: str) -> None:
        raise AssertionError(name)

    monkeypatch.setattr(room, "find_task", fail)
    assert prepare_items(SECTION, 1, tmp_path) == first


def test_unfinished_folder_is_made_again(tmp_path: Path) -> None:
    first = prepare_items(SECTION, 1, tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "train.jsonl").write_text("half a li")
    assert prepare_items(SECTION, 1, tmp_path) == first


def test_items_of_another_run_are_refused(tmp_path: Path) -> None:
    prepare_items(SECTION, 1, tmp_path)
    with pytest.raises(DataError, match="other seed: `1, not 2`"):
        prepare_items(SECTION, 2, tmp_path)
    with pytest.raises(DataError, match="other tasks: `sft_items = 20, not 21`"):
        prepare_items(SECTION.model_copy(update={"sft_items": 21}), 1, tmp_path)


def test_changed_files_are_refused(tmp_path: Path) -> None:
    prepare_items(SECTION, 1, tmp_path)
    lines = (tmp_path / "train.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match=r"train\.jsonl` is not what the run wrote"):
        prepare_items(SECTION, 1, tmp_path)
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match="cannot read"):
        prepare_items(SECTION, 1, tmp_path)
    for content in ("[]", '{"blake2b": []}', "{}"):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(DataError, match="not a manifest of items"):
            prepare_items(SECTION, 1, tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="cannot read"):
        prepare_items(SECTION, 1, tmp_path)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (TasksSection(), "no tasks are named"),
        (TasksSection(train=("starter/gdc",)), "there is no task `starter/gdc`"),
        (TasksSection(train=("starter/gcd", "starter/gcd")), "named twice"),
        (TasksSection(train=("starter/gcd",), heldout=("starter/gcd",)), "named twice"),
    ],
)
def test_bad_selections(tmp_path: Path, section: TasksSection, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_items(section, 0, tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_few_questions_and_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    records = [{"prompt": f" {n % 6}  ?", "answer": "1", "id": n} for n in range(12)]
    path.write_text("\n".join(map(json.dumps, records)))
    section = TasksSection(train=(str(path),), sft_items=2, train_items=2, eval_items=2)
    sets = prepare_items(section, 0, tmp_path / "run")
    assert sorted(i.prompt for i in sets) == [f" {n}  ?" for n in range(6)]
    section = section.model_copy(update={"sft_items": 3})
    with pytest.raises(DataError, match="has only `6` different questions, `7` are needed"):
        prepare_items(section, 0, tmp_path / "other")


def test_round_trip_and_bad_lines(tmp_path: Path) -> None:
    item = Item("t", "t/0", "∑?\n", None, "reasoning_gym", {"dataset": "gcd", "entry": {"a": [1]}})
    path = tmp_path / "x.jsonl"
    write_items(path, [item])
    assert read_items(path) == [item]
    for change, message in [
        ({"prompt": 5}, "line 1: `prompt`"),
        ({"metadata": [1]}, "line 1: `metadata`"),
        ({"check": "magic"}, "line 1: .*unknown check"),
    ]:
        path.write_text(json.dumps({**vars(item), **change}))
        with pytest.raises(DataError, match=message):
            read_items(path)
