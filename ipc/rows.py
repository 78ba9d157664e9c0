"""The rows of a process: one per breaker name, shared by every CircuitBreaker object of that name.

Neighbours: `link` (which numbers rows), `client` (which keeps them by name), `admission` (which counts on
them). Knows no socket.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from ipc import layout as at
from ipc.link import Link
from ipc.vocabulary import CLASSES_PER_BREAKER, FOREVER, OTHER_CLASS, BreakerSettings, OutcomeKind

TEXT_MAX: Final = 128
"""Characters of what is declared: names of exception classes, kinds and operations."""


@dataclass(slots=True, eq=False, repr=False)
class Row:
    """One breaker of this process: which row it is, its exception classes, its question for a permit."""

    link: Link
    number: int
    name: str
    settings: BreakerSettings
    classes: dict[str, int] = field(default_factory=dict)
    """Exception class name: the index of its count among the tallies."""
    ask: int = 0
    """Number of the question that is asked now or next."""
    awaited: bool = False
    """A first call has waited for the board to show this row."""
    asking_until: float = -FOREVER
    """While this lies ahead a thread of this process is asking, and others are refused, s."""

    def class_index(self, kind: type[BaseException]) -> int:
        """Which tally counts this class; declared on first sight, `other` beyond the limit."""
        name = printable(kind.__name__)
        if name not in self.classes and len(self.classes) >= CLASSES_PER_BREAKER:
            name = OTHER_CLASS
        if name not in self.classes:
            record = b'"of":%d,"class":%s}' % (self.number, json.dumps(name).encode())
            row = self.link.add_class(record)
            if row is None:
                # No row is left: a word of the breaker's own row counts all further classes together.
                name, row = OTHER_CLASS, self.number
            self.classes.setdefault(name, at.TALLIES * row + OutcomeKind.COUNT)
        return self.classes[name]


def printable(text: str) -> str:
    """The text as it may be declared: short, something, and nothing in it that a terminal would obey."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:TEXT_MAX]) or OTHER_CLASS


def declaration(name: str, settings: BreakerSettings) -> bytes:
    """A breaker's declaration without its row; what has its default value is left out."""
    default = BreakerSettings().to_json()
    told = {key: value for key, value in settings.to_json().items() if value != default[key]}
    return json.dumps({"breaker": name, "settings": told}, separators=(",", ":"))[1:].encode()
