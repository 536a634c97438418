"""Who wrote which stretch of a trajectory's text: prompt, model or tool.

Training masks by token (`Trajectory.segments`); a reader has only the decoded text. By protocol
the first closed python fence ends a turn and the tool's text stands right behind it, so the
text is cut there, execution by execution. A result that the model merely wrote itself stays the
model's: it stands before the fence or no execution answers to it.
"""

from r1ci_engine.trajectory import SegmentKind, Trajectory

Piece = tuple[SegmentKind, str]
FENCE = "```"


def pieces(trajectory: Trajectory) -> list[Piece]:
    """The response cut by writer, without the prompt; the texts joined give the response.

    A result that cannot be found behind its script (nothing was sent back) leaves no piece.
    """
    body = response(trajectory)
    found: list[Piece] = []
    written = 0
    for execution in trajectory.executions:
        start = _result_start(body, execution.code, execution.shown, written)
        if start is None:
            continue
        end = start + len(execution.shown)
        found.append((SegmentKind.MODEL, body[written:start]))
        found.append((SegmentKind.TOOL, body[start:end]))
        written = end
    if body[written:]:
        found.append((SegmentKind.MODEL, body[written:]))
    return found


def response(trajectory: Trajectory) -> str:
    """The decoded text without the prompt, whether or not `text` begins with it."""
    text = trajectory.text
    return text[len(trajectory.prompt) :] if text.startswith(trajectory.prompt) else text


def _result_start(body: str, code: str, shown: str, written: int) -> int | None:
    if not shown:
        return None
    opening = body.find(FENCE + "python", written)
    script = body.find(code, opening) if opening >= 0 else -1
    closing = body.find(FENCE, script + len(code)) if script >= 0 else -1
    start = body.find(shown, closing + len(FENCE)) if closing >= 0 else -1
    return start if start >= 0 else None
