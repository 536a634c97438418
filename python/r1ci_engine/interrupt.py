"""Stopping on request without losing work.

Ctrl-C and SIGTERM set a flag; the run looks at it where stopping is safe (between steps, between
finished trajectories), saves and says where. A second Ctrl-C stops at once.
"""

import signal
import threading
from types import FrameType
from typing import Any


class Stopped(Exception):
    """Raised at a safe place after a stop was asked for."""


class StopRequest:
    """Context that turns SIGINT and SIGTERM into a flag; does nothing outside the main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raise Stopped if a stop was asked for. Call it only where stopping loses nothing."""
        if self.asked:
            raise Stopped
