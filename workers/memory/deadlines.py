"""How long one operation on the database may still take, wherever in it the process is.

The store sets a deadline around an operation; whoever waits below (a driver, a pool) asks what is left.
It follows the thread or the task, also into SQLAlchemy's greenlets. Neighbours: `postgres`, `store`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_ends: Final[ContextVar[float | None]] = ContextVar("memory_deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Everything inside has to end within this time; an outer deadline that is earlier stays."""
    outer = _ends.get()
    mine = time.monotonic() + seconds
    token = _ends.set(mine if outer is None else min(mine, outer))
    try:
        yield
    finally:
        _ends.reset(token)


def left_s() -> float | None:
    """Seconds that are left, 0.0 if none; None without a deadline."""
    ends = _ends.get()
    return None if ends is None else max(0.0, ends - time.monotonic())
