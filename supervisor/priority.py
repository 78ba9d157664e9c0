"""The log's form: plain lines or JSON; for journald with priorities (`<3>`), so that -p err finds them.

systemd sets JOURNAL_STREAM to device and inode of the stream that it connected; if standard error is
something else, such as a file, the prefix would be noise. Neighbours: `stderr` (which writes), `main`,
`nursery`, `daemon`, and `logs`, whose workers' lines have the same form. Knows no message.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from supervisor.stderr import Stderr

VARIABLE: Final = "JOURNAL_STREAM"
FORM: Final = "%(levelname)s %(name)s: %(message)s"
TEXT_MAX: Final = 65_536
"""Characters of a message, and of a traceback, that are kept."""
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
DEBUG: Final = 7
_KNOWN: Final = frozenset((*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"))
"""What every record has; the rest is what a caller gave as `extra`."""


def priority(level: int) -> int:
    """The priority of syslog for a level of logging."""
    return next((number for least, number in _PRIORITIES if level >= least), DEBUG)


def marked(text: str, level: int) -> str:
    """The text with its priority before every line: journald reads a priority a line."""
    return "\n".join(f"<{priority(level)}>{line}" for line in text.splitlines())


def to_journal(environ: Mapping[str, str], stream: TextIO | None) -> bool:
    """True if this is the stream that journald reads."""
    told = environ.get(VARIABLE)
    if not told or stream is None:
        return False
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return told == f"{found.st_dev}:{found.st_ino}"


def date(seconds: float) -> str:
    """A time since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds")


def shortened(text: str) -> str:
    """The text, cut where it is longer than anybody reads."""
    return (
        text if len(text) <= TEXT_MAX else f"{text[:TEXT_MAX]} ... ({len(text) - TEXT_MAX} more characters)"
    )


class TextFormatter(logging.Formatter):
    """`LEVEL name: message`, a traceback below it."""

    def __init__(self) -> None:
        super().__init__(FORM)

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines."""
        return shortened(super().format(record))


class JsonFormatter(logging.Formatter):
    """One JSON object a line, in ASCII: at, level, logger, pid, text, exception, and what `extra` gave."""

    def __init__(self, **more: str) -> None:
        super().__init__()
        self._more = more

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        said: dict[str, Any] = {
            "at": date(record.created),
            "level": record.levelname,
            "logger": record.name,
            "pid": record.process,
            **self._more,
            "text": shortened(record.getMessage()),
        }
        if record.exc_info:
            said["exception"] = shortened(self.formatException(record.exc_info))
        elif record.exc_text:
            said["exception"] = shortened(record.exc_text)
        if record.stack_info:
            said["stack"] = shortened(record.stack_info)
        for key, value in vars(record).items():
            if key not in _KNOWN and key not in said:
                said[key] = value if isinstance(value, int | float | bool | None) else shortened(str(value))
        return json.dumps(said)


class JournalFormatter(logging.Formatter):
    """Another formatter's lines as journald takes them."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The record's lines, a traceback's among them."""
        return marked(self._inner.format(record), record.levelno)


class StderrHandler(logging.Handler):
    """Writes to standard error without ever waiting for whoever reads it."""

    def __init__(self, stderr: Stderr) -> None:
        super().__init__()
        self.stderr = stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record. Never raises: whoever logs goes on."""
        try:
            text = self.format(record)
        except Exception as error:  # noqa: BLE001 (a record that cannot be shown must not stop who logs it)
            text = f"{record.levelname} {record.name}: {record.msg!r:.200} cannot be shown: {error!r:.200}"
        self.stderr.write(f"{text}\n".encode(errors="backslashreplace"))


def form(log_format: str, journal: bool) -> logging.Formatter:
    """The formatter of breakerd's own lines."""
    inner = JsonFormatter() if log_format == "json" else TextFormatter()
    return JournalFormatter(inner) if journal else inner


def begin(level: int | str, environ: Mapping[str, str], log_format: str = "text") -> None:
    """Log to standard error from this level on."""
    journal = to_journal(environ, sys.stderr)
    handler = StderrHandler(open_stderr(sys.stderr, journal))
    handler.setFormatter(form(log_format, journal))
    logging.basicConfig(handlers=[handler], level=level)


def change(level: str, environ: Mapping[str, str], log_format: str) -> None:
    """What the configuration says about a log that was begun before it was read."""
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in root.handlers:
        if isinstance(handler, StderrHandler):
            handler.setFormatter(form(log_format, to_journal(environ, sys.stderr)))


def dropped() -> tuple[int, float | None]:
    """Lines of this process that were never written, and when the last one was, s of CLOCK_MONOTONIC."""
    places = [one.stderr for one in logging.getLogger().handlers if isinstance(one, StderrHandler)]
    return (places[0].dropped, places[0].dropped_at) if places else (0, None)


def open_stderr(stream: TextIO | None, journal: bool) -> Stderr:
    """Standard error as it is now; one that is closed, or no file, takes nothing."""
    try:
        number = -1 if stream is None else stream.fileno()
    except (OSError, ValueError):
        number = -1
    return Stderr(number, time.monotonic, f"<{priority(logging.WARNING)}>" if journal else "")


def complain(text: str, environ: Mapping[str, str]) -> None:
    """An error on standard error, before there is a log."""
    if sys.stderr is None:
        return
    journal = to_journal(environ, sys.stderr)
    sys.stderr.write((marked(text, logging.ERROR) if journal else text) + "\n")
