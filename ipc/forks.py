"""What a forked child must know about itself: that it is one, and since when.

`os.fork` tells by a hook; a fork in C (uWSGI, ctypes) by a page that the kernel wipes in the child, and
then the kernel is asked when this process began. What a program is told apart by after an exec stands here,
too: the process stays, its memory goes. Neighbours: `link` (which begins a new life in a child).
Knows no segment and no breaker.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

NEVER: Final = float("-inf")


class Forkable(Protocol):
    """Something of which a child needs one of its own."""

    def after_fork(self) -> None:
        """Called in the child, once, by its only thread."""


_all: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_hooked: Final[list[Callable[[], None]]] = []


_image: Final[list[str]] = []


def image() -> str:
    """Which program runs here: drawn when first asked, the same after a fork, another after an exec."""
    if not _image:
        _image.append(os.urandom(8).hex())
    return _image[0]


def remember(one: Forkable) -> None:
    """Tell `one` in every child that os.fork makes from now on."""
    if not _hooked and hasattr(os, "register_at_fork"):
        _hooked.append(_in_child)
        os.register_at_fork(after_in_child=_in_child)
    _all.add(one)


def _in_child() -> None:
    for one in list(_all):
        one.after_fork()


def process_began() -> float:
    """When this process was forked off, s of CLOCK_MONOTONIC, a little late, never early; NEVER = not known.

    The kernel tells it in ticks of 10 ms, rounded down: a call that started in the same tick before the
    fork would pass for the child's own. The CPU time that the child has used says more about it.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
        per_s = os.sysconf("SC_CLK_TCK")
        early = ticks / per_s - suspended
        return max(early, min(early + 1.0 / per_s, time.monotonic() - time.process_time()))
    except (OSError, ValueError, IndexError, AttributeError):
        return NEVER
