"""What nobody uses any more, by the user who made it, longest unused first. Knows not what it is.

Neighbours: `catalogue` keeps breakers without workers in one, `counting` counters without rows. The order is
part of the state: what is forgotten first must be the same after a replay.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Idle(Generic[K]):
    """Things and since when (s of CLOCK_MONOTONIC) nobody uses them."""

    def __init__(self) -> None:
        self._since: dict[int, dict[K, float]] = {}
        """By the uid of who made them, in the order in which they came out of use."""
        self._owner: dict[K, int] = {}
        self.first = math.inf
        """When the one came out of use that is unused for longest."""

    def __len__(self) -> int:
        return len(self._owner)

    def __contains__(self, key: K) -> bool:
        return key in self._owner

    def __iter__(self) -> Iterator[K]:
        """All of them, user by user."""
        return iter([key for resting in self._since.values() for key in resting])

    def rest(self, key: K, owner: int, now: float) -> None:
        """Nobody uses it from now on."""
        self.use(key)
        self._since.setdefault(owner, {})[key] = now
        self._owner[key] = owner
        self.first = min(self.first, now)

    def use(self, key: K) -> None:
        """It is in use, or is no more."""
        owner = self._owner.pop(key, None)
        if owner is None:
            return
        resting = self._since[owner]
        at = resting.pop(key)
        if not resting:
            del self._since[owner]
        if at <= self.first:
            firsts = (next(iter(resting.values())) for resting in self._since.values())
            self.first = min(firsts, default=math.inf)

    def since(self, key: K) -> float:
        """Since when nobody uses it. Raises KeyError for what is in use."""
        return self._since[self._owner[key]][key]

    def of(self, owner: int) -> Iterator[K]:
        """Those of one user, longest unused first; to be ended before anything is changed."""
        return iter(self._since.get(owner, ()))

    def oldest(self) -> Iterator[K]:
        """All, longest unused first; to be ended before anything is changed."""
        users = [resting.items() for resting in self._since.values()]
        return (key for key, _ in heapq.merge(*users, key=lambda one: one[1]))

    def older(self, now: float, age_s: float) -> list[K]:
        """Those that nobody has used for `age_s`, or longer."""
        if now < self.first + age_s:
            return []
        return [key for resting in self._since.values() for key, at in resting.items() if at + age_s <= now]

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        for resting in self._since.values():
            for key in resting:
                resting[key] += delta_s
        self.first = min(
            (at for resting in self._since.values() for at in resting.values()), default=math.inf
        )

    def to_plain(self) -> list[tuple[K, int, float]]:
        """(thing, uid, since when), in the order in which they are kept."""
        return [(key, owner, at) for owner, resting in self._since.items() for key, at in resting.items()]
