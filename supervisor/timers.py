"""Work that is done again and again on the event loop, as often as the settings say now.

Neighbours: `daemon`, whose work it is. Knows no work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timer:
    """Does `work` every so many seconds; it must not wait. Late turns are not made up for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, work: Callable[[], object]) -> None:
        self._loop = loop
        self._seconds = seconds
        self._work = work
        self._next = loop.call_later(seconds, self._again)

    def every(self, seconds: float) -> None:
        """From now on that often, the first time after that long; the same as before changes nothing."""
        if seconds != self._seconds:
            self._seconds = seconds
            self._next.cancel()
            self._next = self._loop.call_later(seconds, self._again)

    def _again(self) -> None:
        self._next = self._loop.call_later(self._seconds, self._again)
        self._work()
