"""The errors a user can meet, each with an optional next step.

One root, few children, every child also the standard-library class it refines, so that callers
who know nothing of this package catch what they expect. A failing *rollout* is not an error: it
is data (`StopReason`, `ExitReason`). All classes survive pickling, because they cross process
groups. Two functions word what data got wrong, the same way everywhere.
"""

import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 60, 60, 40


class R1ciError(Exception):
    """Root of all errors meant for a person.

    `message` states the fact with the offending value in backticks; `hint` is the next step.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class ConfigError(R1ciError, ValueError):
    """A recipe, flag or run folder asks for something that is not offered."""


class DataError(R1ciError, ValueError):
    """Data cannot be used as they are: a file of items or trajectories, the tensors of a call."""


class ModelError(R1ciError, ValueError):
    """A model folder, tokenizer or template cannot be used as it is."""


class CheckpointError(R1ciError, RuntimeError):
    """A checkpoint could not be written or read; the last good one is untouched."""


class SandboxError(R1ciError, RuntimeError):
    """The sandbox cannot start at the level asked for, or has died for good."""


class EndpointError(R1ciError, RuntimeError):
    """A model behind an endpoint cannot be asked, and asking again would not help."""


class KernelUnavailable(R1ciError, RuntimeError):
    """A kernel was forced that this machine cannot run."""


class MissingExtra(R1ciError, ImportError):
    """A feature needs a package that is not installed; the hint has the command."""


def short_repr(value: object) -> str:
    """`repr` for a message: short, however long or deep the value is."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # more digits than Python is willing to write
        return f"a {type(value).__name__} too long to show"


def first_fault(error: "ValidationError") -> str:
    """The first thing a validation found: the place, the value there, and what is wrong with it."""
    fault = error.errors(include_url=False)[0]
    said = fault["msg"].removeprefix("Value error, ")
    said = said[:1].lower() + said[1:]
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "missing":
        return f"`{place}` is missing"
    if not place:
        return said
    return f"`{place}` = `{short_repr(fault['input'])}`: {said}"
