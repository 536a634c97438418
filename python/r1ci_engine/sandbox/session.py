"""Sessions: code that finds what earlier code has made, and can go back or branch.

A turn runs in a fork of the state before it. If it ends, by an exception too, that fork is the
next state; a turn that is stopped or dies leaves the session where it was. So a state never
changes, and to go back or to branch is to hold on to one. The exceptions are what a fork shares:
files in the work folder, where in an open file one is, what lies in a pipe, and memory mapped as
shared (`mmap.mmap(-1, size)` is, unless told otherwise). All branches share these, turns that run
side by side included, and they stay as they are when a session goes back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from r1ci_engine._rust import SessionState, Supervisor
from r1ci_engine.errors import SandboxError
from r1ci_engine.sandbox.requests import ExecutionRequest, ExecutionResult, from_raw, to_raw


@dataclass(frozen=True)
class Checkpoint:
    """A state of a session to come back to; it is kept until this is freed."""

    _state: SessionState


class Session:
    """A line of turns, from `Sandbox.open_session`. Freed or closed, it lets go of its state.

    The first turn decides, by the modules that it names, which warm interpreter the session lives
    in. Threads that a turn leaves running stand still between turns and do not reach the next.
    If a turn makes processes of its own, or speaks in the sandbox's place, its session ends with
    all branches; turns of other branches that were under way then end as `infrastructure`.
    """

    def __init__(self, supervisor: Supervisor, state: SessionState) -> None:
        self._supervisor = supervisor
        self._held: SessionState | None = state

    @property
    def _state(self) -> SessionState:
        if self._held is None:
            raise SandboxError("the session is closed", hint="open a new one")
        return self._held

    def run(
        self,
        code: str,
        *,
        stdin: str = "",
        files: Mapping[str, bytes] | None = None,
        fetch: Sequence[str] = (),
    ) -> ExecutionResult:
        """Run one turn and wait for it; if the result is `kept`, the session goes on from there.

        The arguments are fields of an `ExecutionRequest`; `files` None: none.
        """
        request = ExecutionRequest(code, stdin, files=files or {}, fetch=fetch)
        ((result, after),) = self.run_branches([request])
        self._held = after._held
        return result

    def run_branches(
        self, requests: Sequence[ExecutionRequest]
    ) -> list[tuple[ExecutionResult, "Session"]]:
        """Run turns side by side that all start from here, each on a branch of its own.

        With each result comes the session as it is after that turn: here, if it was not kept. This
        session stays where it is. Requests bring no limits and no seeds: the session has its own.
        """
        for request in requests:
            _check_turn(request)
        turns = self._supervisor.run_turns(self._state, [to_raw(r) for r in requests])
        return [(from_raw(raw), Session(self._supervisor, state)) for raw, state in turns]

    def submit(self, request: ExecutionRequest) -> tuple[int, "Session"]:
        """Queue one turn on a branch of its own: the ticket under which `Sandbox.collect` returns
        its result, and the session that it leads to if that is `kept`."""
        _check_turn(request)
        ticket, state = self._supervisor.submit_turn(self._state, to_raw(request))
        return ticket, Session(self._supervisor, state)

    def close(self) -> None:
        """Let go of the state; nothing runs in this session any more. Branches keep theirs."""
        self._held = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def branch(self) -> Self:
        """A second session that goes on from here by itself."""
        return type(self)(self._supervisor, self._state)

    def checkpoint(self) -> Checkpoint:
        """Where the session is now."""
        return Checkpoint(self._state)

    def roll_back(self, checkpoint: Checkpoint) -> None:
        """Go back, or sideways, to a state of this sandbox."""
        self._held = checkpoint._state


def _check_turn(request: ExecutionRequest) -> None:
    if request.limits is not None or request.seed != 0:
        raise SandboxError(
            "a turn brings no limits and no seed of its own",
            hint="give them to `open_session`: they hold for all turns",
        )
