"""What users get wrong is said in words, before anything runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox import ExecutionRequest, Limits, Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=1) as started:
        yield started


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"code": b"1"}, "`code` is of type `bytes`"),
        ({"code": "1", "stdin": b""}, "`stdin`"),
        ({"code": "1", "seed": "7"}, "`seed`"),
        ({"code": "1", "limits": {}}, "`limits` is of type `dict`"),
        ({"code": "1", "files": ["a"]}, "`files`"),
        ({"code": "1", "files": {"a": "text"}}, "of type `str`"),
        ({"code": "1", "fetch": "out"}, "`fetch` is one text"),
        ({"code": "1", "fetch": [str(n) for n in range(1025)]}, "1024 files"),
    ],
)
def test_requests(sandbox: Sandbox, request_: dict[str, Any], words: str) -> None:
    with pytest.raises(SandboxError, match=words):
        sandbox.run_many([ExecutionRequest(**request_)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"required": "landlock"}, "are lists"),
        ({"workers": -1}, "`workers` is `-1`"),
        ({"work_files": 0}, "`work_files` is `0`"),
        ({"sessions": 0}, "`sessions` is `0`"),
        ({"session_idle_s": -1}, "`session_idle_s`"),
        ({"read_only": ["/nope/none"]}, "which does not exist"),
    ],
)
def test_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SandboxError, match=words):
        Sandbox(**options)


@pytest.mark.parametrize("limit", [{"threads": 2.5}, {"cpu_s": "1"}, {"memory_mb": True}])
def test_limits(limit: dict[str, Any]) -> None:
    with pytest.raises(SandboxError, match="limit `"):
        Limits(**limit)


def test_copies_keep_modes_where_the_work_folder_is_lent_by_the_kernel(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    if "own_namespaces" not in sandbox.layers:
        pytest.skip("no work folder of the kernel's here")
    code = (
        "import os, shutil\nopen('a', 'w').write('x')\nos.chmod('a', 0o600)\nshutil.copy('a', 'b')"
    )
    result = sandbox.run(code + "\nos.utime('b', (1, 1)); print(oct(os.stat('b').st_mode))")
    assert result.stdout == "0o100600\n", result.stderr
    assert sandbox.run("import os; os.chmod(os.__file__, 0o777)").exit_reason == "error"
    assert tmp_path.exists()


def test_what_processes_use_is_told_when_they_are_stopped(sandbox: Sandbox) -> None:
    if "own_namespaces" not in sandbox.layers:
        pytest.skip("no process namespaces here")
    code = "import os, time\nfor _ in range(2):\n    if os.fork() == 0:\n        while True: pass\n"
    limits = Limits(cpu_s=0.4, processes=4)
    (result,) = sandbox.run_many([ExecutionRequest(code + "time.sleep(9)", limits=limits)])
    assert result.exit_reason == "cpu_limit"
    assert result.cpu_s >= 0.4


def test_exits_are_those_of_the_interpreter(sandbox: Sandbox) -> None:
    for code, status in (("10**30", 255), ("-10**30", 255), ("2**62", 0), ("257", 1)):
        assert sandbox.run(f"import sys; sys.exit({code})").exit_code == status, code
