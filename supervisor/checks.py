"""How a value of the configuration file is looked at, and how it is named where it is wrong.

Neighbours: `settings`, `settings_workers` and `settings_probe`, which read the tables. Knows no key and no
table.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

OFF: Final = "off"
"""What a key is set to in the file to turn it off: TOML has no null."""
LEVELS: Final = ("debug", "info", "warning", "error")
FORMATS: Final = ("text", "json")
"""What `log_format` may be."""
HIDDEN: Final = "***"
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")
SECRET: Final = re.compile("pass|pwd|secret|token|key|auth|credential|dsn", re.IGNORECASE)
"""What the name of a secret has in it."""
_BEHIND: Final = re.compile(rf"((?:{SECRET.pattern})[\w-]{{0,80}}[=:]\s{{0,9}})[^\s&;,'\"]+", re.IGNORECASE)
_FLAG: Final = re.compile(
    rf"-(?=[\w-]+\Z)(?:(?!{SECRET.pattern})[\w-])*(?:{SECRET.pattern})[\w-]*", re.IGNORECASE
)
"""A word of a command behind which a secret stands."""
_PASSWORD: Final = re.compile(r"(://[^:/?#\s@]*:)(\S+)")

Wrong = Callable[[str, str], None]
"""Takes the path of a mistake and the sentence about it."""


class Reading:
    """One pass over one table, which goes on after a mistake."""

    def __init__(self, path: str, wrong: Wrong) -> None:
        self._path = path
        self._tell = wrong
        self._good = True

    def _wrong(self, key: str, text: str) -> None:
        self._good = False
        self._tell(f"{self._path}.{key}" if key else self._path, text)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a number may be."""

    low: float
    high: float
    whole: bool = False
    power_of_two: bool = False

    def problem(self, value: Any) -> str:
        """What is wrong with `value`, as the end of a sentence; empty = nothing."""
        kind = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, kind):
            return f"must be a {'whole ' if self.whole else ''}number, got {shown(value)}"
        if not value >= self.low:
            return f"must be >= {self.low:g}, got {value}"
        if not value <= self.high:
            return f"must be <= {self.high:.10g}, got {value}"
        if self.power_of_two and value & (value - 1):
            return f"must be a power of two, got {value}"
        return ""


def one_of(words: tuple[str, ...], value: Any) -> str:
    """What is wrong with `value` if it is none of these words; empty = nothing."""
    return "" if value in words else f"must be one of {', '.join(words)}, got {shown(value)}"


def key_of(key: str) -> str:
    """A key as it would stand in the file."""
    return key if _BARE.fullmatch(key) else f'"{key}"'


def shown(value: Any) -> str:
    """A value as it is named in an error: short, and without the password of a URL in it."""
    text = masked(repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def as_json(value: Any) -> Any:
    """A value as JSON has it."""
    return list(value) if isinstance(value, tuple) else value


def masked(text: str) -> str:
    """The text without the password of a URL in it, as people may see it."""
    return _PASSWORD.sub(_hidden, text)


def _hidden(found: re.Match[str]) -> str:
    """Up to the last @ behind it: a password may hold one."""
    begun, rest = found.groups()
    return f"{begun}{HIDDEN}@{rest.rpartition('@')[2]}" if "@" in rest[1:] else begun + rest


def for_people(value: Any) -> Any:
    """A value without passwords, as far as they can be told apart: a text, or the words of a command."""
    if isinstance(value, tuple):
        pairs = zip(("", *value), value, strict=False)
        return [HIDDEN if _FLAG.fullmatch(str(before)) else for_people(item) for before, item in pairs]
    return _BEHIND.sub(rf"\1{HIDDEN}", masked(value)) if isinstance(value, str) else value
