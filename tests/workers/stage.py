"""A handler with a clock to move, waits that take no time, and a log that is kept."""

from __future__ import annotations

import itertools
import logging
from typing import Final

from workers.handler import MemoryErrorHandler
from workers.surroundings import Surroundings

WALL: Final = 1_700_000_000.0
_numbers: Final = itertools.count()


class Stage(logging.Handler):
    """The handler is `handler`; `waits` are the waits that it made, `lines` what it logged."""

    def __init__(self, chance: float = 1.0) -> None:
        super().__init__()
        self.now = 100.0
        self.waits: list[float] = []
        self.lines: list[logging.LogRecord] = []
        logger = logging.getLogger(fresh("stage"))
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self)
        self.handler = MemoryErrorHandler(
            logger,
            surroundings=Surroundings(
                lambda: self.now, lambda: WALL, lambda: chance, self.wait, self.wait_async
            ),
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        self.lines.append(record)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.waits.append(seconds)
        self.now += seconds

    async def wait_async(self, seconds: float) -> None:
        """The same, awaited."""
        self.wait(seconds)


def fresh(name: str = "breaker") -> str:
    """A name that no other breaker of this process has."""
    return f"{name}-fresh-{next(_numbers)}"


class Failing:
    """A function that fails so often and then returns its number; each call raises a new exception."""

    def __init__(self, times: int, error: type[Exception] = TimeoutError) -> None:
        self.calls = 0
        self.times, self.error = times, error
        self.raised: list[Exception] = []

    def __call__(self) -> int:
        """One call."""
        self.calls += 1
        if self.calls <= self.times:
            self.raised.append(self.error(str(self.calls)))
            raise self.raised[-1]
        return self.calls

    async def later(self) -> int:
        """One call, async."""
        return self()
