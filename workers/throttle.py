"""How many log lines of one kind are written: an outage is told, not told ten thousand times a second.

Neighbours: `handler` (asks before it logs). Knows no logger and no clock.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Final

LINES_MAX: Final = 5
"""Lines of one kind in one window."""
WINDOW_S: Final = 10.0
KINDS_MAX: Final = 4096
"""Kinds that are remembered; beyond it all windows begin anew."""


class Throttle:
    """At most LINES_MAX lines of one kind in WINDOW_S; what is left out is counted. Any thread may ask."""

    def __init__(self) -> None:
        self.lost = 0
        """Lines that were to be written and could not be."""
        self.after_fork()

    def after_fork(self) -> None:
        """Nobody holds the lock in a child."""
        self._lock = threading.Lock()
        self._windows: dict[Hashable, list[float]] = {}

    def admit(self, kind: Hashable, now: float) -> int | None:
        """How many lines of this kind were left out before this one; None = leave this one out as well."""
        with self._lock:
            window = self._windows.get(kind)
            if window is None or now - window[0] >= WINDOW_S:
                if window is None and len(self._windows) >= KINDS_MAX:
                    self._windows.clear()
                self._windows[kind] = [now, 1, 0]
                return 0 if window is None else int(window[2])
            if window[1] < LINES_MAX:
                window[1] += 1
                return 0
            window[2] += 1
            return None
