"""Trial permits as leases: who holds which until when, over all circuits of one breaker.

A lease holds its slot until its trial ended, its holder died or its deadline passed, also when the
half-open period that gave it is over: so the trials in flight on the host are never more than allowed.
Neighbours: `breaker` (who may have one, and what the end of one means). Knows no circuit and no clock.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from ipc.vocabulary import FOREVER

PERMIT_CODES: Final = 64
"""An outcome carries the low six bits of its permit; live leases never share them."""
LEASE_GRACE_S: Final = 1.0
"""Seconds that a permit outlives `trial_timeout`."""


class Lease(NamedTuple):
    """One permit that was given and has not ended."""

    permit: int
    party: str
    ask: int
    """The number of the party's question: asked again, it gets the same permit again."""
    generation: int
    """Of the half-open period that gave it."""
    until: float
    """When it expires, s."""


class Leases:
    """The live leases of one breaker, by permit, and each party's last answered question."""

    __slots__ = ("_asked", "_next", "live")

    def __init__(self) -> None:
        self.live: dict[int, Lease] = {}
        self._next = 1
        self._asked: dict[str, tuple[int, int]] = {}
        """party: (ask, permit) of its last grant."""

    def __len__(self) -> int:
        return len(self.live)

    def grant(self, party: str, ask: int, generation: int, until: float) -> Lease:
        """A new lease; its id differs from every live one in the low six bits."""
        taken = {permit % PERMIT_CODES for permit in self.live}
        permit = self._next
        while permit % PERMIT_CODES in taken:
            permit += 1
        self._next = permit + 1
        lease = self.live[permit] = Lease(permit, party, ask, generation, until)
        self._asked[party] = ask, permit
        return lease

    def answered(self, party: str, ask: int) -> bool:
        """True if this very question was granted before."""
        return self._asked.get(party, (None, 0))[0] == ask

    def given(self, party: str) -> Lease | None:
        """The lease of the party's last grant while it lives."""
        asked = self._asked.get(party)
        return self.live.get(asked[1]) if asked else None

    def find(self, party: str, code: int) -> Lease | None:
        """The live lease of `party` whose id ends in the six bits `code`."""
        for lease in self.live.values():
            if lease.permit % PERMIT_CODES == code and lease.party == party:
                return lease
        return None

    def end(self, lease: Lease) -> None:
        """Its slot is free again."""
        self.live.pop(lease.permit, None)

    def undo(self, party: str, permit: int) -> Lease | None:
        """The grant never reached its party: free the slot and forget the question."""
        lease = self.live.get(permit)
        if lease is None or lease.party != party:
            return None
        del self.live[permit]
        if self._asked.get(party) == (lease.ask, permit):
            del self._asked[party]
        return lease

    def abandon(self, party: str) -> None:
        """The party is dead: its slots are free, its questions forgotten."""
        self._asked.pop(party, None)
        for permit in [lease.permit for lease in self.live.values() if lease.party == party]:
            del self.live[permit]

    def expired(self, now: float) -> list[Lease]:
        """The leases whose deadline has passed, earliest first."""
        over = [lease for lease in self.live.values() if lease.until <= now]
        return sorted(over, key=lambda lease: (lease.until, lease.permit))

    def next_expiry(self) -> float:
        """When the next lease expires, s; FOREVER = there is none."""
        return min((lease.until for lease in self.live.values()), default=FOREVER)

    def shift(self, delta: float) -> None:
        """Move every deadline by `delta` seconds."""
        for lease in list(self.live.values()):
            moved = Lease(lease.permit, lease.party, lease.ask, lease.generation, lease.until + delta)
            self.live[lease.permit] = moved

    def to_plain(self) -> list[Any]:
        """As JSON values: [next permit, leases, answered questions]."""
        leases = [[at.permit, at.party, at.ask, at.generation, at.until] for at in self.live.values()]
        return [self._next, leases, [[party, *asked] for party, asked in self._asked.items()]]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Leases:
        """The leases that `to_plain` wrote."""
        leases = cls()
        leases._next, live, asked = plain
        leases.live = {permit: Lease(permit, *rest) for permit, *rest in live}
        leases._asked = {party: (ask, permit) for party, ask, permit in asked}
        return leases
