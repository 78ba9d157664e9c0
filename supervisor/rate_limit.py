"""Limits how often one asker may repeat itself: a log line or an event per key and period, with a count.

Whoever is refused may ask again at once, thousands of times a second. Each refusal is answered. Only the
first one of a period is written down. The first one of the next period tells how many were left out.
Neighbours: `control_server` (denied commands, permits in another's name). Knows no verb.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

KEYS_MAX: Final = 1024
"""Keys that are remembered; beyond it the one that was written down longest ago is forgotten."""


class RateLimit:
    """Allows one line per key and `period_s`; the clock is monotonic seconds."""

    def __init__(self, period_s: float, clock: Callable[[], float]) -> None:
        self._period_s = period_s
        self._clock = clock
        self._since: dict[Hashable, tuple[float, int]] = {}
        """When the last line of a key was written, and how many were left out after it."""

    def allow(self, key: Hashable) -> int | None:
        """How many lines of this key were left out since the last one; None = leave this one out, too."""
        now = self._clock()
        written_at, left_out = self._since.get(key, (now - self._period_s, 0))
        if now - written_at < self._period_s:
            self._since[key] = (written_at, left_out + 1)
            return None
        self._since.pop(key, None)
        if len(self._since) >= KEYS_MAX:
            del self._since[next(iter(self._since))]
        self._since[key] = (now, 0)
        return left_out
