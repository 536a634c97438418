"""Answers from the model of the configuration, by the run's own engine."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

from r1ci_engine.collect.settings import Settings, first_messages
from r1ci_engine.interrupt import StopRequest
from r1ci_engine.rollout.request import RolloutRequest
from r1ci_engine.rollout.steer import AGENT as STEERED
from r1ci_engine.tasks.prompts import styled_messages
from r1ci_engine.trajectory import Item, SegmentKind, Trajectory
from r1ci_engine.workbench import Workbench

# A part keeps all slots busy for about this many samples each: its last ones run in thin company.
_ROUNDS_PER_PART = 8


class OwnModel:
    """A workbench that answers in the styles of `settings`. A context manager."""

    def __init__(self, bench: Workbench, settings: Settings, stop: StopRequest) -> None:
        self._bench, self._settings, self._stop = bench, settings, stop
        self.part_size = _ROUNDS_PER_PART * bench.config.rollout.slots
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bench.__exit__()

    def require_room(self, items: Sequence[Item]) -> None:
        """Raise DataError for the first prompt that leaves no room to answer."""
        for item in items:
            for agent in self._settings.agents:
                for style in self._settings.prompts:
                    messages = styled_messages(item, agent, style)
                    tokens = self._bench.template.prompt_tokens(messages)
                    self._bench.engine.require_room(item, tokens)

    def answer(
        self, requests: Sequence[RolloutRequest], on_done: Callable[[], None]
    ) -> tuple[list[Trajectory], None]:
        """One judged trajectory per request, in order, with its messages.

        Raises Stopped when asked to stop, and what the engine raises.
        """
        prompts = [first_messages(request, self._settings) for request in requests]
        template = self._bench.template

        def done(_: Trajectory) -> None:
            self._stop.check()
            on_done()

        self._stop.check()
        trajectories = self._bench.sample(
            [
                replace(request, prompt=template.prompt_tokens(prompt))
                for request, prompt in zip(requests, prompts, strict=True)
            ],
            done,
        )
        for trajectory, prompt in zip(trajectories, prompts, strict=True):
            if trajectory.agent != STEERED:
                trajectory.messages = self._messages(trajectory, prompt)
        return trajectories, None

    def _messages(
        self, trajectory: Trajectory, prompt: list[dict[str, str]]
    ) -> list[dict[str, str]]:
        """The conversation as text; results stand as they were shown."""
        texts = iter(self._bench.turn_texts(trajectory))
        results = (execution.shown for execution in trajectory.executions)
        messages = list(prompt)
        for segment in trajectory.segments:
            if segment.kind is SegmentKind.MODEL:
                messages.append({"role": "assistant", "content": next(texts)})
            elif segment.kind is SegmentKind.TOOL:
                messages.append({"role": "tool", "content": next(results)})
        return messages
