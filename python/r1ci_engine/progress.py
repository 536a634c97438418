"""What a run says while it works: bars on a terminal, a line a minute anywhere else.

Everything goes to one console, standard error by default, so that standard output stays free for
scripts. Left out: figures for later reading, which are the metrics log's.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

LINE_EVERY_S = 60.0
"""Seconds between lines of progress where there is no terminal for a bar."""


class Display:
    """The run's voice."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    def say(self, text: str) -> None:
        """One message as it is: brackets in a path are no markup, and long lines stay whole."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def progress(
        self, description: str | None, total: int, done: int = 0
    ) -> Iterator[Callable[[str], None]]:
        """Shows how far a phase is; call what it yields with a remark to advance by one.

        A terminal gets a bar, a file or pipe a line a minute and one at the end, None nothing.
        """
        if description is None:
            yield lambda remark: None
            return
        if not self.console.is_terminal:
            yield self._lines(description, total, done)
            return
        columns = (
            TextColumn(f"{description:<18}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[remark]}"),
        )
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(description, total=total, completed=done, remark="")
            yield lambda remark: bar.update(task, advance=1, remark=remark)

    def _lines(self, description: str, total: int, done: int) -> Callable[[str], None]:
        began = spoke = time.monotonic()

        def advance(remark: str) -> None:
            nonlocal done, spoke
            done, now = done + 1, time.monotonic()
            if done == total or now - spoke >= LINE_EVERY_S:
                spoke = now
                self.say(
                    f"{description:<18} {done}/{total}  {now - began:.0f} s  {remark}".rstrip()
                )

        return advance
