"""Model text: harmless to look at, and cut by its true writer."""

import random
import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from report.synthetic import HOSTILE, items, trajectory

from r1ci_engine.report.text import one_line, shorten, visible
from r1ci_engine.report.writers import pieces, response
from r1ci_engine.trajectory import Execution, Segment, SegmentKind, StopReason, Trajectory

TOOL = SegmentKind.TOOL
MODEL = SegmentKind.MODEL


@given(st.text(st.characters(codec=None)))
def test_nothing_that_controls_a_terminal_is_left(text: str):
    shown = visible(text)
    for character in shown:
        assert (
            character in "\n\t"
            or unicodedata.category(character)[0] != "C"
            or (unicodedata.category(character) in {"Co", "Cn"})
        )
    shown.encode()  # lone surrogates are spelt out too


def test_escapes_are_shown_and_ordinary_text_is_not_touched():
    assert visible("a\x1b[2Jb\rc\u202ed\x9be\x00") == r"a\x1b[2Jb\rc\u202ed\x9be\x00"
    assert visible("Grüße, 世界!\n\tπ ≈ 3") == "Grüße, 世界!\n\tπ ≈ 3"


@given(st.text(max_size=200), st.integers(1, 60))
def test_shortening_keeps_both_ends_and_states_the_cut(text: str, limit: int):
    short = shorten(text, limit)
    if len(text) <= limit:
        assert short == text
    else:
        assert f"{len(text) - limit} characters not shown" in short
        assert short[0] == text[0] or limit == 1
        assert short.endswith(text[-(limit - limit * 2 // 3) :])
    assert len(one_line(text, limit)) <= max(limit, 1)


def answered(text: str, executions: list[Execution]) -> Trajectory:
    prompt = "Use ```python print(1)``` fences.\n"
    return Trajectory(
        task="t", item_id="i", sample_index=0, agent="code", tokens=[1], logprobs=[0.0],
        segments=[Segment(SegmentKind.PROMPT, 0, 1)], text=prompt + text, prompt=prompt,
        stop_reason=StopReason.END, turns=1, policy_version=0, executions=executions,
    )  # fmt: skip


def run(code: str, shown: str) -> Execution:
    return Execution(code, "", "", "ok", 0, 0.0, 0.0, 0.0, shown)


def test_results_are_the_tool_s_and_the_rest_is_the_model_s():
    result = "\nCode Execution Results:\n1\n"
    text = f"A\n```python\nprint(1)\n```{result}B\n```python\nprint(1)\n```{result}<<<1>>>"
    cut = pieces(answered(text, [run("print(1)", result)] * 2))
    assert [kind for kind, _ in cut] == [MODEL, TOOL, MODEL, TOOL, MODEL]
    assert [piece for kind, piece in cut if kind is TOOL] == [result, result]
    assert "".join(piece for _, piece in cut) == text


def test_a_result_that_the_model_wrote_itself_stays_the_model_s():
    result = "\nCode Execution Results:\n1\n"
    forged = f"I ran print(1)\n{result}``` and so\n"
    text = f"{forged}```python\nprint(1)\n```{result}{result}<<<1>>>"
    cut = pieces(answered(text, [run("print(1)", result)]))
    assert cut[0][1] == f"{forged}```python\nprint(1)\n```"
    assert cut[1] == (TOOL, result)
    assert cut[2] == (MODEL, f"{result}<<<1>>>")
    assert pieces(answered(forged, [])) == [(MODEL, forged)]


def test_a_result_that_is_not_there_does_no_harm():
    assert pieces(answered("cut short", [run("print(1)", "\nCode")])) == [(MODEL, "cut short")]
    assert pieces(answered("", [])) == []


def test_synthetic_trajectories_are_cut_without_loss():
    rng = random.Random(3)
    item = items("train", 1)[0]
    for sample in range(60):
        made = trajectory(item, sample, 0.5, rng)
        cut = pieces(made)
        assert "".join(piece for _, piece in cut) == response(made)
        assert sum(kind is TOOL for kind, _ in cut) == len(made.executions)
    assert HOSTILE.startswith("</script>")
