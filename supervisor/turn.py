"""The handling of one message: its time and chance, which breakers it touched, what comes out of it.

Effects leave in a fixed order: what the message itself caused, then for each touched breaker its
transitions as events and the board words that changed, each row once. Neighbours: `engine` makes one
per message and hands it to whoever helps. Knows no message but what others note.
"""

from __future__ import annotations

from supervisor.chronicle import Chronicle
from supervisor.host_breaker import HostBreaker
from supervisor.messages import Effect, Noted

Effects = list[Effect]


class Turn:
    """One message being handled at `now` (s of CLOCK_MONOTONIC) with `chance` in [0, 1)."""

    __slots__ = ("_chronicle", "chance", "effects", "gone", "now", "touched")

    def __init__(self, now: float, chance: float, chronicle: Chronicle) -> None:
        self.now = now
        self.chance = chance
        self.effects: Effects = []
        self.touched: dict[int, HostBreaker] = {}
        """Breakers that were told something, by their number, in the order of the telling."""
        self.gone: list[int] = []
        """Numbers of the breakers that were forgotten."""
        self._chronicle = chronicle

    def happened(self, kind: str, text: str, breaker: str = "", worker: str = "", **facts: str) -> None:
        """An event, remembered and among the effects."""
        self.effects.append(self._chronicle.add(self.now, kind, text, breaker, worker, **facts))

    def noted(self, told: Noted) -> None:
        """What others saw happen is an event like any other."""
        self.effects.append(
            self._chronicle.add(self.now, told.kind, told.text, told.breaker, told.worker, **dict(told.facts))
        )

    def touch(self, breaker: HostBreaker) -> None:
        """Look at this breaker at the end of the turn."""
        self.touched[breaker.number] = breaker

    def forgot(self, breaker: HostBreaker) -> None:
        """This breaker is no more: nothing of it is to be looked at."""
        self.touched.pop(breaker.number, None)
        self.gone.append(breaker.number)
