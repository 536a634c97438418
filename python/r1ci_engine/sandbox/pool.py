"""Warm interpreters, and the ways to hand them scripts."""

import os
import sys
from collections.abc import Generator, Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from r1ci_engine._rust import Supervisor
from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox.requests import (
    ExecutionRequest,
    ExecutionResult,
    ExitReason,
    Limits,
)

AHEAD = 4
"""How many requests per worker a stream takes from its source ahead of results taken from it."""


class Sandbox:
    """Warm interpreters ready for scripts. A context manager; threads may share it.

    A fork of the process cannot use it and gets SandboxError; it may start its own.
    """

    def __init__(
        self,
        *,
        workers: int | None = None,
        limits: Limits | None = None,
        required: Sequence[str] = (),
        preload: Sequence[str] = (),
        read_only: Sequence[str] = (),
    ) -> None:
        """Start; `workers` scripts compute at once (None: one per core and one more).

        Scripts that sleep do not count among them. Interpreters with numpy and with sympy start by
        themselves when a script names these; scripts that name a module of `preload` run in one
        that has imported all of `preload`. `limits` is for requests that bring none (None:
        `Limits()`); `read_only` names further files and folders that scripts may read. Raises
        SandboxError when a layer in `required` is not in force, or no interpreter comes up.
        """
        if not sys.executable:
            raise SandboxError(
                "this process does not know its Python interpreter",
                hint="run under an ordinary `python`, not embedded in another program",
            )
        self._supervisor = Supervisor(
            python=sys.executable,
            library_paths=_library_paths(),
            read_only=[os.path.realpath(path) for path in read_only],
            preload=list(preload),
            workers=0 if workers is None else workers,
            limits=limits or Limits(),
            required=list(required),
        )
        self.layers: tuple[str, ...] = tuple(self._supervisor.layers)
        self.workers: int = self._supervisor.workers

    def run(
        self, code: str, *, stdin: str = "", seed: int = 0, limits: Limits | None = None
    ) -> ExecutionResult:
        """Run one script and wait for it. A failing script is a result, not an exception.

        For files that go in or come out, use `run_many`.
        """
        return self.run_many([ExecutionRequest(code, stdin, seed, limits)])[0]

    def run_many(self, requests: Sequence[ExecutionRequest]) -> list[ExecutionResult]:
        """Run scripts side by side; results in the order of the requests."""
        return [_result(raw) for raw in self._supervisor.run_many([_raw(r) for r in requests])]

    def stream(
        self, requests: Iterable[ExecutionRequest]
    ) -> Generator[tuple[int, ExecutionResult]]:
        """Run scripts side by side; each result as it finishes, with its request's place.

        `requests` may have no end: it is read as results are taken, at most `4 * workers` ahead.
        Whoever leaves early, or closes the iterator, takes back what has not begun and kills what
        runs; so does an exception.
        """
        most = AHEAD * self.workers
        batch = self._supervisor.start_batch()
        try:
            under_way = 0
            for request in requests:
                batch.add(_raw(request))
                under_way += 1
                # A slow source holds no result up, and waiting starts when enough is under way.
                while raw := batch.receive(None if under_way == most else 0.0):
                    under_way -= 1
                    yield raw[0], _result(raw[1])
            while raw := batch.receive():
                yield raw[0], _result(raw[1])
        finally:
            batch.close()

    def submit(self, request: ExecutionRequest) -> int:
        """Queue a script; `collect` returns its result under the ticket given here."""
        return self._supervisor.submit(_raw(request))

    def collect(self, timeout_s: float) -> list[tuple[int, ExecutionResult]]:
        """Submitted scripts that have finished, each once, in the order they finished.

        Waits up to `timeout_s` for the first one, and not at all when none is under way.
        """
        return [(ticket, _result(raw)) for ticket, raw in self._supervisor.collect(timeout_s)]

    def fileno(self) -> int:
        """A descriptor that is readable while `collect` has something to return.

        For event loops and `select`: wait for it, then `collect(0)`. Never read from it or close
        it; it goes with `close`, so stop watching it before.
        """
        return self._supervisor.fileno()

    def cancel(self, ticket: int) -> None:
        """Take a submitted script back: it is collected as `cancelled` if it has not ended yet."""
        self._supervisor.cancel(ticket)

    def close(self) -> None:
        """Kill what is running and end all interpreters. What was queued is not run."""
        self._supervisor.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _library_paths() -> list[str]:
    """Folders with installed packages; not the other entries of `sys.path`, such as a checkout."""
    kinds = ("site-packages", "dist-packages")
    return [p for p in sys.path if os.path.basename(p) in kinds and os.path.isdir(p)]


class _Raw(NamedTuple):
    code: bytes
    stdin: bytes
    seed: int
    limits: Limits | None
    files: list[tuple[str, bytes]]
    fetch: list[str]


def _raw(request: ExecutionRequest) -> _Raw:
    return _Raw(
        # A lone surrogate is the script's mistake: it reaches the compiler, which says so.
        code=request.code.encode("utf-8", "surrogatepass"),
        stdin=request.stdin.encode("utf-8", "surrogatepass"),
        seed=request.seed % 2**64,
        limits=request.limits,
        files=list(request.files.items()),
        fetch=list(request.fetch),
    )


def _result(raw: dict[str, Any]) -> ExecutionResult:
    raw["exit_reason"] = ExitReason(raw["exit_reason"])
    for stream in ("stdout", "stderr"):  # there is no place where nothing is missing
        if not raw[f"{stream}_dropped"]:
            raw[f"{stream}_cut"] = None
    return ExecutionResult(**raw)
