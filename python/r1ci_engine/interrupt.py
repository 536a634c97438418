"""Stopping on request without losing work.

Ctrl-C and SIGTERM set a flag; the run looks at it where stopping is safe (between steps, between
finished trajectories), saves and says where. A second Ctrl-C stops at once; one that follows within
a tenth of a second is the first one delivered twice, as some launchers do.
"""

import signal
import threading
import time
from types import FrameType
from typing import Any


class Stopped(Exception):
    """Raised at a safe place after a stop was asked for."""


SAME_REQUEST_S = 0.1
"""Signals closer together than this are one request: nobody presses Ctrl-C twice so fast."""


class StopRequest:
    """Context that turns SIGINT and SIGTERM into a flag; does nothing outside the main thread."""

    def __init__(self) -> None:
        self.asked = False
        self._asked_at = 0.0
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
        now = time.monotonic()
        if self.asked and now - self._asked_at >= SAME_REQUEST_S:
            raise KeyboardInterrupt
        self.asked, self._asked_at = True, now

    def check(self) -> None:
        """Raise Stopped if a stop was asked for. Call it only where stopping loses nothing."""
        if self.asked:
            raise Stopped
