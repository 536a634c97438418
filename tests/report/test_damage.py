"""Run folders from other hands: whatever they hold, the answer is a page or a clear error."""

import copy
import io
import json
import shutil
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from report.synthetic import make_run
from rich.console import Console

from r1ci_engine.errors import DataError, R1ciError
from r1ci_engine.report.folder import RunFolder
from r1ci_engine.report.html import build_report
from r1ci_engine.report.metrics import read_metrics
from r1ci_engine.report.summary import build_summary, read_accuracies, write_summary
from r1ci_engine.report.svg import Series, line_chart
from r1ci_engine.report.terminal import ViewFilter, show_run, view

FILES = (
    "config.toml",
    "run.json",
    "summary.json",
    "metrics.jsonl",
    "curriculum.jsonl",
    "items/eval.jsonl",
    "trajectories/eval_before.jsonl",
    "trajectories/measure.jsonl",
    "trajectories/step_000001.jsonl",
)
KEPT_LINES = 6


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step, its files cut down to a few lines each, with a summary."""
    run = make_run(tmp_path_factory.mktemp("runs") / "small", until=1)
    for path in run.glob("**/*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        kept = lines[:KEPT_LINES] + [line for line in lines[KEPT_LINES:] if '"event"' in line]
        if path.name == "metrics.jsonl":
            kept = [lines[0], lines[1], lines[2], *(x for x in lines if '"grpo", "step"' in x)]
        path.write_text("".join(kept))
    rows = read_accuracies(RunFolder.open(run))
    write_summary(run / "summary.json", build_summary(rows, seconds=9, peak_rss_mb=80, steps=1))
    return run


def look(run: Path) -> None:
    """Everything that the commands do with a run folder."""
    silent = Console(file=io.StringIO(), width=120)
    readers: list[Callable[[], object]] = [
        lambda: build_report(run),
        lambda: show_run(run, silent),
        lambda: view(run, ViewFilter(step=1), silent),
        lambda: view(run, ViewFilter(phase="measure"), silent),
    ]
    for read in readers:
        try:
            read()
        except R1ciError as error:
            assert error.message
            assert len(error.message) < 2000


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value inside a value; of a long list only to its ends."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index in {0, len(value) - 1} if value else ():
            yield from places(value[index], (*path, index))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """`value` with `new` at a place; a key disappears where `new` is `GONE`."""
    if not path:
        return new
    value = copy.copy(value)
    if new is GONE and len(path) == 1:
        del value[path[0]]
    else:
        value[path[0]] = put(value[path[0]], path[1:], new)
    return value


GONE = object()
NUMBERS = st.sampled_from(
    [0, -1, 1, 3, 10**9, 2**31, 2**32, 2**64, -(2**70), 10**400, 1e300, -1e300, 5e-324, 0.5, 1.5]
) | st.floats() | st.integers()  # fmt: skip
SCALARS = st.none() | st.booleans() | NUMBERS | st.text(st.characters(codec="utf-8"), max_size=8)
VALUES = st.just(GONE) | st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=4,
)


@settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_value_at_any_place_is_shown_or_refused(
    data: st.DataObject, small_run: Path, tmp_path: Path
):
    name = data.draw(st.sampled_from(FILES))
    text = (small_run / name).read_text()
    lines = [text] if not name.endswith("l") or name.endswith("toml") else text.splitlines()
    number = data.draw(st.integers(0, len(lines) - 1))
    record = tomllib.loads(text) if name.endswith("toml") else json.loads(lines[number])
    place = data.draw(st.sampled_from(list(places(record))))
    value = data.draw(VALUES)
    if not place and value is GONE:
        value = {}
    damaged = put(record, place, value)
    if name.endswith("toml"):
        try:
            lines = [tomli_w.dumps(damaged)]
        except (TypeError, AttributeError):
            return  # TOML has no null, and no value beside tables
    else:
        lines[number] = json.dumps(damaged)
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(small_run, run)
    (run / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    look(run)


@settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.sampled_from(FILES),
    share=st.floats(0, 1),
    cut=st.integers(0, 40),
    junk=st.binary(max_size=8),
)
def test_bytes_lost_and_found_are_shown_or_refused(
    name: str, share: float, cut: int, junk: bytes, small_run: Path, tmp_path: Path
):
    run = tmp_path / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(small_run, run)
    content = (run / name).read_bytes()
    at = int(share * len(content))
    (run / name).write_bytes(content[:at] + junk + content[at + cut :])
    look(run)


def changed(run: Path, to: Path, name: str, edit: Callable[[str], str]) -> Path:
    """A copy of a run with one file edited."""
    shutil.copytree(run, to)
    before = (to / name).read_text()
    after = edit(before)
    assert after != before
    (to / name).write_text(after)
    return to


METRICS = "metrics.jsonl"
STEP = "trajectories/step_000001.jsonl"


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("config.toml", "[grpo]", "[grpo.optimizer.a]\nx = 1\n[other]", None),
        ("config.toml", 'variant = "grpo"', "variant = 3", r"config.toml`: `grpo.variant` = `3`"),
        ("config.toml", "stage_steps = [", "stage_steps = [true,", "curriculum.stage_steps.0"),
        (METRICS, '"step": 2', '"step": "2"', r"metrics.jsonl` line 3.*`step` = `'2'`"),
        (METRICS, '"step": 2', '"step": [2]', r"metrics.jsonl` line 3.*`step` = `\[2\]`"),
        (METRICS, '"loss": 0.01', '"loss": "low"', r"line 4: not a metrics line: `loss` = `'low'`"),
        (METRICS, '"phase": "sft", "step": 1,', "half a", r"metrics.jsonl` line 2 is not JSON"),
        ("summary.json", '"by_task": [', '"by_task": [3,', r"summary.json`.*`by_task.0` = `3`"),
        ("summary.json", '"split": "heldout_items"', '"split": "x"', "by_task.0.split"),
        ("run.json", '"versions": {', '"versions": [], "x": {', r"run.json`.*`versions` = `\[\]`"),
        ("curriculum.jsonl", '"potential"', '"was"', r"line 1.*`potential` is missing"),
        ("curriculum.jsonl", '"p": ', '"p": 9', r"curriculum.jsonl` line 1.*`p` = `9"),
        ("curriculum.jsonl", '"first_step"', '"first"', r"line 7: not a stage: `first_step`"),
        (STEP, '"start": 0', '"start": 1000000000', r"line 1: .*segment from `1000000000`"),
        (STEP, '"start": 0', '"start": -5', r"step_000001.jsonl` line 1: .*segment from `-5`"),
        (STEP, '"correct": ', '"correct": "yes", "was": ', "`correct` = `'yes'`"),
        (STEP, '"tokens": [', '"tokens": [-1, ', "`tokens.0` = `-1`"),
        ("items/eval.jsonl", '"task"', '"ask"', r"items/eval.jsonl` line 1.*`task` is missing"),
    ],
)
def test_a_fault_is_named_by_file_line_and_value(
    name: str, old: str, new: str, said: str | None, small_run: Path, tmp_path: Path
):
    run = changed(small_run, tmp_path / "run", name, lambda text: text.replace(old, new, 1))
    if name.startswith("items"):
        (run / "summary.json").unlink()
    if said is None:
        build_report(run)
        return
    with pytest.raises(DataError, match=said):
        build_report(run)


def test_a_section_that_is_a_number_is_named(small_run: Path, tmp_path: Path):
    run = changed(small_run, tmp_path / "run", "config.toml", lambda text: "grpo = 3\n")
    for read in (build_report, show_run):
        with pytest.raises(DataError, match=r"config.toml`: `grpo` = `3`"):
            read(run)


@pytest.mark.parametrize("content", ["[1]", "3", '{"seconds": -1}', '{"by_task": 3}'])
def test_a_summary_that_is_whole_and_wrong_is_refused(
    content: str, small_run: Path, tmp_path: Path
):
    run = changed(small_run, tmp_path / "run", "summary.json", lambda text: content)
    for read in (build_report, show_run):
        with pytest.raises(DataError, match=r"summary\.json"):
            read(run)


def test_a_folder_in_a_file_s_place_is_named(small_run: Path, tmp_path: Path):
    run = changed(small_run, tmp_path / "run", METRICS, lambda text: "")
    (run / METRICS).unlink()
    (run / METRICS).mkdir()
    with pytest.raises(DataError, match="it is a folder, not a file"):
        build_report(run)


def test_a_page_that_cannot_be_written_is_told(small_run: Path, tmp_path: Path):
    run = changed(small_run, tmp_path / "run", METRICS, lambda text: text[:-1])
    (run / "report.html").mkdir()
    with pytest.raises(DataError, match=r"cannot write `.*report.html`"):
        build_report(run)


def test_what_no_chart_can_show_is_a_gap(tmp_path: Path):
    path = tmp_path / METRICS
    path.write_text('{"phase": "sft", "step": 1, "loss": 1e200, "lr": -1e300, "n": 1e99}\n')
    (line,) = read_metrics(path)
    assert (line["loss"], line["lr"], line["n"]) == (None, None, 1e99)


@pytest.mark.parametrize(
    "values", [[1e-14, 3e-14], [5e-324, 0.0], [1e100, -1e100], [1e100, 1e100 + 1e85], [7.0, 7.0]]
)
def test_charts_of_any_size_stay_inside_their_frame(values: list[float]):
    chart = line_chart([1, 2], [Series("x", values, "red")], zero=False)
    assert "nan" not in chart and "inf" not in chart
