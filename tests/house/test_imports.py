"""Who imports whom: the order of rooms, and a half that stays free of torch and quick."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TORCH_FREE = [
    "r1ci_engine",
    "r1ci_engine.errors",
    "r1ci_engine.seeds",
    "r1ci_engine.config",
    "r1ci_engine.trajectory",
    "r1ci_engine.sandbox",
    "r1ci_engine.tasks",
    "r1ci_engine.curriculum",
    "r1ci_engine.report",
    "r1ci_engine.cli",
    "r1ci_engine.doctor",
]


def modules_of(room: str) -> list[str]:
    """The room and every module in it."""
    folder = ROOT / "python" / Path(*room.split("."))
    inner = sorted(folder.rglob("*.py")) if room != "r1ci_engine" and folder.is_dir() else []
    names = {".".join(path.relative_to(ROOT / "python").with_suffix("").parts) for path in inner}
    return sorted({room} | {name.removesuffix(".__init__") for name in names})


def test_rooms_import_downward_only() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    if not program.exists():
        pytest.skip("import-linter is not installed: pip install 'r1ci-engine[dev]'")
    result = subprocess.run(
        [program, "--no-logo", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("room", TORCH_FREE)
def test_the_torch_free_half_loads_no_torch(room: str) -> None:
    imports = ", ".join(modules_of(room))
    probe = (
        f"import sys, {imports}\nsys.exit(str(sorted({{'torch', 'triton'}} & set(sys.modules))))"
    )
    result = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True)
    assert result.stderr.strip() == "[]"


def test_the_torch_free_half_imports_quickly() -> None:
    imports = ", ".join(name for room in TORCH_FREE for name in modules_of(room))
    probe = f"import time, {imports}\nprint(time.process_time())"
    seconds = [
        float(subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout)
        for _ in range(3)
    ]
    # CPU time, which other work on the machine cannot use up: 0.3 s on a quiet one, torch 2 s.
    assert min(seconds) < 0.8


def test_every_module_says_what_it_is() -> None:
    """A docstring opens every file of the package, the kernels and the tests."""
    opening = re.compile(r'\A(#!.*\n)?r?"""\S')
    files = [
        path
        for folder in ("python", "kernels", "tests", "benches")
        for path in (ROOT / folder).rglob("*.py")
        if path.stat().st_size
    ]
    assert len(files) > 30
    assert [str(path) for path in files if not opening.match(path.read_text("utf-8"))] == []
