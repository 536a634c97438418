"""The sandbox's Python face: verdicts, what scripts can see, and what survives what."""

import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from r1ci_engine.config import LAYERS
from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox import (
    BENCH_SCRIPTS,
    ExecutionRequest,
    ExecutionResult,
    ExitReason,
    Limits,
    Sandbox,
    bench,
    probe,
)

LANDLOCK_CREATE_RULESET = 444
UNSHARE = 272 if platform.machine() == "x86_64" else 97


def _on_a_lesser_kernel(missing_call: int) -> str:
    """Code that makes the kernel look, to its process, as if it did not have that system call."""
    code = f"""
        import ctypes, struct
        steps = [(0x20, 0, 0, 0), (0x15, 0, 1, {missing_call}),
                 (0x06, 0, 0, 0x50000 | 38), (0x06, 0, 0, 0x7FFF0000)]
        body = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *s) for s in steps))
        program = struct.pack("@HP", len(steps), ctypes.addressof(body))
        libc = ctypes.CDLL(None)
        assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program) == 0
    """
    return textwrap.dedent(code)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    os.environ["R1CI_SECRET"] = "a-key-that-must-not-leak"
    try:
        with Sandbox(workers=2, preload=("numpy",)) as sandbox:
            yield sandbox
    finally:
        del os.environ["R1CI_SECRET"]


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "number"),
    [
        ("print(1)", ExitReason.OK, 0, None),
        ("1 / 0", ExitReason.ERROR, 1, None),
        ("import sys; sys.exit(3)", ExitReason.ERROR, 3, None),
        ("while True: pass", ExitReason.CPU_LIMIT, None, None),
        ("import time; time.sleep(60)", ExitReason.TIMEOUT, None, None),
        ("x = bytearray(10**12)", ExitReason.MEMORY_LIMIT, 1, None),
        ("x = []\nwhile True: x.append(bytes(1 << 24))", ExitReason.MEMORY_LIMIT, 1, None),
        ("import os; os.abort()", ExitReason.KILLED, None, signal.SIGABRT),
        ("import ctypes; ctypes.string_at(0)", ExitReason.KILLED, None, signal.SIGSEGV),
        (
            "import ctypes; ctypes.CDLL(None).syscall(0x40000000 + 39)",
            ExitReason.REFUSED,
            None,
            signal.SIGSYS,
        ),
    ],
)
def test_verdicts(
    sandbox: Sandbox, code: str, reason: ExitReason, exit_code: int | None, number: int | None
) -> None:
    wall_s = 0.5 if reason is ExitReason.TIMEOUT else 20.0
    limits = Limits(cpu_s=0.3, wall_s=wall_s, memory_mb=256)
    result = sandbox.run(f"print('kept', flush=True)\n{code}", limits=limits)
    assert (result.exit_reason, result.exit_code, result.signal) == (reason, exit_code, number)
    assert result.stdout.startswith("kept\n"), "output before the end must be kept"
    assert (*result.layers, "cgroup")[: len(sandbox.layers)] == sandbox.layers
    assert result.wall_s > 0 and result.cpu_s > 0 and result.peak_rss_mb > 1


def test_a_result_crosses_json_and_pickle(sandbox: Sandbox) -> None:
    import dataclasses
    import pickle

    result = sandbox.run("print(1)")
    assert json.loads(json.dumps(dataclasses.asdict(result)))["exit_reason"] == "ok"
    assert pickle.loads(pickle.dumps(result)) == result


def test_tracebacks_carry_no_path_of_this_machine(sandbox: Sandbox) -> None:
    result = sandbox.run("import json\nimport numpy\n\njson.loads('[1')\n")
    assert result.stderr.startswith(
        'Traceback (most recent call last):\n  File "script.py", line 4'
    )
    assert "json.loads('[1')" in result.stderr
    assert "json.decoder.JSONDecodeError" in result.stderr
    result = sandbox.run("import numpy\nnumpy.linalg.inv(numpy.zeros((2, 2)))")
    assert 'File "site-packages/numpy/linalg' in result.stderr
    for path in (sys.prefix, sys.base_prefix, os.getcwd(), "<string>"):
        assert path not in result.stderr


def test_packages_of_this_environment_are_there_and_the_rest_is_not(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    result = sandbox.run("import numpy, packaging; print(numpy.arange(4).sum())")
    assert result.stdout == "6\n", result.stderr
    secret = tmp_path / "answer.txt"
    secret.write_text("42")
    tmp_path.chmod(0o755)
    for path in (secret, Path(__file__), Path.home() / ".bashrc", Path("/etc/passwd")):
        result = sandbox.run(f"print(open({str(path)!r}).read())")
        assert result.exit_reason == "error" and result.stdout == "", path
        assert "FileNotFoundError" in result.stderr or "PermissionError" in result.stderr
    result = sandbox.run("import r1ci_engine")
    assert "ModuleNotFoundError" in result.stderr, "the checkout must not be importable"


def test_named_paths_are_readable_and_not_writable(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "rows").write_text("1 2 3")
    for folder in (tmp_path, data):
        folder.chmod(0o755)
    with Sandbox(workers=1, read_only=[str(data)]) as sandbox:
        assert sandbox.run(f"print(open({str(data / 'rows')!r}).read())").stdout == "1 2 3\n"
        assert sandbox.run(f"open({str(data / 'rows')!r}, 'w')").exit_reason == "error"
        assert sandbox.run(f"import os; os.listdir({str(tmp_path)!r})").exit_reason == "error"


def test_the_environment_is_built_from_nothing(sandbox: Sandbox) -> None:
    assert os.environ["R1CI_SECRET"]
    names = json.loads(sandbox.run("import os, json; print(json.dumps(dict(os.environ)))").stdout)
    assert "a-key-that-must-not-leak" not in names.values()
    assert not set(names) & {"R1CI_SECRET", "USER", "VIRTUAL_ENV", "PYTHONPATH"}
    code = "import ctypes; f = ctypes.CDLL(None).getenv; f.restype = ctypes.c_char_p\n"
    assert sandbox.run(code + "print(f(b'R1CI_SECRET'))").stdout == "None\n"


@pytest.mark.parametrize(
    "code",
    [
        "import os; os.fork()",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import socket; socket.socket()",
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1:1/')",
        "import os; os.kill(os.getppid(), 9)",
        "open('../planted', 'w')",
    ],
)
def test_what_is_refused_is_an_exception_in_the_script(sandbox: Sandbox, code: str) -> None:
    handled = f"try:\n    exec({code!r})\nexcept OSError as error:\n    print('refused')\n"
    result = sandbox.run(handled)
    assert (result.exit_reason, result.stdout) == ("ok", "refused\n"), result.stderr


def test_asyncio_threads_and_temporary_files_work(sandbox: Sandbox) -> None:
    code = """
        import asyncio, concurrent.futures, tempfile
        async def double(x):
            await asyncio.sleep(0.001)
            return 2 * x
        print(asyncio.run(double(21)))
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            print(sum(pool.map(abs, range(-10, 10))))
        with tempfile.TemporaryDirectory() as folder:
            open(folder + "/a", "w").write("x")
        print("done")
    """
    result = sandbox.run(textwrap.dedent(code))
    assert result.stdout == "42\n100\ndone\n", result.stderr


def test_a_flood_from_a_right_program_is_cut_and_right(sandbox: Sandbox) -> None:
    result = sandbox.run("print('a' * 1_500_000 + 'b' * 1_500_000)")
    assert (result.exit_reason, result.exit_code) == ("ok", 0)
    assert len(result.stdout) == 65536 and result.stdout_cut == 32768
    assert result.stdout.startswith("aaaa") and result.stdout.endswith("bbbb\n")
    assert result.stdout_dropped == 3_000_001 - 65536
    assert (result.stderr_dropped, result.stderr_cut) == (0, None)


def test_an_endless_flood_is_stopped(sandbox: Sandbox) -> None:
    code = "import os\nwhile True: os.write(1, b'x' * 65536); os.write(2, b'y' * 65536)"
    result = sandbox.run(code, limits=Limits(cpu_s=60, wall_s=60))
    assert result.exit_reason == "output_limit"
    assert set(result.stdout) == {"x"} and set(result.stderr) == {"y"}


def test_bytes_that_are_no_text_are_replaced(sandbox: Sandbox) -> None:
    result = sandbox.run("import os; os.write(1, b'a\\xff\\x00b'); print('\\udcfe')")
    assert result.stdout == "a\ufffd\x00b\ufffd\n"
    assert sandbox.run("print('\ud800')").exit_reason == "error"
    assert sandbox.run("print(input())", stdin="naïve\nrest").stdout == "naïve\n"


def test_output_cannot_forge_a_verdict(sandbox: Sandbox) -> None:
    code = """
        import os, struct
        for descriptor in range(64):
            for frame in (struct.pack("=ciddQ?", b"X", 0, 0, 0, 0, True), b'{"exit_reason": "ok"}'):
                try:
                    os.write(descriptor, frame)
                except OSError:
                    pass
        os._exit(7)
    """
    result = sandbox.run(textwrap.dedent(code))
    assert (result.exit_reason, result.exit_code) == ("error", 7)
    fake = "import sys; print('MemoryError', file=sys.stderr); sys.exit(1)"
    assert sandbox.run(fake).exit_reason == "error"
    fake = "import os, signal; os.kill(os.getpid(), signal.SIGXCPU)"
    assert sandbox.run(fake).exit_reason == "killed"


def test_leaving_early_keeps_output_and_is_said(sandbox: Sandbox) -> None:
    result = sandbox.run("import os; print('before'); os._exit(0)")
    assert (result.exit_reason, result.stdout) == ("ok", "before\n")
    assert "before the script reached its end" in result.detail
    assert sandbox.run("print(1)").detail == ""


def test_seeds_decide_what_is_random() -> None:
    code = "import random, numpy; print(random.random(), numpy.random.rand(), hash('x'))"
    outputs = []
    for preload in ((), ("numpy",)):
        with Sandbox(workers=2, preload=preload) as sandbox:
            requests = [ExecutionRequest(code, seed=seed) for seed in (1, 1, 2, -1, 2**64 - 1)]
            outputs.append([result.stdout for result in sandbox.run_many(requests)])
    assert outputs[0] == outputs[1], "whether numpy is preloaded must not matter"
    one, same, two, minus, wrapped = outputs[0]
    assert one == same != two and minus == wrapped


def test_scripts_leave_nothing_to_the_next(sandbox: Sandbox) -> None:
    poison = "import builtins, math, os\nbuiltins.print = None\nmath.pi = 3\nopen('left', 'w')"
    for _ in range(3):
        assert sandbox.run(poison).exit_reason == "ok"
        result = sandbox.run("import math, os; print(math.pi, os.listdir('.'))")
        assert result.stdout == "3.141592653589793 []\n"


def test_run_many_keeps_order_and_submit_gives_each_once(sandbox: Sandbox) -> None:
    requests = [
        ExecutionRequest(f"import time; time.sleep({0.03 * (i % 3 == 0)}); print({i})")
        for i in range(12)
    ]
    assert [r.stdout for r in sandbox.run_many(requests)] == [f"{i}\n" for i in range(12)]
    assert sandbox.run_many([]) == []
    tickets = {sandbox.submit(request): f"{i}\n" for i, request in enumerate(requests)}
    collected = {}
    while len(collected) < len(tickets):
        for ticket, result in sandbox.collect(10.0):
            assert ticket not in collected
            collected[ticket] = result.stdout
    assert collected == tickets
    begun = time.monotonic()
    assert sandbox.collect(30.0) == [] and time.monotonic() - begun < 5


def test_threads_of_the_caller_share_it(sandbox: Sandbox) -> None:
    seen: dict[int, str] = {}

    def work(index: int) -> None:
        seen[index] = sandbox.run(f"print({index})").stdout

    threads = [threading.Thread(target=work, args=(index,)) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {index: f"{index}\n" for index in range(16)}


def test_waiting_lets_other_threads_run(sandbox: Sandbox) -> None:
    waiting = threading.Thread(target=sandbox.run, args=("import time; time.sleep(0.5)",))
    waiting.start()
    beats = 0
    while waiting.is_alive():
        beats += 1
        time.sleep(0.005)
    waiting.join()
    assert beats > 20


def _use_in_fork(sandbox: Sandbox, pipe: Connection) -> None:
    try:
        sandbox.run("print(1)")
    except SandboxError as error:
        pipe.send(str(error))
    sandbox.close()


def test_a_fork_of_the_caller_is_refused_and_does_no_harm(sandbox: Sandbox) -> None:
    ours, theirs = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_use_in_fork, args=(sandbox, theirs))
    process.start()
    assert ours.poll(20) and "belongs to process" in ours.recv()
    process.join(20)
    assert process.exitcode == 0
    assert sandbox.run("print(1)").stdout == "1\n"


def test_missing_and_unknown_layers_fail_closed() -> None:
    with pytest.raises(SandboxError, match="unknown layer `landlok`"):
        Sandbox(workers=1, required=["landlok"])
    script = """
        from r1ci_engine.errors import SandboxError
        from r1ci_engine.sandbox import Sandbox
        try:
            Sandbox(workers=1, required=["seccomp", "landlock"])
        except SandboxError as error:
            print("refused:", error.message)
        with Sandbox(workers=1, required=["seccomp"]) as sandbox:
            print("landlock" in sandbox.layers, sandbox.run("print(1)").stdout)
    """
    code = _on_a_lesser_kernel(LANDLOCK_CREATE_RULESET) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "refused: required layer `landlock` is not available" in done.stdout, done.stderr
    assert "False 1" in done.stdout


def test_limits_out_of_range_are_refused(sandbox: Sandbox) -> None:
    for limits in ({"cpu_s": 0}, {"wall_s": -1}, {"memory_mb": 0}, {"output_bytes": -5}):
        with pytest.raises(SandboxError, match=f"limit `{next(iter(limits))}`"):
            Limits(**limits)
    with pytest.raises(SandboxError):
        Limits(cpu_s=float("nan"))


def test_a_module_that_cannot_be_preloaded_is_named() -> None:
    with pytest.raises(SandboxError, match="No module named 'nowhere_to_be_found'"):
        Sandbox(workers=1, preload=["nowhere_to_be_found"])


def test_a_closed_sandbox_says_so() -> None:
    sandbox = Sandbox(workers=1)
    sandbox.close()
    sandbox.close()
    with pytest.raises(SandboxError, match="the sandbox is closed"):
        sandbox.run("print(1)")


@pytest.mark.parametrize("missing_call", [None, UNSHARE])
def test_killing_the_caller_leaves_nothing(missing_call: int | None, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    script = """
        import sys, time
        from r1ci_engine.sandbox import ExecutionRequest, Sandbox
        sandbox = Sandbox(workers=2)
        for _ in range(2):
            sandbox.submit(ExecutionRequest("import time; open('left', 'w'); time.sleep(600)"))
        time.sleep(1)
        print("namespaces" in sandbox.layers, flush=True)
        time.sleep(600)
    """
    lesser = "" if missing_call is None else _on_a_lesser_kernel(missing_call)
    caller = subprocess.Popen(
        [sys.executable, "-c", lesser + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert caller.stdout is not None
    namespaces = caller.stdout.readline() == "True\n"
    family = psutil.Process(caller.pid).children(recursive=True)
    assert len(family) == 3, "an interpreter with two scripts"
    assert bool(list(tmp_path.iterdir())) is not namespaces, "a work folder on disk, or none"
    caller.kill()
    caller.wait()
    caller.stdout.close()
    _, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert list(tmp_path.iterdir()) == [], "work folders left behind"


def test_many_executions_leak_nothing() -> None:
    with Sandbox(workers=2) as sandbox:
        scripts = [
            "print(1)",
            "1 / 0",
            "import os; os.fork()",
            "open('x', 'w')",
            "import os; os.abort()",
        ]
        requests = [ExecutionRequest(scripts[i % len(scripts)]) for i in range(100)]
        sandbox.run_many(requests)
        process = psutil.Process()
        before = process.num_fds(), len(process.children(recursive=True)), process.num_threads()
        for _ in range(3):
            sandbox.run_many(requests)
        after = process.num_fds(), len(process.children(recursive=True)), process.num_threads()
        assert before == after
    assert before[1] >= 1


def test_probe_tells_what_is_in_force() -> None:
    facts = json.loads(json.dumps(probe()))
    assert facts["error"] is None
    assert set(facts["layers"]) | set(facts["missing"]) == set(LAYERS)


def test_bench_measures_what_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    figures = bench(20, workers=1)
    scripts = {(row["script"], row["layers"]) for row in figures["rows"]}
    assert ("trivial", "default") in scripts
    assert (
        "own_namespaces" not in figures["layers_available"] or ("trivial", "namespaces") in scripts
    )
    for row in figures["rows"]:
        assert 0 < row["p50_ms"] <= row["p95_ms"]
        assert row["per_s"] > 1
    monkeypatch.setitem(BENCH_SCRIPTS, "trivial", "1 / 0")
    with pytest.raises(SandboxError, match="ended with `error`"):
        bench(5, workers=1)


def test_a_submitted_script_can_be_taken_back() -> None:
    with Sandbox(workers=1) as sandbox:
        running = sandbox.submit(ExecutionRequest("print(1, flush=True)\nwhile True: pass"))
        queued = sandbox.submit(ExecutionRequest("print(2)"))
        sandbox.cancel(queued)
        results = dict(sandbox.collect(20.0))
        time.sleep(0.5)
        sandbox.cancel(running)
        sandbox.cancel(10**6)
        results |= dict(sandbox.collect(20.0))
    assert results[running].exit_reason is ExitReason.CANCELLED
    assert results[running].stdout == "1\n"
    assert results[queued].exit_reason is ExitReason.CANCELLED
    assert results[queued].stdout == ""


def test_a_script_that_may_fork_takes_its_processes_along() -> None:
    with Sandbox() as sandbox:
        if "own_namespaces" not in sandbox.layers:
            result = sandbox.run("print(1)", limits=Limits(processes=2))
            assert result.exit_reason is ExitReason.REFUSED
            return
        code = """
            import os, sys, time
            read, write = os.pipe()
            for _ in range(2):
                if os.fork() == 0:
                    if os.fork() == 0:
                        os.setsid()
                    time.sleep(600)
            print(os.getpid())
        """
        before = {child.pid for child in psutil.Process().children(recursive=True)}
        result = sandbox.run(textwrap.dedent(code), limits=Limits(threads=1, processes=8))
        assert (result.exit_reason, result.stdout) == (ExitReason.OK, "1\n")
        after = {child.pid for child in psutil.Process().children(recursive=True)}
        assert after <= before
        bomb = "import os\nwhile True: os.fork()"
        result = sandbox.run(bomb, limits=Limits(threads=1, processes=8, wall_s=3, cpu_s=1))
        assert result.exit_reason in (ExitReason.ERROR, ExitReason.TIMEOUT, ExitReason.CPU_LIMIT)
        assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def test_sleepers_do_not_hold_up_the_others() -> None:
    with Sandbox(workers=1) as sandbox:
        for _ in range(20):
            sandbox.submit(ExecutionRequest("import time; time.sleep(30)"))
        begun = time.monotonic()
        assert sandbox.run("print(1)").stdout == "1\n"
        assert time.monotonic() - begun < 15


def test_the_death_of_interpreters_loses_no_request() -> None:
    with Sandbox(workers=2) as sandbox:
        tickets = [
            sandbox.submit(ExecutionRequest(f"import time; time.sleep(0.01); print({index})"))
            for index in range(60)
        ]
        results: dict[int, ExecutionResult] = {}
        for _ in range(5):
            for child in psutil.Process().children():
                child.kill()
            results |= dict(sandbox.collect(0.2))
        while len(results) < len(tickets):
            results |= dict(sandbox.collect(30.0))
        for index, ticket in enumerate(tickets):
            result = results[ticket]
            if result.exit_reason is not ExitReason.INFRASTRUCTURE:
                assert (result.exit_reason, result.stdout) == (ExitReason.OK, f"{index}\n")
        begun = time.monotonic()
        assert sandbox.run("print(1)").stdout == "1\n"
        assert time.monotonic() - begun < 10


def test_the_module_is_light() -> None:
    code = "import sys, r1ci_engine.sandbox; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_signals_are_as_in_a_fresh_interpreter_whatever_the_caller_ignores() -> None:
    program = """
import signal
from r1ci_engine.sandbox import Sandbox
for number in (signal.SIGINT, signal.SIGXFSZ, signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
with Sandbox(workers=1) as sandbox:
    code = "import signal as s; print(*map(s.getsignal, (s.SIGINT, s.SIGXFSZ, s.SIGHUP)))"
    print(sandbox.run(code).stdout)
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "default_int_handler" in shown.stdout, shown.stderr
    assert shown.stdout.split()[-2:] == ["1", "0"]  # ignored, default
