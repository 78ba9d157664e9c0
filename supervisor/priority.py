"""The log's form: plain lines; under journald each line with its priority (`<3>`), so that -p err finds it.

systemd sets JOURNAL_STREAM to device and inode of the stream that it connected; if standard error is
something else, such as a file, the prefix would be noise. Neighbours: `main`, `daemon`. Knows no message.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Final, TextIO

VARIABLE: Final = "JOURNAL_STREAM"
FORM: Final = "%(levelname)s %(name)s: %(message)s"
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
DEBUG: Final = 7


def priority(level: int) -> int:
    """The priority of syslog for a level of logging."""
    return next((number for least, number in _PRIORITIES if level >= least), DEBUG)


def marked(text: str, level: int) -> str:
    """The text with its priority before every line: journald reads a priority a line."""
    return "\n".join(f"<{priority(level)}>{line}" for line in text.splitlines())


def to_journal(environ: Mapping[str, str], stream: TextIO) -> bool:
    """True if this is the stream that journald reads."""
    told = environ.get(VARIABLE)
    if not told:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return told == f"{found.st_dev}:{found.st_ino}"


class JournalFormatter(logging.Formatter):
    """Lines as journald takes them; the level is in the priority and in the text."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, a traceback's among them."""
        return marked(super().format(record), record.levelno)


def begin(level: int | str, environ: Mapping[str, str]) -> None:
    """Log to standard error from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    journal = to_journal(environ, sys.stderr)
    handler.setFormatter(JournalFormatter(FORM) if journal else logging.Formatter(FORM))
    logging.basicConfig(handlers=[handler], level=level)


def complain(text: str, environ: Mapping[str, str]) -> None:
    """An error on standard error, before there is a log."""
    journal = to_journal(environ, sys.stderr)
    sys.stderr.write((marked(text, logging.ERROR) if journal else text) + "\n")
