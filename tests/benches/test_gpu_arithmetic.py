"""What the GPU bench computes from its timings: floors, memory, verdicts, several runs as one."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHES = Path(__file__).parents[2] / "benches"
sys.path.insert(0, str(BENCHES))
try:
    import gpu
    import gpu_cases
    import gpu_ceilings
    import gpu_checks
    import gpu_measure
    import gpu_verdicts
finally:
    sys.path.remove(str(BENCHES))  # there are names in it that tests have too

MODES = ("one pass", "two passes", "log-prob only")
GIB = 2**30


@pytest.fixture
def bench() -> Any:
    return gpu_measure.Bench(torch.device("cpu"), 3, gpu_measure.Clock(1e9))


@pytest.mark.parametrize(
    ("model", "expected"),
    [("3B", (76.7, 102, 25.6)), ("7B", (134, 179, 44.8)), ("14B", (192, 256, 63.9))],
)
def test_the_floor_is_that_of_the_products_at_the_square_ones_rate(
    model: str, expected: tuple[float, ...]
) -> None:
    (shape,) = (m for m in gpu_measure.MODELS if m.name == model)
    floors = gpu_cases.design_floors(798.0, 32_768, shape.D, shape.V)
    assert [floors[mode] for mode in MODES] == pytest.approx(expected, rel=5e-3)
    assert set(gpu_cases.design_floors(None, 1, 1, 1).values()) == {None}


def test_the_own_floor_is_that_of_all_chunks() -> None:
    ms: dict[str, float | None] = {
        "product logits": 1.0,
        "product dhidden": 2.0,
        "product dweight": 4.0,
    }
    floors = gpu_cases.own_floors(ms, 2.5)
    assert floors == {"one pass": 17.5, "two passes": 20.0, "log-prob only": 2.5}
    assert set(gpu_cases.own_floors({**ms, "product dhidden": None}, 2.5).values()) == {None}


def test_memory_is_counted_beyond_the_rows_gradient_and_the_heads_sum() -> None:
    T, D, V = 4096, 1024, 2**18  # rows 8 MiB, the head 1 GiB in fp32
    peak = 3.0

    def extra(name: str, size: int = 2) -> float | None:
        return gpu_cases.extra(peak, name, T, D, V, size)

    assert extra("one pass") == extra("two passes") == 3 - 1 - 8 / 1024
    assert extra("one pass", 4) == 3 - 1 - 16 / 1024
    assert extra("full logits, step") == 3 - 0.5 - 8 / 1024
    assert extra("log-prob only") == 3
    assert gpu_cases.extra(None, "one pass", T, D, V, 2) is None


def case_of(tokens: int, extra: float | None, **other: Any) -> dict[str, Any]:
    good = {"ms": 1.0, "failure": None}
    timed = {"parts": {"product logits": good}, "results": dict.fromkeys(MODES, good)}
    about = {"model": "7B", "tokens": tokens, "extra_gib": dict.fromkeys(MODES, extra)}
    return about | timed | other


@pytest.mark.parametrize(
    ("few", "many", "equal"), [(1.0, 1.04, True), (1.0, 1.06, False), (1.06, 1.0, False)]
)
def test_memory_is_compared_between_fewest_and_most_tokens(
    few: float, many: float, equal: bool
) -> None:
    cases = [case_of(64, 9.0), case_of(128, many), case_of(32, few)]
    lines = gpu_cases.memory_lines(cases)
    assert [line["mode"] for line in lines] == list(MODES)
    for line in lines:
        assert (line["few"], line["extra_few_gib"]) == (32, few)
        assert (line["many"], line["extra_many_gib"]) == (128, many)
        assert line["equal"] is equal and line["most_gb"] == pytest.approx(9 * GIB / 1e9)
    assert gpu_cases.memory_lines([case_of(32, 1.0), case_of(64, None)]) == []


def test_others_are_compared_by_their_time_over_ours() -> None:
    ms: dict[str, float | None] = {
        "one pass": 2.0,
        "two passes": 4.0,
        "log-prob only": 1.0,
        "full logits, step": 8.0,
        "full logits, log-prob": 3.0,
        "torch.compile, step": None,
        "torch.compile, log-prob": 5.0,
        "Liger GRPO": 16.0,
        "copy": 7.0,
    }
    assert gpu_cases.beside(ms) == {
        "one pass": {"full logits, step": 4.0, "torch.compile, step": None, "Liger GRPO": 8.0},
        "two passes": {"full logits, step": 2.0, "torch.compile, step": None, "Liger GRPO": 4.0},
        "log-prob only": {"full logits, log-prob": 3.0, "torch.compile, log-prob": 5.0},
    }


def test_time_that_a_case_may_need_knows_slow_peers() -> None:
    model = gpu_measure.MODELS[-1]
    without = gpu_cases.estimate(model, 32_768, 7, [])
    assert gpu_cases.estimate(model, 131_072, 7, []) > without
    # Two products of it run in fp32, at about 50 TFLOP/s: 2 s a call here.
    slow = gpu_cases.estimate(model, 32_768, 3, ["Liger GRPO"]) - gpu_cases.estimate(
        model, 32_768, 3, []
    )
    assert 2 * 5 < slow < 4 * 5
    with_compiler = gpu_cases.estimate(model, 32_768, 7, ["torch.compile, step"])
    assert with_compiler > without + 10


def test_the_compiler_is_measured_at_every_shape(bench: Any) -> None:
    import torch._dynamo.config

    once = bench._replace(rounds=1)
    # Set and taken back by hand, these settings would be gone for every later test.
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True, recompile_limit=2):
        for T in (16, 32, 48, 64):
            case = gpu_cases.run_case(gpu_measure.TINY, T, once, [gpu_cases.COMPILED])
            assert case["results"][gpu_cases.COMPILED]["failure"] is None


def test_a_contender_that_fails_stays_and_the_others_go_on(bench: Any) -> None:
    calls = {"late": 0, "slow": 0, "good": 0}

    def late() -> None:
        calls["late"] += 1
        if calls["late"] > 3:  # once to compile, once for its memory, once timed
            raise RuntimeError("gone\nfor good")

    def never() -> None:
        raise torch.OutOfMemoryError("tried to allocate 60.00 GiB")

    def good() -> None:
        calls["good"] += 1

    results = gpu_measure.measure({"late": late, "never": never, "good": good}, bench)
    assert results["never"]["failure"] == "out of memory" and results["never"]["ms"] is None
    assert results["late"]["failure"] == "RuntimeError: gone" and results["late"]["ms"] > 0
    assert results["good"]["failure"] is None and results["good"]["ms"] > 0
    assert calls["late"] == 4 and calls["good"] == 2 + bench.rounds


def test_a_slow_contender_is_not_timed_in_every_round(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_measure, "_time", lambda call, repeats, bench: call())
    calls = {"slow": 0, "fast": 0}

    def timed(name: str, ms: float) -> float:
        calls[name] += 1
        return ms

    contenders = {"slow": lambda: timed("slow", 900.0), "fast": lambda: timed("fast", 1.0)}
    gpu_measure.measure(contenders, bench._replace(rounds=7))
    assert calls["fast"] - calls["slow"] == 4


def test_a_lost_device_does_not_stop_the_run(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def empty_cache() -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)
    monkeypatch.setattr(gpu_measure.Bench, "on_gpu", property(lambda self: True))
    with gpu_measure.guarded("this", bench):
        empty_cache()
    (left,) = bench.clock.left_out
    assert left["what"] == "this" and "device-side assert" in left["reason"]
    checks = gpu_checks.Checks(bench)
    checks.run("kernel", lambda checks: empty_cache())
    assert "device-side assert" in checks.failed()[0]


def test_a_check_is_good_only_within_its_limit(bench: Any) -> None:
    checks = gpu_checks.Checks(bench)
    assert not checks.good()  # nothing was checked
    checks.at_most("seen", 7.0, None)
    checks.at_most("within", 1.0, 1.0)
    assert checks.good()
    checks.at_most("beyond", 1.1, 1.0)
    checks.at_most("nan", math.nan, 1.0)
    checks.same("bits", torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]))
    assert checks.failed() == ["beyond", "nan", "bits: elements that differ"] and not checks.good()


def test_a_check_that_cannot_be_made_is_told_from_one_that_fails(bench: Any) -> None:
    checks = gpu_checks.Checks(bench)

    def raising(error: Exception) -> Any:
        def check(checks: Any) -> None:
            raise error

        return check

    checks.run("big", raising(torch.OutOfMemoryError("tried to allocate 60.00 GiB")))
    checks.run("bigger", raising(gpu_checks.NotMade("needs 90 GiB")))
    assert checks.not_made == ["big", "bigger"] and not checks.failed() and not checks.good()
    checks.run("broken", raising(RuntimeError("no such kernel")))
    assert checks.failed() == ["broken: RuntimeError: no such kernel"]
    reasons = [left["reason"] for left in bench.clock.left_out]
    assert reasons == ["out of memory", "needs 90 GiB"]


def test_a_comparison_needs_an_exact_side_and_an_inexact_one(bench: Any) -> None:
    exact = torch.tensor([1.0, 3.0], dtype=torch.float64)
    near, far = exact.float() + 1e-3, exact.float() + 2e-3
    checks = gpu_checks.Checks(bench)
    gpu_checks.compare(checks, "better", near, far, exact)
    assert checks.good()
    gpu_checks.compare(checks, "worse", far, near, exact)
    assert len(checks.failed()) == 1
    for plain, true in ((exact, exact), (near, exact * 0)):
        with pytest.raises(ValueError, match="nothing is proved"):
            gpu_checks.compare(checks, "empty", near, plain, true)


def test_new_tensors_are_poisoned_while_checks_are_made() -> None:
    with gpu_measure.poisoned():
        assert torch.empty(3).isnan().all()
    assert not torch.are_deterministic_algorithms_enabled()


def test_split_k_is_off_only_inside() -> None:
    matmul: Any = torch.backends.cuda.matmul

    def settings() -> tuple[str, bool, bool]:
        return (
            torch.backends.cuda.preferred_blas_library().name,
            matmul.allow_bf16_reduced_precision_reduction,
            matmul.allow_bf16_reduced_precision_reduction_split_k,
        )

    before = settings()
    with pytest.raises(KeyError), gpu_ceilings.without_split_k():
        assert settings() == ("Cublaslt", False, False)  # under cuBLAS torch refuses it
        raise KeyError
    assert settings() == before and before[2]


def test_the_commit_is_known_without_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_ask", lambda *command: "")
    monkeypatch.delenv("R1CI_COMMIT", raising=False)
    assert gpu.machine(torch.device("cpu"))["commit"] == "unknown"
    monkeypatch.setenv("R1CI_COMMIT", "cafe123")
    assert gpu.machine(torch.device("cpu"))["commit"] == "cafe123"


def report_of(**other: Any) -> dict[str, Any]:
    """A report of one 7B case where ours meets every target but is slower than Liger's."""
    case = case_of(
        32_768,
        1.5,
        ratios={"one pass": 1.2, "two passes": 9.0, "log-prob only": 1.26},
        beside={"one pass": {"full logits, step": 1.5, "Liger GRPO": 0.9}},
    )
    case["extra_gib"]["full logits, step"] = 60.0
    memory = [
        {"model": "7B", "mode": "one pass", "few": 8192, "many": 131_072, "most_gb": 2.0}
        | {"extra_few_gib": 1.8, "extra_many_gib": 1.8, "equal": True},
        {"model": "7B", "mode": "two passes", "few": 8192, "many": 131_072, "most_gb": 2.001}
        | {"extra_few_gib": 1.8, "extra_many_gib": 1.5, "equal": False},
    ]
    good = {"check": "rope", "value": 1.0, "limit": 1.1, "good": True}
    return {
        "machine": {"device": "H100", "date": "2026-11-23", "commit": "abc"},
        "parts": ["checks", "operator"],
        "despite_failures": False,
        "targets": gpu_verdicts.TARGETS,
        "seed": 1,
        "seconds": 10.0,
        "left_out": [],
        "checks": [good],
        "failed": [],
        "not_made": [],
        "cases": [case],
        "memory": memory,
    } | other


def test_verdicts_are_those_of_the_design() -> None:
    report = report_of()
    assert gpu_verdicts.doubts(report) == []
    assert [(what, verdict) for what, _, _, verdict in gpu_verdicts.verdicts(report)] == [
        ("7B, one pass: times the floor", "met"),
        ("7B, log-prob only: times the floor", "MISSED"),
        ("7B, one pass: time of full logits, step over ours", "met"),
        ("7B, one pass: time of Liger GRPO over ours", "MISSED"),
        ("7B, one pass: memory of full logits over ours", "met"),
        ("7B, one pass: GB beyond gradients", "met"),
        ("7B, one pass: GiB at 8,192 and 131,072 tokens", "met"),
        ("7B, two passes: GB beyond gradients", "MISSED"),
        ("7B, two passes: GiB at 8,192 and 131,072 tokens", "MISSED"),
    ]
    report["cases"][0]["extra_gib"]["full logits, step"] = 1.5 * 24.9
    assert gpu_verdicts.verdicts(report)[4][1:] == ("24.9", "at least 25", "MISSED")


def test_no_verdict_stands_without_its_doubt() -> None:
    unchecked = report_of()
    for part in ("checks", "failed", "not_made"):
        del unchecked[part]
    for report, doubt, short in (
        (unchecked, "kernels were not checked in this run", "not checked"),
        (report_of(checks=[]), "no check could be made", "not checked"),
        (report_of(failed=["rope"]), "1 checks failed", "checks failed"),
        (report_of(not_made=["14B"]), "checks not made: 14B", "not all was checked"),
    ):
        assert gpu_verdicts.doubts(report)[0].startswith(doubt)
        assert all(v[3].endswith(f", but {short}") for v in gpu_verdicts.verdicts(report))


def test_what_of_ours_failed_is_told_from_what_was_left_out_or_is_anothers() -> None:
    def result(failure: str | None) -> dict[str, Any]:
        return {"ms": None, "failure": failure}

    report = report_of(
        left_out=[
            {"what": "slow", "reason": "it takes long", "failed": False},
            {"what": "14B head", "reason": "out of memory", "failed": True},
        ],
        rows=[{"kernel": "rope", "half": "forward", "results": {"ours": result("gone")}}],
        odd={"results": {"151665": result("gone"), "152064": result(gpu_verdicts.NO_TIME)}},
    )
    (case,) = report["cases"]
    case["results"] = {"one pass": result("gone"), "full logits, step": result("out of memory")}
    case["results"]["two passes"] = result(gpu_verdicts.NO_TIME)
    case["parts"] = {"rows forward": result("gone")}
    failed = [
        "14B head",
        "7B rows forward at 32,768 tokens",
        "7B one pass at 32,768 tokens",
        "rope forward",
        "a vocabulary of 151665",
    ]
    assert gpu_verdicts.failures(report) == failed
    assert gpu_measure._Series().result()["failure"] == gpu_verdicts.NO_TIME
    assert gpu_verdicts.doubts(report) == [f"failed while it was timed: {'; '.join(failed)}"]
    case["ratios"]["one pass"] = None
    assert gpu_verdicts.verdicts(report)[0] == (
        "7B, one pass: times the floor",
        "-",
        "at most 1.20",
        "MISSED",
    )


def test_a_later_report_adds_to_an_earlier_one_and_loses_no_failed_check() -> None:
    bad = {"check": "swiglu", "value": 2.0, "limit": 1.1, "good": False}
    first = report_of(checks=[bad], failed=["swiglu"], parts=["checks"])
    for part in ("cases", "memory"):
        del first[part]
    second = report_of(parts=["operator"], despite_failures=True, seed=2)
    for part in ("checks", "failed", "not_made"):
        del second[part]
    merged = gpu_verdicts.merge([first, second])
    assert merged["failed"] == ["swiglu"] and merged["cases"] == second["cases"]
    assert merged["parts"] == ["checks", "operator"] and merged["despite_failures"]
    assert merged["seconds"] == 20.0 and merged["seed"] == "1 and 2"
    assert gpu_verdicts.doubts(merged) == [
        "1 checks failed, so figures are of wrong results: swiglu"
    ]
    third = report_of(machine=first["machine"] | {"commit": "def"})
    for merged in (gpu_verdicts.merge([first, second, third]), gpu_verdicts.merge([third, first])):
        assert merged["failed"] == ["swiglu"] and merged["cases"]
        assert "several commits" in gpu_verdicts.doubts(merged)[-1]
        json.dumps(merged)
    assert "failed" in first and first["checks"] == [bad]
