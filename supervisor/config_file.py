"""The configuration file as it is read while the supervisor serves: never waited for, never half.

A FIFO or a device is refused, not read; so is a file that changes while it is read. A file that was cut
off between two tables cannot be told from one that was edited so. May run in a thread: touches nothing
else. Neighbours: `settings` (what the text means), `reload` (who asks).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from supervisor.errors import ConfigurationError
from supervisor.settings import FILE_MAX, SupervisorSettings, decode, parse

PIECE: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Checked:
    """A file that was read and looked through."""

    errors: tuple[str, ...] = ()
    """Every mistake; none = the other two are there."""
    text: str = ""
    settings: SupervisorSettings = field(default_factory=SupervisorSettings)


def check(path: str) -> Checked:
    """Read the file and look through all of it."""
    try:
        text = read(path)
        return Checked((), text, parse(text, path))
    except ConfigurationError as error:
        return Checked(error.errors)


def read(path: str, take: Callable[[int, int], bytes] = os.read) -> str:
    """The text of a regular file that nobody writes to at this moment. Raises ConfigurationError.

    `take` is what reads at most so many bytes from a descriptor.
    """
    try:
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            before = os.fstat(number)
            if not stat.S_ISREG(before.st_mode):
                raise ConfigurationError((f"{path}: cannot be read: not a regular file",))
            data = _all(number, take)
            after = os.fstat(number)
        finally:
            os.close(number)
    except OSError as error:
        raise ConfigurationError((f"{path}: cannot be read: {error.strerror}",)) from error
    changed = (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)
    if len(data) <= FILE_MAX and (changed or len(data) != after.st_size):
        raise ConfigurationError((f"{path}: was written to while it was read; try again",))
    return decode(data, path)


def _all(number: int, take: Callable[[int, int], bytes]) -> bytes:
    """What is in the file, as far as one byte beyond the limit."""
    pieces = []
    left = FILE_MAX + 1
    while left and (piece := take(number, min(left, PIECE))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
