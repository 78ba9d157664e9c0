"""What a probe is asked and what it may say: values, the three ways to end badly, and where secrets are.

Neighbours: every kind of probe, each with a `prepare` that reads secrets and loads drivers (which may take
its time) and returns what then asks within the time limit; `prober` calls both. Knows no kind.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from workers.redact import HIDDEN, redact

SECRET_BYTES_MAX: Final = 65_536
"""Of a file that holds a URL."""
HIDDEN_LEAST: Final = 3
"""Characters of the shortest password that is looked for in a text: a shorter one is everywhere."""


class ProbeFailed(Exception):
    """The dependency was asked, or could not be reached: it does not serve."""


class CannotAsk(Exception):
    """Nothing was asked: a mistake of the configuration, or nobody here may ask. Says nothing of the
    dependency.
    """


class Late(BaseException):
    """The time of the probe is over. No driver's `except Exception` may swallow it."""


@dataclass(frozen=True, slots=True)
class Passed:
    """It serves."""

    text: str
    details: Mapping[str, int] = field(default_factory=dict)


Ask = Callable[[], Passed]
"""Asks once; raises ProbeFailed, CannotAsk, Late, or what its driver raises."""


@dataclass(frozen=True, slots=True)
class Question:
    """One probe as the supervisor sends it; a kind uses what is its own."""

    kind: str
    timeout_s: float
    url: str = ""
    statement: str = ""
    address: str = ""
    status: tuple[int, ...] = ()
    body: str = ""
    command: tuple[str, ...] = ()
    target: str = ""
    details: bool = False
    """Whether figures of the dependency are wanted, too: somebody looks at this probe."""

    @classmethod
    def read(cls, table: Mapping[str, Any], details: bool) -> Question:
        """The question in a message. Raises CannotAsk if a newer supervisor sent it."""
        known = {item.name for item in fields(cls)}
        if unknown := [key for key in table if key not in known]:
            raise CannotAsk(f"this prober is of another version: it does not know {', '.join(unknown)}")
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
        }
        try:
            return cls(**plain, details=details)
        except TypeError:
            raise CannotAsk("this prober is of another version: the question lacks something") from None


def place(value: str) -> str:
    """The URL, or what `env:NAME` or `file:PATH` holds now. Raises CannotAsk, which names the place only."""
    kind, _, where = value.partition(":")
    if kind == "env":
        found = os.environ.get(where)
        if not found:
            raise CannotAsk(f"the variable {where} is not set in the environment of breakerd")
        return found
    if kind == "file" and not where.startswith("//"):
        try:
            with open(where, encoding="utf-8") as file:
                return file.read(SECRET_BYTES_MAX).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise CannotAsk(f"cannot read {where}: {reason}") from None
    return value


HOSTS: Final = ("host", "hostaddr", "unix_socket_path")


def without(text: str, url: str) -> str:
    """The text in one redacted line, in which no password of this URL, or of the one there, stands."""
    words = _passwords(url)
    with contextlib.suppress(CannotAsk):
        words |= _passwords(place(url))
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, HIDDEN)
    return redact(text)


def _passwords(url: str) -> set[str]:
    """The URL itself and whatever in it may be a password, as it stands there and as it is meant."""
    try:
        parts = urlsplit(url)
        found = [parts.password or "", *_values(parts.query)]
    except ValueError:
        found = []
    words = {url, *found, *map(unquote, found)}
    return {word for word in words if len(word) >= HIDDEN_LEAST}


def _values(query: str) -> list[str]:
    """The values of a query but for its hosts: a socket's path is no secret, and is what one must know."""
    pairs = (pair.partition("=") for pair in query.split("&"))
    return [value for name, _, value in pairs if name not in HOSTS]
