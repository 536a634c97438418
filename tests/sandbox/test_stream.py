"""Results as they finish: order, back-pressure, and what happens to the rest when one leaves."""

import contextlib
import itertools
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import FrameType

import psutil
import pytest

from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox import ExecutionRequest, ExecutionResult, ExitReason, Sandbox

ENDLESS = ExecutionRequest("while True: pass")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(workers=2) as sandbox:
        yield sandbox


def _printing(count: int) -> Iterator[ExecutionRequest]:
    return (ExecutionRequest(f"print({place})") for place in range(count))


def _assert_nothing_runs(sandbox: Sandbox) -> None:
    """Were they left to run, each would take ten seconds of CPU time."""
    begun = time.monotonic()
    assert sandbox.run("print(1)").stdout == "1\n"
    while any(zygote.children() for zygote in psutil.Process().children()):
        assert time.monotonic() - begun < 5
        time.sleep(0.01)


def test_every_result_comes_once_with_its_place(sandbox: Sandbox) -> None:
    results = list(sandbox.stream(_printing(50)))
    assert sorted(place for place, _ in results) == list(range(50))
    assert all(result.stdout == f"{place}\n" for place, result in results)
    assert list(sandbox.stream([])) == []


def test_results_come_as_they_finish(sandbox: Sandbox) -> None:
    slow = ExecutionRequest("import time; time.sleep(0.5)")
    places = [place for place, _ in sandbox.stream([slow, *_printing(5)])]
    assert sorted(places) == list(range(6)) and places[-1] == 0


def test_an_endless_source_is_read_only_so_far_ahead(sandbox: Sandbox) -> None:
    taken = itertools.count()
    source = (ExecutionRequest(f"print({next(taken)})") for _ in itertools.repeat(None))
    with contextlib.closing(sandbox.stream(source)) as stream:
        for received, _ in enumerate(itertools.islice(stream, 40), start=1):
            time.sleep(0.002)
            so_far = next(taken)
            taken = itertools.count(so_far)
            assert so_far <= received + 4 * sandbox.workers


def test_a_slow_source_holds_no_result_up(sandbox: Sandbox) -> None:
    taken = 0

    def source() -> Iterator[ExecutionRequest]:
        nonlocal taken
        for request in _printing(6):
            taken += 1
            yield request
            time.sleep(0.2)

    _, result = next(sandbox.stream(source()))
    assert result.exit_reason is ExitReason.OK and taken < 6


@pytest.mark.parametrize("way", ["break", "close", "consumer", "source", "forget"])
def test_leaving_early_ends_the_rest(sandbox: Sandbox, way: str) -> None:
    def source() -> Iterator[ExecutionRequest]:
        yield ExecutionRequest("print(1)")
        yield from itertools.repeat(ENDLESS, 3)
        if way == "source":
            raise KeyError(way)
        yield from itertools.repeat(ENDLESS)

    stream = sandbox.stream(source())
    if way == "break":
        for place, _ in stream:
            assert place == 0
            break
        del stream
    elif way == "close":
        next(stream)
        stream.close()
        assert list(stream) == []
    elif way == "forget":
        next(stream)
        del stream
    else:
        with pytest.raises(KeyError):
            for _ in stream:
                if way == "consumer":
                    raise KeyError(way)
        stream.close()
    _assert_nothing_runs(sandbox)


class _Alarm(Exception):
    pass


@pytest.mark.parametrize(
    "wait",
    [
        lambda sandbox: sandbox.run("while True: pass"),
        lambda sandbox: sandbox.run_many([ENDLESS] * 10),
        lambda sandbox: list(sandbox.stream(itertools.repeat(ENDLESS))),
    ],
    ids=["run", "run_many", "stream"],
)
def test_an_exception_from_a_signal_ends_what_runs(
    sandbox: Sandbox, wait: Callable[[Sandbox], object]
) -> None:
    rung: list[float] = []

    def ring(number: int, frame: FrameType | None) -> None:
        rung.append(time.monotonic())
        raise _Alarm

    before = signal.signal(signal.SIGALRM, ring)
    try:
        begun = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(_Alarm):
            wait(sandbox)
    finally:
        signal.signal(signal.SIGALRM, before)
    # Waiting lets Python look for signals every 50 ms; the rest is for busy machines.
    assert rung[0] - begun < 0.3 + 0.3
    _assert_nothing_runs(sandbox)


def test_two_streams_and_a_batch_at_once(sandbox: Sandbox) -> None:
    first, second = sandbox.stream(_printing(20)), sandbox.stream(_printing(20))
    outputs: list[set[str]] = [set(), set()]
    for one, two in zip(first, second, strict=True):
        outputs[0].add(one[1].stdout)
        outputs[1].add(two[1].stdout)
        assert sandbox.run("print('x')").stdout == "x\n"
    assert outputs[0] == outputs[1] == {f"{place}\n" for place in range(20)}


def test_a_stream_is_taken_from_by_several_threads() -> None:
    with Sandbox(workers=2) as sandbox:
        stream, lock = sandbox.stream(_printing(40)), threading.Lock()
        results: list[tuple[int, ExecutionResult]] = []

        def take() -> None:
            while True:
                with lock:
                    item = next(stream, None)
                if item is None:
                    return
                results.append(item)

        threads = [threading.Thread(target=take) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(place for place, _ in results) == list(range(40))


def test_closing_the_sandbox_ends_a_stream() -> None:
    sandbox = Sandbox(workers=1)
    stream = sandbox.stream([ENDLESS] * 3)
    closing = threading.Timer(0.3, sandbox.close)
    closing.start()
    assert [result.exit_reason for _, result in stream] == [ExitReason.INFRASTRUCTURE] * 3
    closing.join()
    with pytest.raises(SandboxError, match="the sandbox is closed"):
        next(sandbox.stream([ENDLESS]))
    sandbox = Sandbox(workers=1)
    stream = sandbox.stream(itertools.repeat(ExecutionRequest("print(1)")))
    next(stream)
    sandbox.close()
    with pytest.raises(SandboxError, match="the sandbox is closed"):
        list(stream)


def _go_on_in_fork(stream: Iterator[object], pipe: Connection) -> None:
    try:
        next(stream)
    except SandboxError as error:
        pipe.send(error.message)


def test_a_fork_cannot_go_on_with_a_stream_and_does_no_harm(sandbox: Sandbox) -> None:
    stream = sandbox.stream(_printing(10))
    next(stream)
    ours, theirs = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=_go_on_in_fork, args=(stream, theirs))
    process.start()
    assert ours.poll(20) and "belongs to process" in ours.recv()
    process.join(20)
    assert process.exitcode == 0
    assert len(list(stream)) == 9
