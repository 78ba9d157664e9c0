"""Time and chance as the error handling uses them: the real ones, unless a test gives others.

Neighbours: `handler` (is given these), `recovery` (waits by them).
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


def chance() -> float:
    """A random share in [0, 1)."""
    return int.from_bytes(os.urandom(6), "big") / (1 << 48)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Clocks (s), dice, and two ways to wait (s)."""

    clock: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    chance: Callable[[], float] = chance
    sleep: Callable[[float], object] = time.sleep
    sleep_async: Callable[[float], Awaitable[object]] = asyncio.sleep
