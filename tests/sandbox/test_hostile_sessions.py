"""Turns that turn against the supervisor, other branches, and the turns after them."""

import contextlib
import gc
import os
import platform
import threading
import time
from collections.abc import Iterator

import psutil
import pytest

from r1ci_engine.sandbox import ExecutionRequest, ExitReason, Limits, Sandbox, Session

IN_PLACE_OF_THE_NATIVE_HALF = """
import os, socket, sys, threading, time
frame = sys._getframe()
while "library" not in frame.f_globals:
    frame = frame.f_back
space = frame.f_globals
native = space["library"]
class Hook:
    r1ci_next_turn = staticmethod(native.r1ci_next_turn)
    r1ci_end_turn = staticmethod(native.r1ci_end_turn)
space["library"] = Hook
"""


by_number = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="calls the kernel by the numbers of x86_64"
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=3, limits=Limits(cpu_s=0.5, wall_s=1.5, memory_mb=128)) as started:
        yield started


@pytest.fixture
def session(sandbox: Sandbox) -> Session:
    opened = sandbox.open_session()
    assert opened.run("import os, socket, threading, time\nx = 1").kept
    return opened


def _answers_in_time(sandbox: Sandbox) -> None:
    began = time.monotonic()
    assert sandbox.run("print(2)").stdout == "2\n"
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize(
    "message",
    ["b'D\\0\\1'", "b'B' + os.getpid().to_bytes(4, 'little')", "b''", "b'x' * 4000"],
)
@pytest.mark.parametrize("threads", [1, 6])
def test_a_storm_of_messages_holds_up_nobody(
    sandbox: Sandbox, session: Session, message: str, threads: int
) -> None:
    code = f"""
def storm():
    while True:
        try:
            os.write(3, {message})
        except OSError:
            pass
for _ in range({threads - 1}):
    threading.Thread(target=storm, daemon=True).start()
storm()
"""
    thread = threading.Thread(target=session.run, args=(code,))
    thread.start()
    for _ in range(5):
        _answers_in_time(sandbox)
    thread.join(10)
    assert not thread.is_alive()
    _answers_in_time(sandbox)


def _descriptors() -> list[str]:
    """What is open here, but for the entrances of control groups, which are kept for reuse."""
    found: list[str] = []
    for handle in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{handle}"))
    return [target for target in found if not target.endswith("/cgroup.procs")]


@pytest.mark.parametrize("message", ["b'x'", "b'D\\0\\1'"])
@pytest.mark.parametrize("count", [1, 7, 8, 60])
def test_descriptors_sent_to_the_supervisor_do_not_stay_there(
    sandbox: Sandbox, session: Session, message: str, count: int
) -> None:
    code = f"""
handles = [os.pipe()[1] for _ in range(20)]
over = socket.socket(fileno=os.dup(3))
socket.send_fds(over, [{message}], (handles * 4)[:{count}])
time.sleep(5)
"""
    before = len(_descriptors())
    for _ in range(3):
        opened = sandbox.open_session()
        opened.run("import os, socket, time")
        opened.run(code)
        del opened
    gc.collect()
    deadline = time.monotonic() + 5.0
    while len(_descriptors()) > before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert session.run("print(x)").stdout == "1\n"


def test_who_says_that_its_turn_is_over_computes_no_more(sandbox: Sandbox) -> None:
    known = {process.pid for process in psutil.Process().children(recursive=True)}
    session = sandbox.open_session()
    session.run("import os")
    result = session.run("os.write(3, b'D\\0\\1')\nwhile True: pass")
    assert result.exit_reason is ExitReason.OK
    time.sleep(0.3)  # for what earlier tests have left
    states = [p for p in psutil.Process().children(recursive=True) if p.pid not in known]
    assert states
    used = sum(sum(process.cpu_times()[:2]) for process in states)
    time.sleep(0.4)
    assert sum(sum(process.cpu_times()[:2]) for process in states) - used < 0.05


@by_number
def test_branches_cannot_reach_each_others_processes(session: Session) -> None:
    code = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
calls = {'kill': (62, 9), 'tkill': (200, 9), 'queue': (129, 9, b'\\0' * 128),
         'trace': (101, 16), 'read': (310, 0, 0, 0, 0, 0), 'handle': (434, 0)}
for name, (number, *rest) in calls.items():
    for pid in range(1, 40):
        if pid == os.getpid():
            continue
        first = (16, pid) if name == 'trace' else (pid, *rest)
        done = libc.syscall(number, *first)
        if done >= 0 or ctypes.get_errno() not in (1, 3, 13):
            print('reached', name, pid, done, ctypes.get_errno())
print('tried')
"""
    slow = ExecutionRequest("time.sleep(0.5); print('unharmed', x)")
    results = [result for result, _ in session.run_branches([slow, ExecutionRequest(code), slow])]
    assert [result.stdout for result in results] == [
        "unharmed 1\n",
        "tried\n",
        "unharmed 1\n",
    ]


@by_number
def test_a_turn_whose_first_thread_leaves_alone_ends_at_its_limit(session: Session) -> None:
    leave = "import ctypes; ctypes.CDLL(None).syscall(60, 0)"
    sleeper = session.run(f"threading.Thread(target=time.sleep, args=(99,)).start()\n{leave}")
    assert (sleeper.exit_reason, sleeper.kept) == (ExitReason.TIMEOUT, False)
    spin = "def spin():\n    while True: pass\nthreading.Thread(target=spin).start()"
    spinner = session.run(f"{spin}\n{leave}")
    assert (spinner.exit_reason, spinner.kept) == (ExitReason.CPU_LIMIT, False)
    assert session.run("print(x)").stdout == "1\n"


@pytest.mark.parametrize(
    "end",
    [
        pytest.param("os._exit(0)", id="leaves"),
        pytest.param("native.r1ci_end_turn(address, 0, 2)", id="claims no memory after success"),
        pytest.param("native.r1ci_end_turn(address, 9, 1); os._exit(0)", id="ends, then leaves"),
        pytest.param("raise RuntimeError", id="raises"),
    ],
)
def test_who_replaces_the_ending_fools_its_own_session_only(
    sandbox: Sandbox, session: Session, end: str
) -> None:
    hook = (
        IN_PLACE_OF_THE_NATIVE_HALF
        + f"def ending(address, status, words):\n    {end}\nHook.r1ci_end_turn = ending"
    )
    hostile = sandbox.open_session()
    result = hostile.run(hook)
    assert result.exit_reason in (ExitReason.OK, ExitReason.ERROR)
    hostile.run("print(1)")
    assert session.run("print(x)").stdout == "1\n"
    _answers_in_time(sandbox)


def test_one_way_switches_stay_in_their_session(sandbox: Sandbox, session: Session) -> None:
    hostile = sandbox.open_session()
    code = """
import ctypes, resource
libc = ctypes.CDLL(None)
for number in (41, 65, 67):
    libc.prctl(number, 1, 0, 0, 0)
for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
    resource.setrlimit(limit, (8, 8))
"""
    hostile.run(code)
    hostile.run("print(1)")
    probe = "import resource; print([resource.getrlimit(n) for n in range(16)])"
    assert session.run(probe).stdout == sandbox.open_session().run(probe).stdout
    _answers_in_time(sandbox)


def test_sessions_dropped_in_the_middle_of_their_turns_leave_nothing(sandbox: Sandbox) -> None:
    this = psutil.Process()

    def held() -> tuple[int, int]:
        links = []
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                links.append(os.readlink(f"/proc/self/fd/{name}"))
        kinds = ("socket:", "pipe:", "anon_inode:", "/memfd:")
        handles = [link for link in links if link.startswith(kinds)]
        return len(this.children(recursive=True)), len(handles)

    def run() -> None:
        for _ in range(8):
            opened = sandbox.open_session()
            opened.run("import threading, time\nfiles = [open('/dev/null') for _ in range(20)]")
            branches = [ExecutionRequest("time.sleep(0.02)"), ExecutionRequest("1 / 0")]
            kept = opened.run_branches(branches)
            del opened
            kept[0][1].run("threading.Thread(target=time.sleep, args=(9,), daemon=True).start()")

    gc.collect()
    time.sleep(0.5)
    before = held()
    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    gc.collect()
    deadline = time.monotonic() + 5.0
    while held() > before:
        assert time.monotonic() < deadline, (held(), before)
        time.sleep(0.05)
