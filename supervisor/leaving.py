"""When a daemon ends: at once where it is asked to, after the managed workers where the nursery has died.

The nursery held their segments. It is gone, and the kernel has asked its workers to end; one that ends
after this process leaves nobody who could count what it put last. So a daemon without a nursery goes on
reading until they are dead and counted, for LEAVE_S at most: whoever ignores signals keeps its own segment,
and hands it to the next supervisor.
Neighbours: `daemon` (the loop), `managed` (which processes there are). Knows no segment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from supervisor.descriptors import identity

log = logging.getLogger("breakerd.daemon")

LEAVE_S: Final = 1.5
"""How long managed workers are waited for. Less than `lock.ORPHAN_GRACE_S`, after which the next nursery
does not wait for this process any more."""
LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Pids:
    """Where it is seen who is still to be counted."""

    managed: Callable[[], Iterable[int]]
    """The processes that lived when the nursery last told."""
    attached: Callable[[], Iterable[int]]
    """Those whose segments were not read to their end yet."""


class Leaving:
    """One daemon's end."""

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float],
        stop: Callable[[], None],
        nursery_lives: Callable[[], bool],
        pids: Pids,
    ) -> None:
        self._later = later
        self._clock = clock
        self._stop = stop
        self._nursery_lives = nursery_lives
        self._pids = pids
        self._until = 0.0

    def asked(self) -> None:
        """SIGTERM: from the nursery, or from the kernel when the nursery's first thread is dead.

        At that instant the rest of the nursery may still seem to live, so it is looked at twice.
        """
        self._later(LOOK_S, self._asked_by_whom)

    def _asked_by_whom(self) -> None:
        if self._nursery_lives():
            self._stop()
        else:
            self.orphaned()

    def orphaned(self) -> None:
        """The nursery is dead. Said again, it changes nothing."""
        if not self._until:
            self._until = self._clock() + LEAVE_S
            self._look()

    def _look(self) -> None:
        managed = set(self._pids.managed())
        waits = not managed.isdisjoint(self._pids.attached()) or any(map(identity, managed))
        if waits and self._clock() < self._until:
            self._later(LOOK_S, self._look)
            return
        if left := sorted(pid for pid in managed if identity(pid)):
            log.error(
                "managed workers that do not end when they are asked to go on alone, beside those that "
                "the next breakerd starts: pid %s", ", ".join(map(str, left)),
            )  # fmt: skip
        self._stop()
