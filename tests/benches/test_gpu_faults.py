"""The GPU bench fails where it should, keeps what it has, and says what it did not find out."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from r1ci_engine.kernels.dispatch import force_backend

FOLDER = Path(__file__).parent
BENCHES = FOLDER.parents[1] / "benches"
sys.path.insert(0, str(BENCHES))
try:
    import gpu_check_head
    import gpu_check_rows
    import gpu_checks
    import gpu_measure
finally:
    sys.path.remove(str(BENCHES))  # there are names in it that tests have too

Outcome = tuple[subprocess.CompletedProcess[str], dict[str, Any]]


def run(folder: Path, script: Path, *arguments: str) -> Outcome:
    path = folder / "gpu.json"
    command = [sys.executable, script, *arguments, "--self-check", "--json", path]
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert path.exists(), done.stderr
    return done, json.loads(path.read_text())


def run_with(fault: str, folder: Path, *arguments: str) -> Outcome:
    return run(folder, FOLDER / "gpu_faults.py", fault, *arguments)


@pytest.mark.parametrize(
    ("fault", "check", "left_out"),
    [
        ("wrong_gate", "swiglu, 37 rows, result", {"rows"}),
        ("wrong_entropy", "tiny, gspo: entropy rms", {"operator"}),
        ("no_temperature", "tiny, one chunk: log-prob rms", {"operator"}),
        ("rounded_slope", "tiny, clipped: dhidden by the loss's slope", {"operator"}),
        ("wrong_row_stats", "row_stats, 33 rows: log-prob max", {"operator", "rows"}),
    ],
)
def test_a_wrong_kernel_fails_its_check_and_what_is_built_on_it_is_not_timed(
    fault: str, check: str, left_out: set[str], tmp_path: Path
) -> None:
    done, report = run_with(fault, tmp_path)
    assert done.returncode == 1 and "checks failed" in done.stderr
    assert any(name.startswith(check) for name in report["failed"])
    assert "FAILED" in done.stdout
    assert ("cases" in report, "rows" in report) == (
        "operator" not in left_out,
        "rows" not in left_out,
    )
    assert report["ceilings"]["products"] and report["invariance"]
    assert {left["what"] for left in report["left_out"]} & {"operator", "rows"} == left_out
    assert "WARNING: " in done.stdout and report["failed"][0] in done.stdout


def test_wrong_kernels_are_timed_where_asked_and_the_run_still_fails(tmp_path: Path) -> None:
    parts = ("--only", "checks", "operator")
    done, report = run_with("wrong_gate", tmp_path, "--despite-failures", *parts)
    assert done.returncode == 1 and report["despite_failures"]
    assert len(report["cases"]) == 3
    assert ": met, but checks failed" in done.stdout and ": met\n" not in done.stdout


def test_a_contender_without_memory_stays_in_the_results(tmp_path: Path) -> None:
    done, report = run_with("no_memory_for_plain", tmp_path, "--only", "operator")
    assert done.returncode == 0, done.stderr
    assert len(report["cases"]) == 3
    for case in report["cases"]:
        assert case["results"]["full logits, step"]["failure"] == "out of memory"
        assert case["results"]["full logits, step"]["ms"] is None
        assert case["results"]["one pass"]["ms"] > 0
        assert case["beside"]["one pass"]["full logits, step"] is None
    assert "WARNING: kernels were not checked in this run" in done.stdout
    assert ": met, but not checked" in done.stdout and ": met\n" not in done.stdout


def test_a_check_without_memory_is_not_made_and_not_good(tmp_path: Path) -> None:
    done, report = run_with("no_memory_for_checks", tmp_path, "--only", "checks", "operator")
    assert done.returncode == 0, done.stderr
    assert report["not_made"] == ["tiny log-prob"] and report["failed"] == []
    (left,) = (x for x in report["left_out"] if x["what"] == "check of tiny log-prob")
    assert left["reason"] == "out of memory" and not left["failed"]
    assert "WARNING: checks not made: tiny log-prob" in done.stdout
    assert ": met, but not all was checked" in done.stdout


def test_our_own_failing_while_it_is_timed_is_not_taken_for_a_good_run(tmp_path: Path) -> None:
    done, report = run_with("lost_in_one_pass", tmp_path, "--only", "operator")
    assert done.returncode == 1 and "failed: tiny one pass at 64 tokens" in done.stderr
    assert "WARNING: failed while it was timed: tiny one pass at 64 tokens" in done.stdout
    case = report["cases"][0]
    assert case["results"]["one pass"]["ms"] is None and case["results"]["two passes"]["ms"] > 0
    done, report = run_with("lost_in_all_timings", tmp_path, "--only", "operator", "rows")
    assert done.returncode == 1 and "failed: tiny head at 64 tokens" in done.stderr
    assert "failed: row_stats forward" in done.stderr and report["cases"] == []


def test_plain_kernels_on_a_gpu_meet_no_target(tmp_path: Path) -> None:
    done, _ = run_with("torch_on_cuda", tmp_path, "--only", "checks", "operator")
    assert "WARNING: kernels are of `torch`, not Triton's" in done.stdout
    assert "but not of Triton's kernels" in done.stdout and ": met\n" not in done.stdout


def test_a_part_that_ends_early_costs_no_other(tmp_path: Path) -> None:
    done, report = run_with("lost_device", tmp_path, "--only", "operator", "rows")
    assert done.returncode == 1 and "failed: the rest of operator" in done.stderr
    (left,) = report["left_out"]
    assert left["what"] == "the rest of operator" and "illegal memory access" in left["reason"]
    assert report["rows"]


def test_wheels_in_a_folder_can_be_measured_without_installing(tmp_path: Path) -> None:
    wheel = tmp_path / "liger_kernel-9.9-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("liger_kernel/__init__.py", "")
        archive.writestr("liger_kernel-9.9.dist-info/METADATA", "Name: liger_kernel\nVersion: 9.9")
    wanted = ("--only", "operator", "--peers", str(tmp_path))
    done, report = run(tmp_path, BENCHES / "gpu.py", *wanted)
    assert done.returncode == 0, done.stderr
    peers = {peer["name"]: peer["why_not"] for peer in report["peers"]}
    assert peers["Liger GRPO"] == "needs a GPU" and "not importable" in peers["QuACK cross-entropy"]


# Each check alone. A fault takes the right function, how wrong to be, and the arguments.


class Turned(torch.autograd.Function):
    """A tensor as it is, with another gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.change = change
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        return ctx.change(*slopes), None


def noisy(x: Tensor, by: float) -> Tensor:
    """Every second element too large, the others too small."""
    factor_M = torch.full((x.numel(),), 1 + by)
    factor_M[::2] = 1 - by
    return (x.float() * factor_M.view(x.shape)).to(x.dtype)


def spike(x: Tensor, by: float) -> Tensor:
    return torch.cat((x[:1], x[1:2] + by, x[2:]))


def entering(head: Any) -> Tensor:
    weight_T = head[3] if isinstance(head[3], Tensor) else head[3].weight_N
    return weight_T != 0


def loss(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    tokens = head[3]
    crossed = isinstance(tokens, Tensor)
    size = tokens.sum() if crossed else (tokens.weight_N * tokens.advantage_N.abs()).sum()
    return result._replace(loss=result.loss + by * size)


def all_logprobs(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(logprob_T=result.logprob_T + by * entering(head))


def all_entropies(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(entropy_T=result.entropy_T - by * entering(head))


def one_logprob(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(logprob_T=spike(result.logprob_T, -by))


def one_entropy(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(entropy_T=spike(result.entropy_T, by))


def dhidden(right: Any, by: float, *head: Any, **options: Any) -> Any:
    return right(Turned.apply(head[0], partial(noisy, by=by)), *head[1:], **options)


def dweight(right: Any, by: float, *head: Any, **options: Any) -> Any:
    return right(head[0], Turned.apply(head[1], partial(noisy, by=by)), *head[2:], **options)


def dbias(right: Any, by: float, *head: Any, bias_V: Tensor, **options: Any) -> Any:
    return right(*head, bias_V=Turned.apply(bias_V, partial(noisy, by=by)), **options)


def slope(right: Any, by: float, *head: Any, **options: Any) -> Any:
    """Wrong unless it is 1."""
    result = right(*head, **options)
    return result._replace(loss=Turned.apply(result.loss, lambda x: x * (1 + by * (x != 1))))


def masked_gradient(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(loss=result.loss + by * head[0][~entering(head)].float().sum())


def masked_logprob(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(logprob_T=result.logprob_T + by * ~entering(head))


# Three that read masked rows and multiply by 0.


def reads_for_logprob(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(logprob_T=result.logprob_T + by * head[0].detach().float().sum(1))


def reads_for_dhidden(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(loss=result.loss + by * head[0].float().square().sum())


def reads_for_dweight(right: Any, by: float, *head: Any, **options: Any) -> Any:
    result = right(*head, **options)
    return result._replace(loss=result.loss + by * (head[0] @ head[1][0]).float().sum())


# Log-probabilities, entropies and their gradients.


def another_time(right: Any, by: float, *head: Any, calls: Any, **options: Any) -> Any:
    logprob_T, entropy_T = right(*head, **options)
    return logprob_T + by * next(calls), entropy_T


def by_chunking(right: Any, by: float, *head: Any, chunk_bytes: int | None) -> Any:
    logprob_T, entropy_T = right(*head, chunk_bytes=chunk_bytes)
    return spike(logprob_T, by / 2 if chunk_bytes is None else -by / 2), entropy_T


def leaking(right: Any, by: float, *head: Any, **options: Any) -> Any:
    """To each row a little of the gradient of the next one."""
    leak_T = by * head[0].float().roll(1, 0).sum(1)
    logprob_T, entropy_T = right(*head, **options)
    return logprob_T + leak_T - leak_T.detach(), entropy_T


def logprob(right: Any, by: float, *rows: Any) -> Any:
    logprob_T, *others = right(*rows)
    return logprob_T + by, *others


def entropy(right: Any, by: float, *rows: Any) -> Any:
    logprob_T, entropy_T, *others = right(*rows)
    return logprob_T, entropy_T - by, *others


def gradient(right: Any, by: float, logits_TV: Tensor, *rows: Any) -> Any:
    return right(Turned.apply(logits_TV, lambda x: x * (1 + by)), *rows)


def last_rows(right: Any, by: float, *rows: Any) -> Any:
    """Wrong where offsets are largest."""
    found = right(*rows)
    end = noisy(found[-8:], by)
    return torch.cat((found[:-8], found[-8:] + (end - found[-8:]).detach()))


# The row kernels.


def first_result(right: Any, by: float, *leaves: Any) -> Any:
    found = right(*leaves)
    first, *others = found if isinstance(found, tuple) else (found,)
    first = first + (noisy(first, by) - first).detach()
    return (first, *others) if others else first


def key_cache(right: Any, by: float, *arguments: Any) -> None:
    right(*arguments)
    arguments[-2].view(-1)[7] += by


def no_value(right: Any, by: float, *arguments: Any) -> None:
    right(*arguments[:-1], arguments[-1].clone())


TINY = gpu_measure.TINY
LONG = "row_stats, 2.50e+04 elements, "

# Name: module, checks, and how the names of these begin.
GROUPS: dict[str, tuple[Any, Callable[[Any], None], tuple[str, ...]]] = {
    "head": (
        gpu_check_head,
        lambda checks: gpu_check_head.head_operator(checks, TINY),
        ("tiny, one chunk: ", "tiny, chunks of 64: "),
    ),
    "stats": (
        gpu_check_rows,
        gpu_check_rows.row_statistics,
        ("row_stats, 33 rows: ", "row_stats, 1 rows: "),
    ),
    "long": (
        gpu_check_rows,
        lambda checks: gpu_check_rows.many_elements(checks, TINY),
        (f"{LONG}first rows: ", f"{LONG}last rows: "),
    ),
    "rows": (gpu_check_rows, lambda checks: gpu_check_rows.row_kernels(checks, TINY, 37), ("",)),
    "gates, end": (
        gpu_check_rows,
        lambda checks: gpu_check_rows.many_gates(checks, TINY),
        ("swiglu, 4.80e+03 elements, last rows: ",),
    ),
    **{
        name: (
            gpu_check_head,
            partial(gpu_check_head.whole_loss, model=TINY, name=name),
            (f"tiny, {name}: ",),
        )
        for name in gpu_check_head.LOSSES
    },
}
GROUPS["chunking"] = (*GROUPS["head"][:2], ("tiny: ",))
GROUPS["long, end"] = (*GROUPS["long"][:2], GROUPS["long"][2][1:])
GRPO, CE, LOGPROB = "linear_grpo_loss", "linear_cross_entropy", "linear_logprob"
BIAS, CROSSED = "every term, bias", "cross-entropy, frozen head"
PLAIN, DIFFER = "error / plain torch", "elements that differ"
KERNELS = (("rms_norm", 1), ("add_rms_norm", 2), ("rope", 2), ("swiglu", 1))

Row = tuple[str, str, Any, float | None, float, str]
"""Group, function, fault, how much is within the limit (None: no matter), beyond it, what fails."""

FAULTS: list[Row] = [
    ("clipped", GRPO, loss, 0.9e-3, 1.1e-3, "loss, relative error"),
    (CROSSED, CE, loss, 0.9e-3, 1.1e-3, "loss, relative error"),
    ("clipped", GRPO, all_logprobs, 0.9e-4, 1.1e-4, "log-prob rms"),
    ("clipped", GRPO, all_entropies, 0.9e-4, 1.1e-4, "entropy rms"),
    ("clipped", GRPO, one_logprob, 0.9e-3, 1.1e-3, "log-prob max"),
    ("clipped", GRPO, one_entropy, 0.9e-3, 1.1e-3, "entropy max"),
    ("clipped", GRPO, dhidden, None, 0.05, f"dhidden of the loss: {PLAIN}"),
    ("gspo", GRPO, dweight, None, 0.05, f"dweight of the loss: {PLAIN}"),
    (BIAS, GRPO, dbias, None, 0.05, f"dbias of the loss: {PLAIN}"),
    (BIAS, GRPO, slope, 0.6e-3, 1.4e-3, "dhidden by the loss's slope|dweight by the loss's slope"),
    (BIAS, GRPO, masked_gradient, None, 1e-6, "gradient and log-prob of masked rows"),
    ("gspo", GRPO, masked_logprob, None, 1e-6, "gradient and log-prob of masked rows"),
    ("gspo", GRPO, reads_for_logprob, None, 0, f"log-prob with NaN in masked rows: {DIFFER}"),
    (BIAS, GRPO, reads_for_dhidden, None, 0, f"dhidden with NaN in masked rows: {DIFFER}"),
    ("clipped", GRPO, reads_for_dweight, None, 0, f"dweight with NaN in masked rows: {DIFFER}"),
    ("head", LOGPROB, another_time, None, 4e-6, f"log-prob of a second run: {DIFFER}"),
    ("head", LOGPROB, leaking, None, 1e-4, "gradient of the other rows"),
    ("head", LOGPROB, dhidden, None, 0.05, f"dhidden: {PLAIN}|dhidden of sparse rows: {PLAIN}"),
    ("head", LOGPROB, dweight, None, 0.05, f"dweight: {PLAIN}|dweight of sparse rows: {PLAIN}"),
    ("chunking", LOGPROB, by_chunking, 0.9e-3, 1.1e-3, "log-prob by chunking"),
    ("stats", "row_stats", logprob, 0.9e-4, 1.1e-4, "log-prob max"),
    ("stats", "row_stats", entropy, 0.9e-4, 1.1e-4, "entropy max"),
    ("stats", "row_stats", gradient, 0.9e-4, 1.1e-4, "gradient, relative error"),
    ("long", "row_stats_forward", logprob, 0.9e-4, 1.1e-4, "log-prob max"),
    ("long", "row_stats_forward", entropy, 0.9e-4, 1.1e-4, "entropy max"),
    ("long, end", "row_stats_backward", last_rows, 1e-3, 6e-3, "gradient, relative error"),
    ("gates, end", "swiglu", last_rows, None, 0.02, f"result: {PLAIN}"),
    *(
        ("rows", name, fault, None, 0.02, f"{name}, 37 rows, result or gradient {at}: {PLAIN}")
        for name, results in KERNELS
        for fault, at in ((first_result, 0), (dhidden, results))
    ),
    ("rows", "kv_cache_write_", key_cache, None, 1.0, f"kv_cache_write, 37 rows, key: {DIFFER}"),
    ("rows", "kv_cache_write_", no_value, None, 1.0, f"kv_cache_write, 37 rows, value: {DIFFER}"),
]


@pytest.mark.parametrize(
    ("group", "name", "fault", "good", "bad", "found"),
    FAULTS,
    ids=[f"{group}-{name}-{fault.__name__}" for group, name, fault, *_ in FAULTS],
)
def test_a_check_fails_beyond_its_limit_and_no_other_does(
    group: str,
    name: str,
    fault: Any,
    good: float | None,
    bad: float,
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, call, begin = GROUPS[group]
    right = getattr(module, name)
    if fault is another_time:
        fault = partial(fault, calls=iter(range(99)))
    bench = gpu_measure.Bench(torch.device("cpu"), 1, gpu_measure.Clock(1e9))

    def failed(by: float) -> set[str]:
        torch.manual_seed(0)
        monkeypatch.setattr(module, name, partial(fault, right, by))
        checks = gpu_checks.Checks(bench)
        with force_backend("torch"):
            checks.run(group, call)
        assert checks.rows
        return set(checks.failed())

    if good is not None:
        assert failed(good) == set()
    assert failed(bad) == {where + check for where in begin for check in found.split("|")}


def test_a_result_may_be_as_far_off_as_the_library_and_a_gradient_as_plain_torch() -> None:
    bench = gpu_measure.Bench(torch.device("cpu"), 1, gpu_measure.Clock(1e9))
    one_T, exact_T = torch.ones(9), torch.ones(9, dtype=torch.float64)
    beyond = ["it: log-prob rms", "it: log-prob max", "it: entropy rms", "it: entropy max"]
    for times, failed in ((1.09, []), (1.11, beyond)):
        checks = gpu_checks.Checks(bench)
        errors = (2e-3 * times, 0.0, 2e-3)  # the library's own is above the limits
        ours, exact, library = ((one_T * error, one_T * -error) for error in errors)
        gpu_check_head.close(checks, "it", ours, exact, library)
        assert checks.failed() == failed
    for times, failed in ((1.09, []), (1.11, [f"it: {PLAIN}"])):
        checks = gpu_checks.Checks(bench)
        gpu_checks.compare(checks, "it", one_T + 1e-3 * times, one_T + 1e-3, exact_T)
        assert checks.failed() == failed
