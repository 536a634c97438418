"""Every Triton kernel compiles ahead of time and stays within kernels/budget.json."""

import copy
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r1ci_engine.kernels.dispatch import HAS_TRITON

BUDGET = Path(__file__).parents[2] / "kernels" / "budget.json"
SHARED_LIMIT = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10}


def complaints(found: dict[str, Any], budget: dict[str, Any]) -> list[str]:
    """Where `found` is not what `budget` says; of another compiler it only has to be possible.

    Less than the budget is told too, or the way back up would not be seen.
    """
    same_compiler = found["triton"] == budget["triton"]
    used, allowed = entries(found), entries(budget)
    wrong = [f"{case}: not in the budget" for case in used.keys() - allowed.keys()]
    wrong += [f"{case}: in the budget, but not launched" for case in allowed.keys() - used.keys()]
    for case in used.keys() & allowed.keys():
        usage, limit = used[case], allowed[case]
        if not same_compiler:
            target = case.rsplit(" ", 1)[1]
            limit = limit | {"registers": 255, "shared_bytes": SHARED_LIMIT[target]}
        if usage["spill_bytes"] or limit["spill_bytes"]:
            wrong.append(f"{case}: spills {usage['spill_bytes']} bytes")
        for part in ("registers", "shared_bytes"):
            if usage[part] > limit[part] or (same_compiler and usage[part] < limit[part]):
                wrong.append(f"{case}: {part} are {usage[part]}, the budget has {limit[part]}")
        for part in ("load_bits", "store_bits"):
            if same_compiler and usage[part] != limit[part]:
                wrong.append(f"{case}: {part} are {usage[part]}, the budget has {limit[part]}")
        if same_compiler and usage["tensor_core"] != limit["tensor_core"]:
            wrong.append(
                f"{case}: tensor core `{usage['tensor_core']}`, not `{limit['tensor_core']}`"
            )
    return sorted(wrong)


def entries(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {
        f"{kernel}, {configuration}, {target}": usage
        for kernel, configurations in report["kernels"].items()
        for configuration, targets in configurations.items()
        for target, usage in targets.items()
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    if not HAS_TRITON:
        pytest.skip("triton is not installed")
    cache = tmp_path_factory.mktemp("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(cache)}
    script = Path(__file__).with_name("compile_ahead.py")
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_kernels_stay_within_their_budget(found: dict[str, Any]) -> None:
    budget = json.loads(BUDGET.read_text())
    assert all(entries(budget).values()) and len(entries(budget)) > 20
    if found["triton"] != budget["triton"]:
        warnings.warn(
            f"the budget is of triton {budget['triton']}, this is {found['triton']}: only spills"
            " and the hardware's limits are checked",
            stacklevel=1,
        )
    assert not complaints(found, budget), "see tests/kernels/compile_ahead.py --write"


def test_every_kernel_of_the_package_is_compiled(found: dict[str, Any]) -> None:
    assert found["never_launched"] == []
    assert found["one_way_only"] == [], "a switch of a kernel was only compiled with one value"
    targets = {tuple(t) for cases in found["kernels"].values() for t in cases.values()}
    assert targets == {("sm_80", "sm_90", "sm_100")}


def test_the_row_kernels_leave_products_to_the_library(found: dict[str, Any]) -> None:
    assert {usage["tensor_core"] for usage in entries(found).values()} == {None}


def test_spills_and_tensor_cores_are_found_where_there_are_some(found: dict[str, Any]) -> None:
    usage = found["probes"]["usage"]
    product, hoarding = (usage[f"__main__.{name}"] for name in ("product", "hoarding"))
    instructions = {target: usage["tensor_core"] for target, usage in product.items()}
    assert instructions == {
        "sm_80": "mma.sync",
        "sm_90": "wgmma.mma_async",
        "sm_100": "tcgen05.mma",
    }
    assert all(usage["shared_bytes"] >= 64 << 10 for usage in product.values())
    assert all(usage["spill_bytes"] > 1000 for usage in hoarding.values())


def test_kernels_that_nothing_calls_and_switches_never_turned_are_found(
    found: dict[str, Any],
) -> None:
    assert found["probes"]["never_launched"] == ["__main__.forgotten"]
    assert found["probes"]["one_way_only"] == ["__main__.hoarding SQUARED"]


def example() -> dict[str, Any]:
    usage = {
        "registers": 40,
        "spill_bytes": 0,
        "shared_bytes": 32,
        "tensor_core": None,
        "load_bits": 128,
        "store_bits": 32,
    }
    return {"triton": "3.6.0", "kernels": {"a.forward": {"bf16 warps=8": {"sm_90": usage}}}}


def set_usage(**changes: object) -> Callable[[dict[str, Any]], None]:
    def change(report: dict[str, Any]) -> None:
        report["kernels"]["a.forward"]["bf16 warps=8"]["sm_90"].update(changes)

    return change


def add_kernel(report: dict[str, Any]) -> None:
    report["kernels"]["b.forward"] = report["kernels"]["a.forward"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (set_usage(registers=41), "registers are 41, the budget has 40"),
        (set_usage(registers=39), "registers are 39, the budget has 40"),
        (set_usage(shared_bytes=64), "shared_bytes are 64, the budget has 32"),
        (set_usage(load_bits=32), "load_bits are 32, the budget has 128"),
        (set_usage(store_bits=64), "store_bits are 64, the budget has 32"),
        (set_usage(spill_bytes=4), "spills 4 bytes"),
        (set_usage(tensor_core="wgmma.mma_async"), "tensor core `wgmma.mma_async`, not `None`"),
        (add_kernel, "b.forward, bf16 warps=8, sm_90: not in the budget"),
        (lambda report: report["kernels"].clear(), "in the budget, but not launched"),
        (lambda report: report.update(triton="9"), None),
        (set_usage(), None),
    ],
)
def test_what_leaves_the_budget_is_named(
    change: Callable[[dict[str, Any]], None], complaint: str | None
) -> None:
    found = copy.deepcopy(example())
    change(found)
    wrong = complaints(found, example())
    assert [complaint in line for line in wrong] == ([] if complaint is None else [True])


def test_another_compiler_may_differ_but_not_spill_or_pass_the_hardware() -> None:
    found = copy.deepcopy(example()) | {"triton": "9"}
    set_usage(registers=200, shared_bytes=227 << 10, tensor_core="mma.sync")(found)
    assert not complaints(found, example())
    set_usage(shared_bytes=(227 << 10) + 1, spill_bytes=8)(found)
    assert len(complaints(found, example())) == 2
