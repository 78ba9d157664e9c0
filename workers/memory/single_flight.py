"""One loader per key: callers who want the same thing at the same time get it from the one who loads it.

Within a process by an event, between the processes of a host by a byte lock, when the cache is one that
they share (`locks` given): whoever waited looks into the cache first. Neighbours: `locks`, `recall`.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from workers.memory import forking
from workers.memory.locks import KeyLocks

T = TypeVar("T")

POLL_S: Final = 0.005
"""How often a loader looks whether another process has finished loading."""


class _Flight(Generic[T]):
    """One loading, and those who wait for it."""

    __slots__ = ("abandoned", "done", "error", "result")

    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: T | None = None
        self.error: Exception | None = None
        self.abandoned = False
        """The loader was interrupted: somebody else must load."""


class SingleFlight(Generic[T]):
    """For threads. `patience_s` is how long one waits for another's loading before loading, too."""

    def __init__(
        self,
        locks: KeyLocks | None,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._locks, self._patience_s = locks, patience_s
        self._clock, self._sleep = clock, sleep
        self._begin()
        forking.remember(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[Hashable, _Flight[T]] = {}

    def run(self, key: Hashable, load: Callable[[], T], again: Callable[[], T | None]) -> T:
        """What `load()` gives, to this caller or to another at the same time; its error likewise.

        `again()` looks whether another process has loaded it meanwhile (None = no).
        """
        while True:
            with self._lock:
                flight = self._flights.get(key)
                mine = flight is None
                if flight is None:
                    flight = self._flights[key] = _Flight()
            if mine:
                return self._lead(key, flight, load, again)
            if not flight.done.wait(self._patience_s):
                return load()
            if flight.error is not None:
                raise flight.error
            if not flight.abandoned:
                return flight.result  # type: ignore[return-value] # it is done, and without an error

    def _lead(
        self, key: Hashable, flight: _Flight[T], load: Callable[[], T], again: Callable[[], T | None]
    ) -> T:
        flight.abandoned = True
        try:
            flight.result = self._alone(key, load, again)
            flight.abandoned = False
            return flight.result
        except Exception as error:
            flight.error = error
            raise
        finally:
            with self._lock:
                self._flights.pop(key, None)
            flight.done.set()

    def _alone(self, key: Hashable, load: Callable[[], T], again: Callable[[], T | None]) -> T:
        """Load as the only process of the host, as long as that does not take too long."""
        place, got = place_of(key), False
        until = self._clock() + self._patience_s
        if self._locks is not None:
            while not (got := self._locks.try_acquire(place)) and self._clock() < until:
                self._sleep(POLL_S)
        try:
            # Somebody may have loaded it between this caller's look into the cache and here.
            found = again()
            return load() if found is None else found
        finally:
            if got and self._locks is not None:
                self._locks.release(place)

    def before_fork(self) -> None:
        """Nothing here must be waited for."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: those who load are not here."""
        self._begin()


def place_of(key: Hashable) -> int:
    """The byte that stands for a key, the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=7).digest())
