"""The last events, numbered for the whole life of the journal. Knows no log and no subscriber.

The engine writes; the daemon logs each event once, when it leaves; `views` answers who asks for the
ones after a number. Each kind of event has a ring of its own, and each breaker one more: no flood of
hellos washes away who forced what open. What fell out of every ring is forgotten; a gap in the numbers
tells so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from supervisor.messages import Happened

KINDS: Final = ("breaker", "command", "denied", "managed", "refused", "supervisor", "worker")
"""What an event is about; denied = commands, refused = hellos and reloads, managed = managed workers."""
EVENTS_MAX: Final = 1000
"""Events remembered of each kind, and told in one answer."""
BREAKER_EVENTS_MAX: Final = 20
"""Events remembered of one breaker."""
BREAKERS_EVENTS_MAX: Final = 4000
"""Events remembered of all breakers together; beyond it the breaker goes first that was quiet for longest."""
TEXT_MAX: Final = 500
"""Characters of an event's text, and of each of its facts; the rest is cut off."""

Event = tuple[float, Happened]
"""With the time (s of CLOCK_MONOTONIC) at which it happened."""


@dataclass(slots=True)
class Chronicle:
    """Events in rings, oldest first in each."""

    following: int = 1
    """The number of the next event."""
    _kinds: dict[str, deque[Event]] = field(default_factory=dict)
    _breakers: dict[str, deque[Event]] = field(default_factory=dict)
    """By full name; the breaker that was quiet for longest comes first."""
    _held: int = 0
    """Events in the rings of all breakers."""

    def add(
        self, now: float, kind: str, text: str, breaker: str = "", worker: str = "", **facts: str
    ) -> Happened:
        """Remember an event and return it, numbered; what others wrote into it cannot forge a log line."""
        told = tuple((name, line(fact)) for name, fact in facts.items())
        happened = Happened(self.following, kind, line(text), breaker, worker, told)
        self.following += 1
        self._remember_kind((now, happened))
        if breaker:
            self._remember_breaker((now, happened))
        return happened

    def _remember_kind(self, event: Event) -> None:
        kind = event[1].kind
        if kind not in self._kinds:
            self._kinds[kind] = deque(maxlen=EVENTS_MAX)
        self._kinds[kind].append(event)

    def _remember_breaker(self, event: Event) -> None:
        """Into the ring of its breaker, which is now the last that anything happened to."""
        ring = self._breakers.pop(event[1].breaker, None)
        ring = deque(maxlen=BREAKER_EVENTS_MAX) if ring is None else ring
        self._held += len(ring) < BREAKER_EVENTS_MAX
        ring.append(event)
        self._breakers[event[1].breaker] = ring
        while self._held > BREAKERS_EVENTS_MAX:
            self._held -= len(self._breakers.pop(next(iter(self._breakers))))

    def after(self, number: int, limit: int, breaker: str = "", kind: str = "") -> list[Event]:
        """At most `limit` remembered events with a larger number, oldest first.

        With `breaker` or `kind` only those of that breaker (full name) or kind.
        """
        return [event for event in self._wanted(breaker, kind) if event[1].number > number][:limit]

    def last(self, limit: int, breaker: str = "", kind: str = "") -> list[Event]:
        """The newest `limit` remembered events, oldest first; of a breaker or kind as in `after`."""
        wanted = list(self._wanted(breaker, kind))
        return wanted[max(0, len(wanted) - limit) :]

    def of(self, breaker: str) -> list[Event]:
        """The last events of this breaker (full name), oldest first."""
        return list(self._breakers.get(breaker, ()))

    def _wanted(self, breaker: str, kind: str) -> Iterator[Event]:
        """The remembered events, each once, in the order of their numbers."""
        for event in self._all():
            if (not breaker or event[1].breaker == breaker) and (not kind or event[1].kind == kind):
                yield event

    def _all(self) -> list[Event]:
        rings = (*self._kinds.values(), *self._breakers.values())
        found = {event[1].number: event for ring in rings for event in ring}
        return [found[number] for number in sorted(found)]

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        for ring in (*self._kinds.values(), *self._breakers.values()):
            moved = [(at + delta_s, happened) for at, happened in ring]
            ring.clear()
            ring.extend(moved)

    def to_plain(self) -> list[Any]:
        """The events as JSON values, and which of them the breakers remember, by number."""
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
                for at, one in self._all()
            ],
            [[name, [one.number for _, one in ring]] for name, ring in self._breakers.items()],
        ]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Chronicle:
        """The events that `to_plain` wrote, also before breakers had events of their own."""
        following, events, *breakers = plain
        chronicle = cls(following)
        known: dict[int, Event] = {}
        for at, number, kind, text, breaker, worker, facts in events:
            fields = tuple((name, value) for name, value in facts)
            event = known[number] = (at, Happened(number, kind, text, breaker, worker, fields))
            chronicle._remember_kind(event)
            if breaker and not breakers:
                chronicle._remember_breaker(event)
        for name, numbers in breakers[0] if breakers else ():
            ring = chronicle._breakers[name] = deque((known[one] for one in numbers), BREAKER_EVENTS_MAX)
            chronicle._held += len(ring)
        return chronicle


def line(text: str) -> str:
    """At most TEXT_MAX printable characters on one line."""
    text = text[:TEXT_MAX]
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)
