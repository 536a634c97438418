"""Sessions: code that finds what earlier code has made, and can go back or branch.

A turn runs in a fork of the state before it. If it ends, by an exception too, that fork is the
next state; a turn that is stopped or dies leaves the session where it was. So a state never
changes, and to go back or to branch is to hold on to one. Files in the work folder are the
exception: all branches share them, and they stay as they are when a session goes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from r1ci_engine._rust import SessionState, Supervisor
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
        self._state = state

    def run(self, code: str, *, stdin: str = "") -> ExecutionResult:
        """Run one turn and wait for it; if the result is `kept`, the session goes on from there.

        For files that go in or come out, use `run_branches` with one request.
        """
        ((result, after),) = self.run_branches([ExecutionRequest(code, stdin)])
        self._state = after._state
        return result

    def run_branches(
        self, requests: Sequence[ExecutionRequest]
    ) -> list[tuple[ExecutionResult, "Session"]]:
        """Run turns side by side that all start from here, each on a branch of its own.

        With each result comes the session as it is after that turn: here, if it was not kept. This
        session stays where it is. Limits and seeds of the requests are not used: the session has
        its own.
        """
        turns = self._supervisor.run_turns(self._state, [to_raw(r) for r in requests])
        return [(from_raw(raw), Session(self._supervisor, state)) for raw, state in turns]

    def submit(self, request: ExecutionRequest) -> tuple[int, "Session"]:
        """Queue one turn on a branch of its own: the ticket under which `Sandbox.collect` returns
        its result, and the session that it leads to if that is `kept`."""
        ticket, state = self._supervisor.submit_turn(self._state, to_raw(request))
        return ticket, Session(self._supervisor, state)

    def branch(self) -> Self:
        """A second session that goes on from here by itself."""
        return type(self)(self._supervisor, self._state)

    def checkpoint(self) -> Checkpoint:
        """Where the session is now."""
        return Checkpoint(self._state)

    def roll_back(self, checkpoint: Checkpoint) -> None:
        """Go back, or sideways, to a state of this sandbox."""
        self._state = checkpoint._state
