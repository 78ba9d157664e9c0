"""The last events, numbered for the whole life of the journal. Knows no log and no subscriber.

The engine writes; the daemon logs each event once, when it leaves; `views` answers who asks for the
ones after a number. Beyond EVENTS_MAX the oldest are forgotten, and a gap in the numbers tells so.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from supervisor.messages import Happened

EVENTS_MAX: Final = 1000
"""Events remembered."""
TEXT_MAX: Final = 500
"""Characters of an event's text, and of each of its facts; the rest is cut off."""


@dataclass(slots=True)
class Chronicle:
    """Events with the time (s of CLOCK_MONOTONIC) at which each happened, oldest first."""

    following: int = 1
    """The number of the next event."""
    events: deque[tuple[float, Happened]] = field(default_factory=lambda: deque(maxlen=EVENTS_MAX))

    def add(
        self, now: float, kind: str, text: str, breaker: str = "", worker: str = "", **facts: str
    ) -> Happened:
        """Remember an event and return it, numbered; what others wrote into it cannot forge a log line."""
        told = tuple((name, line(fact)) for name, fact in facts.items())
        happened = Happened(self.following, kind, line(text), breaker, worker, told)
        self.following += 1
        self.events.append((now, happened))
        return happened

    def after(self, number: int, limit: int) -> list[tuple[float, Happened]]:
        """At most `limit` remembered events with a larger number, oldest first."""
        skipped = max(0, number - (self.following - 1 - len(self.events)))
        return [self.events[index] for index in range(skipped, min(len(self.events), skipped + limit))]

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        moved = [(at + delta_s, happened) for at, happened in self.events]
        self.events.clear()
        self.events.extend(moved)

    def to_plain(self) -> list[Any]:
        """The events as JSON values."""
        return [
            self.following,
            [
                [
                    at,
                    one.number,
                    one.kind,
                    one.text,
                    one.breaker,
                    one.worker,
                    [list(pair) for pair in one.fields],
                ]
                for at, one in self.events
            ],
        ]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Chronicle:
        """The events that `to_plain` wrote."""
        chronicle = cls(plain[0])
        for at, number, kind, text, breaker, worker, facts in plain[1]:
            fields = tuple((name, value) for name, value in facts)
            chronicle.events.append((at, Happened(number, kind, text, breaker, worker, fields)))
        return chronicle


def line(text: str) -> str:
    """At most TEXT_MAX printable characters on one line."""
    text = text[:TEXT_MAX]
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
