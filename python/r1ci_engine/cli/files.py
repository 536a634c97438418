"""Paths from the command line, looked at before they are opened."""

import stat
from pathlib import Path

from r1ci_engine.errors import ConfigError

_KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


def require_file(path: Path) -> Path:
    """`path`, unless reading it could wait or go on for ever: then ConfigError says what it is.

    Pipes of the shell (`/dev/stdin`, `<(...)`) have a writer and are let through. What is missing
    or may not be read is left to whoever opens it.
    """
    if path.is_relative_to("/dev/fd") or path == Path("/dev/stdin"):
        return path
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return path
    for is_kind, name in _KINDS:
        if is_kind(mode):
            raise ConfigError(
                f"cannot read `{path}`: it is {name}, not a file", "give the path of a file"
            )
    return path
