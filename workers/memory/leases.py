"""Who replays: one process of the host, by a lock that dies with it and is got round where it stands still.

    replay.lease, replay-2.lease, replay-3.lease    who replays        each 8 bytes: when its holder last
    managed.lease                                   and does only so   moved, CLOCK_MONOTONIC, ns

The word is written by the holder of the file's lock, and read by those who do not get the lock; who dies
between any two lines has no lock, and the word means nothing. If the holder is stopped (a debugger, a paused
container) the word grows old, and one of the others takes the next lease. When the first moves again there
are two for a step: all of replay may be repeated, so only the rate suffers. Neighbours: `locks`, `replay`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from workers.memory.locks import ProcessLock

LEASES: Final = ("replay.lease", "replay-2.lease", "replay-3.lease")
MANAGED: Final = "managed.lease"
"""Held by a replayer that is a program of its own as long as it is at work: others give it the lease."""
STILL_S: Final = 120.0
"""Who has not moved for so long stands still; a call of the database takes less, but for a long migration."""
WORD: Final = 8


class MovingLock(ProcessLock):
    """A lock whose holder says now and then that it moves."""

    __slots__ = ("_clock_ns",)

    def __init__(self, path: str, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        super().__init__(path)
        self._clock_ns = clock_ns

    def move(self) -> None:
        """Say so, if this process holds it."""
        self.write(self._clock_ns().to_bytes(WORD, "little"))

    def stands_still(self) -> bool:
        """Whether its holder said so long ago; one that never did may be of an earlier version."""
        said = int.from_bytes(self.read(WORD), "little")
        return 0 < said < self._clock_ns() - int(STILL_S * 1e9)

    def attended(self) -> bool:
        """Whether another process has it, and moves."""
        return self.elsewhere() and not self.stands_still()


class Lease:
    """The right to replay one directory, for one holder in one process."""

    def __init__(self, directory: str, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._locks = tuple(MovingLock(os.path.join(directory, name), clock_ns) for name in LEASES)
        self._mine: MovingLock | None = None

    def take(self) -> bool:
        """Have it, or go on having it; False = another one has it, and moves. Raises OSError.

        The second lock is for the time in which the holder of the first stands still, and so on.
        """
        for lock in self._locks:
            if lock is self._mine and not lock.stands:
                self.give()  # the directory was removed or made anew: nobody else sees this one
            if lock is self._mine or lock.acquire():
                self._keep(lock)
                lock.move()
                return True
            if not lock.stands_still():
                break
        self.give()
        return False

    def move(self) -> None:
        """The holder gets on."""
        if self._mine is not None:
            self._mine.move()

    def give(self) -> None:
        """Let another one have it."""
        self._keep(None)

    def _keep(self, lock: MovingLock | None) -> None:
        before, self._mine = self._mine, lock
        if before is not None and before is not lock:
            before.release()
