"""Warm interpreters, and the ways to hand them scripts."""

import os
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Self

from r1ci_engine._rust import Supervisor
from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox.requests import (
    ExecutionRequest,
    ExecutionResult,
    Limits,
    from_raw,
    to_raw,
)
from r1ci_engine.sandbox.session import Session

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
        sessions: int = 64,
        session_idle_s: float = 600.0,
        session_memory_mb: int = 1024,
        work_mb: int = 64,
        work_files: int = 8192,
    ) -> None:
        """Start; `workers` scripts compute at once (None: one per core and one more).

        Scripts that sleep do not count among them. Interpreters with numpy and with sympy start by
        themselves when a script names these; scripts that name a module of `preload` run in one
        that has imported all of `preload`. `limits` is for requests that bring none (None:
        `Limits()`); `read_only` names further files and folders that scripts may read.

        The work folder of a script, or of a session, holds at most `work_mb` MiB and `work_files`
        files and folders.

        At most `sessions` sessions are open at once; one without a turn for `session_idle_s` is
        ended, and all states of one hold at most `session_memory_mb` together.

        Raises SandboxError when a layer in `required` is not in force, or no interpreter comes up.
        """
        if not sys.executable:
            raise SandboxError(
                "this process does not know its Python interpreter",
                hint="run under an ordinary `python`, not embedded in another program",
            )
        if isinstance(required, str) or isinstance(preload, str) or isinstance(read_only, str):
            raise SandboxError(
                "`required`, `preload` and `read_only` are lists", hint='such as ["landlock"]'
            )
        for path in read_only:
            if not os.path.exists(path):
                raise SandboxError(f"`read_only` names `{path}`, which does not exist")
        counts = {"workers": workers, "sessions": sessions, "session_memory_mb": session_memory_mb}
        counts |= {"work_mb": work_mb, "work_files": work_files}
        for name, value in {**counts, "session_idle_s": session_idle_s}.items():
            if value is not None and not value > 0:
                raise SandboxError(f"`{name}` is `{value}`", hint="it must be above zero")
        self._supervisor = Supervisor(
            python=sys.executable,
            library_paths=_library_paths(),
            read_only=[os.path.realpath(path) for path in read_only],
            preload=list(preload),
            workers=0 if workers is None else workers,
            limits=limits or Limits(),
            required=list(required),
            sessions=sessions,
            session_idle_s=session_idle_s,
            session_memory_mb=session_memory_mb,
            work_mb=work_mb,
            work_files=work_files,
        )
        self.layers: tuple[str, ...] = tuple(self._supervisor.layers)
        self.workers: int = self._supervisor.workers

    def run(
        self,
        code: str,
        *,
        stdin: str = "",
        seed: int = 0,
        limits: Limits | None = None,
        files: Mapping[str, bytes] | None = None,
        fetch: Sequence[str] = (),
    ) -> ExecutionResult:
        """Run one script and wait for it. A failing script is a result, not an exception.

        The arguments are the fields of an `ExecutionRequest`; `files` None: none.
        """
        return self.run_many([ExecutionRequest(code, stdin, seed, limits, files or {}, fetch)])[0]

    def run_many(self, requests: Sequence[ExecutionRequest]) -> list[ExecutionResult]:
        """Run scripts side by side; results in the order of the requests."""
        return [from_raw(raw) for raw in self._supervisor.run_many([to_raw(r) for r in requests])]

    def open_session(self, *, limits: Limits | None = None, seed: int = 0) -> Session:
        """A session that has run nothing yet; it costs nothing until its first turn.

        `limits` hold for each of its turns (None: the sandbox's own); `seed` is for the generators,
        at the first turn.
        """
        return Session(self._supervisor, self._supervisor.open_session(limits, seed % 2**64))

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
                batch.add(to_raw(request))
                under_way += 1
                # A slow source holds no result up, and waiting starts when enough is under way.
                while raw := batch.receive(None if under_way == most else 0.0):
                    under_way -= 1
                    yield raw[0], from_raw(raw[1])
            while raw := batch.receive():
                yield raw[0], from_raw(raw[1])
        finally:
            batch.close()

    def submit(self, request: ExecutionRequest) -> int:
        """Queue a script; `collect` returns its result under the ticket given here."""
        return self._supervisor.submit(to_raw(request))

    def collect(self, timeout_s: float) -> list[tuple[int, ExecutionResult]]:
        """Submitted scripts that have finished, each once, in the order they finished.

        Waits up to `timeout_s` for the first one, and not at all when none is under way.
        """
        return [(ticket, from_raw(raw)) for ticket, raw in self._supervisor.collect(timeout_s)]

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

    def __exit__(self, *_: object) -> None:
        self.close()


def _library_paths() -> list[str]:
    """Folders with installed packages; not the other entries of `sys.path`, such as a checkout."""
    kinds = ("site-packages", "dist-packages")
    return [p for p in sys.path if os.path.basename(p) in kinds and os.path.isdir(p)]
