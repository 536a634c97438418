"""The metrics log: one JSON object per line, appended as the run goes.

Every line has `phase`, `step`, `stage` (or null) and `seconds` since the start of the run, then
the metrics by name. A run can be killed at any byte: the reader skips a torn last line, and
opening the log for writing removes it, so that no line is ever glued to half of another.
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from r1ci_engine.report.records import MetricsLine, parse_record, read_content


class MetricsLog:
    """Append-only writer of `metrics.jsonl`; each line reaches the file as it is written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        _cut_torn_line(path)
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(
        self,
        phase: str,
        step: int,
        metrics: Mapping[str, Any],
        *,
        seconds: float,
        stage: int | None = None,
    ) -> None:
        """Append one line. Numbers that are not finite become null: JSON has no word for them."""
        head = {"phase": phase, "step": step, "stage": stage, "seconds": round(seconds, 3)}
        line = head | {name: _plain(value) for name, value in metrics.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def truncate_after(self, phase: str, step: int) -> int:
        """Drop what a resumed run will write again; returns the number of lines dropped.

        Keeps everything up to and including the last line of `phase` with a step of at most
        `step`, in the order of the file. If `phase` has no such line, it is cut where the phase
        begins; a phase that has not begun cuts nothing.
        """
        lines = self.path.read_bytes().splitlines(keepends=True)
        records = [_parse(self.path, number, line) for number, line in enumerate(lines, 1)]
        end = len(lines)
        of_phase = [index for index, record in enumerate(records) if record["phase"] == phase]
        if of_phase:
            kept = [index for index in of_phase if records[index]["step"] <= step]
            end = kept[-1] + 1 if kept else of_phase[0]
        if end < len(lines):
            self._file.flush()
            os.truncate(self.path, sum(len(line) for line in lines[:end]))
        return len(lines) - end

    def close(self) -> None:
        """Close the file; the log is complete on disk."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines in order, without a torn last one; an absent file has none.

    Raises DataError with the line number if a line is damaged or a metric is no number. Numbers
    too large for any chart (`records.LARGEST`) come back as None.
    """
    lines = (read_content(path) or b"").splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    return [_parse(path, number, line) for number, line in enumerate(lines, 1)]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    where = f"`{path}` line {number}"
    return parse_record(MetricsLine, line, where, "a metrics line").model_dump()


def _cut_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _plain(value: Any) -> float | int | None:
    if value is None or isinstance(value, int):
        return None if value is None else int(value)  # a truth becomes 1 or 0
    number = float(value)  # also what numpy and tensors of one element give
    return number if math.isfinite(number) else None
