"""The wheel: what is in the repository is in it, and it imports where nothing else is installed.

Nearly every wrong setting for a folder reached through a link drops its files from the wheel
without a word, and one of them only from one of two wheels, so both ways to a wheel are checked.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "r1ci_engine"

# Folder of the repository, where the package has it, and what counts.
LINKED = [("kernels", "*.py"), ("recipes", "*.toml")]


def maturin(*arguments: object) -> None:
    command = [sys.executable, "-m", "maturin", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked outside the checkout as an installer would."""
    pytest.importorskip("maturin", reason="maturin is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    maturin("build", "--release", "--out", folder, "--interpreter", sys.executable)
    (wheel,) = folder.glob("*.whl")
    assert "-abi3-" in wheel.name, "one wheel serves every Python from 3.11"
    target = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def package_files() -> dict[str, bytes]:
    """Every source file that the package must bring, by its path inside the package."""
    own = (
        path
        for path in PACKAGE.rglob("*")  # does not follow links
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".so"
    )
    files = {path.relative_to(PACKAGE).as_posix(): path.read_bytes() for path in own}
    for folder, pattern in LINKED:
        linked = {f"{folder}/{path.name}": path for path in (ROOT / folder).glob(pattern)}
        assert linked, f"no `{pattern}` in `{folder}`"
        files |= {name: path.read_bytes() for name, path in linked.items()}
    return files


def test_the_links_are_relative_and_lead_to_the_real_folders() -> None:
    for folder, _ in LINKED:
        link = PACKAGE / folder
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert link.resolve() == ROOT / folder


def test_the_wheel_holds_every_file_as_it_is(installed: Path) -> None:
    expected = package_files()
    found = {
        path.relative_to(installed / "r1ci_engine").as_posix(): path.read_bytes()
        for path in (installed / "r1ci_engine").rglob("*")
        if path.is_file() and path.suffix != ".so"
    }
    assert sorted(found) == sorted(expected)
    assert found == expected


def test_the_wheel_claims_no_other_import_name(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"r1ci_engine"}


def test_it_imports_without_torch_or_anything_else(installed: Path) -> None:
    # -I and -S: no current folder, no site-packages, so neither the checkout nor numpy is in reach.
    script = f"""
import sys
sys.path.insert(0, {str(installed)!r})
import r1ci_engine, r1ci_engine._rust, r1ci_engine.errors, r1ci_engine.seeds
for module in (r1ci_engine, r1ci_engine._rust):
    assert module.__file__.startswith({str(installed)!r}), module.__file__
assert r1ci_engine._rust.pack_bins
assert "torch" not in sys.modules
"""
    command = [sys.executable, "-I", "-S", "-c", script]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_source_distribution_carries_real_files(tmp_path: Path, installed: Path) -> None:
    maturin("sdist", "--out", tmp_path)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as sdist:
        members = {member.name.split("/", 1)[1]: member for member in sdist.getmembers()}
    for name in package_files():
        member = members.get(f"python/r1ci_engine/{name}")
        assert member is not None and member.isfile(), name
