"""What the documentation says can be typed and followed: commands parse, links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from r1ci_engine.cli import main, parse
from r1ci_engine.cli.configured import Configured

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "rust/*/README.md", "benches/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
OTHER_PROGRAMS = {
    "cargo",
    "cd",
    "curl",
    "git",
    "pip",
    "python",
    "python3",
    "apt-get",
    "source",
    "export",
}


def commands(page: Path) -> list[str]:
    """The commands of a page's bash blocks, continuation lines joined, comments gone."""
    found = []
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text("utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(shlex.join(words))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_can_be_typed(
    page: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))
    for command in commands(page):
        words = shlex.split(re.split(r"\s[|>]|&&", command)[0])
        while words and re.fullmatch(r"\w+=\S*", words[0]):
            words = words[1:]
        program = Path(words[0]).name
        if program == "make":
            targets = [word for word in words[1:] if "=" not in word]
            assert set(targets) <= verbs, command
        elif program == "r1ci-engine":
            verb, _ = parse(words[1:])
            if isinstance(verb, Configured) and not verb.files:
                assert main([*words[1:], "--dry-run"]) == 0, command
        else:
            assert program in OTHER_PROGRAMS, f"{command}: add the program to this test"
    capsys.readouterr()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [target for target in targets if not re.match(r"[a-z]+:|#", target)]
    missing = [target for target in local if not (page.parent / target.split("#")[0]).exists()]
    assert missing == []


def test_there_is_a_readme() -> None:
    assert ROOT / "README.md" in PAGES
    assert commands(ROOT / "README.md")


def test_python_of_the_readme_runs() -> None:
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S
    )
    expected = ("137846528820 ok", "21 True\n" * 3, "torch.Size([100, 32]) True")
    for block, printed in zip(blocks, expected, strict=True):
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert printed in done.stdout
