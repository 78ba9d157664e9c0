"""The handling of one message: its time and chance, which breakers it touched, what comes out of it.

Effects leave in a fixed order: what the message itself caused, then for each touched breaker its
transitions as events and the board words that changed, each row once. Neighbours: `engine` makes one
per message and hands it to whoever helps. Knows no message.
"""

from __future__ import annotations

from supervisor.chronicle import Chronicle
from supervisor.host_breaker import HostBreaker
from supervisor.messages import Effect

Effects = list[Effect]


class Turn:
    """One message being handled at `now` (s of CLOCK_MONOTONIC) with `chance` in [0, 1)."""

    __slots__ = ("_chronicle", "chance", "effects", "fed", "moved", "now")

    def __init__(self, now: float, chance: float, chronicle: Chronicle) -> None:
        self.now = now
        self.chance = chance
        self.effects: Effects = []
        self.moved: dict[int, HostBreaker] = {}
        """Breakers whose board words may have changed."""
        self.fed: dict[int, HostBreaker] = {}
        """Breakers that were told outcomes: their words changed only if they are not calm or moved."""
        self._chronicle = chronicle

    def happened(self, kind: str, text: str, breaker: str = "", worker: str = "", **facts: str) -> None:
        """An event, remembered and among the effects."""
        self.effects.append(self._chronicle.add(self.now, kind, text, breaker, worker, **facts))

    def touch(self, breaker: HostBreaker) -> None:
        """Look at this breaker's words at the end of the turn."""
        self.moved[breaker.number] = breaker
