"""Answers from a model behind an endpoint: many conversations at once, and what may go wrong.

A reply that fails loses its sample, which counts as `lost`. What would fail for every sample ends
the run; what was finished by then is handed over first, because it may have cost money.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self

from r1ci_engine.collect.chat import Chat, SteeredChat, trajectory_of
from r1ci_engine.collect.endpoint import Endpoint, Lost
from r1ci_engine.collect.settings import Settings, first_messages
from r1ci_engine.config import RunConfig
from r1ci_engine.errors import EndpointError, R1ciError
from r1ci_engine.interrupt import Stopped, StopRequest
from r1ci_engine.rollout.request import RolloutRequest
from r1ci_engine.rollout.steer import AGENT as STEERED
from r1ci_engine.sandbox import AsyncSandbox
from r1ci_engine.tasks.checks import Checker
from r1ci_engine.trajectory import Item, StopReason, Trajectory
from r1ci_engine.workbench import judge, open_sandbox, sandbox_options

PART = 64
"""Samples that are written at once, and the most conversations at a time."""
MANY = 8
"""When so many samples are lost and none succeeds, it is not for the samples."""
_LOOK_S = 0.1


class RemoteModel:
    """One model behind an endpoint. A context manager."""

    part_size = PART

    def __init__(
        self,
        config: RunConfig,
        settings: Settings,
        key: str | None,
        concurrency: int,
        stop: StopRequest,
    ) -> None:
        """Raises MissingExtra without the client library, SandboxError without a sandbox."""
        assert settings.endpoint is not None and settings.endpoint_model is not None
        self._endpoint = Endpoint(settings.endpoint, settings.endpoint_model, key)
        self._config, self._settings = config, settings
        self._concurrency, self._stop = concurrency, stop
        self._sandbox = open_sandbox(config)
        self._checker = Checker(self._sandbox)
        self._heard = False
        self._last = "the sandbox failed"
        self.complaints: list[str] = []
        """Why samples were lost: the first few reasons, each once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sandbox.close()

    def require_room(self, items: Sequence[Item]) -> None:
        """Nothing is known of the endpoint's context."""

    def answer(
        self, requests: Sequence[RolloutRequest], on_done: Callable[[], None]
    ) -> tuple[list[Trajectory], Exception | None]:
        """Judged trajectories in the order of the requests, and what ended the run before its time.

        With such an error, which is an R1ciError or Stopped, some requests have no trajectory.
        """
        answered, error = asyncio.run(self._answer_all(requests, on_done))
        trajectories = [trajectory for _, trajectory in answered]
        lost = sum(trajectory.faulty for trajectory in trajectories)
        if lost and lost == len(trajectories) and (lost >= MANY or not self._heard):
            failure = EndpointError(
                f"no reply of `{self._settings.endpoint}` can be used: {self._last}",
                hint="is it an OpenAI-compatible endpoint that streams, for this model?",
            )
            return [], error or failure
        self._heard = self._heard or lost < len(trajectories)
        judge(
            [request.item for request, _ in answered],
            trajectories,
            [
                [m["content"] for m in trajectory.messages if m["role"] == "assistant"]
                for trajectory in trajectories
            ],
            self._checker,
            self._config.protocol,
        )
        return trajectories, error

    async def _answer_all(
        self, requests: Sequence[RolloutRequest], on_done: Callable[[], None]
    ) -> tuple[list[tuple[RolloutRequest, Trajectory]], Exception | None]:
        gate = asyncio.Semaphore(self._concurrency)
        options = sandbox_options(self._config.sandbox)
        error: Exception | None = None
        async with AsyncSandbox(**options) as sandbox, self._endpoint as endpoint:
            section, protocol = self._config.rollout, self._config.protocol
            chat = Chat(endpoint, sandbox, protocol, section.max_new_tokens)
            stopped = asyncio.create_task(self._stopped())
            tasks = [asyncio.create_task(self._answer(chat, gate, r)) for r in requests]
            waiting = set(tasks)
            try:
                while waiting and error is None:
                    done, _ = await asyncio.wait(
                        {*waiting, stopped}, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done & waiting:
                        failure = task.exception()
                        if isinstance(failure, R1ciError):
                            error = failure
                        elif failure is not None:
                            raise failure
                        else:
                            on_done()
                    waiting -= done
                    if stopped in done:
                        error = error or Stopped()
            finally:
                under_way: set[asyncio.Task[Any]] = {*waiting, stopped}
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)
        answered = [
            (request, task.result())
            for request, task in zip(requests, tasks, strict=True)
            if not task.cancelled() and task.exception() is None
        ]
        return answered, error

    async def _answer(
        self, chat: Chat, gate: asyncio.Semaphore, request: RolloutRequest
    ) -> Trajectory:
        prompt = first_messages(request, self._settings)
        async with gate:
            try:
                if request.agent == STEERED:
                    return await SteeredChat(chat, chat.protocol.prompt).converse(request)
                return await chat.converse(request, prompt)
            except Lost as reason:
                self._last = str(reason)
                if self._last not in self.complaints and len(self.complaints) < MANY:
                    self.complaints.append(self._last)
                return trajectory_of(request, prompt, [], StopReason.INFRASTRUCTURE, 0)

    async def _stopped(self) -> None:
        while not self._stop.asked:
            await asyncio.sleep(_LOOK_S)
