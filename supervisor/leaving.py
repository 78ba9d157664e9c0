"""When a daemon ends: at once where it is asked to, after the managed workers where the nursery has died.

The nursery held their segments. It is gone, and the kernel has asked its workers to end; one that ends
after this process leaves nobody who could count what it put last. So a daemon without a nursery goes on
reading until they are dead, for LEAVE_S at most: whoever ignores signals keeps its own segment, and hands it
to the next supervisor.
Neighbours: `daemon` (the loop), `managed` (which processes there are). Knows no segment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from supervisor.descriptors import identity

LEAVE_S: Final = 1.5
"""How long managed workers are waited for. Less than `lock.ORPHAN_GRACE_S`, after which the next nursery
does not wait for this process any more."""
LOOK_S: Final = 0.02


class Leaving:
    """One daemon's end."""

    def __init__(
        self,
        later: Callable[[float, Callable[[], None]], object],
        clock: Callable[[], float],
        stop: Callable[[], None],
        pids: Callable[[], Iterable[int]],
    ) -> None:
        """`pids`: the managed processes that live, as the nursery has told last."""
        self._later = later
        self._clock = clock
        self._stop = stop
        self._pids = pids
        self._until = 0.0

    def begin(self, nursery_lives: bool) -> None:
        """This daemon shall end."""
        if nursery_lives:
            self._stop()
        elif not self._until:
            self._until = self._clock() + LEAVE_S
            self._look()

    def _look(self) -> None:
        if self._clock() >= self._until or not any(map(identity, self._pids())):
            self._stop()
        else:
            self._later(LOOK_S, self._look)
