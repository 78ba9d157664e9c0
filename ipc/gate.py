"""A lock for the rare paths that neither an exception nor a signal handler can leave held or deadlock.

Hot paths take no lock at all; what is here guards the handing out of blocks, declarations and the local
machine. The lock is the interpreter's own, never a monkey-patched one: nothing that may switch greenlets
(sockets, logging, the user's code) runs under it. Knows no segment and no breaker.
"""

from __future__ import annotations

import _thread
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")
ORPHANED_AFTER_S: Final = 5.0
"""A lock still held after this long belongs to a thread that a fork in C left behind."""


class Gate:
    """Runs one piece of work at a time. `run` gives None where the same thread is inside already."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock: Any = _thread.RLock()  # `_is_owned` is in no stub; threading.Condition uses it too

    def run(self, work: Callable[..., T], *args: object) -> T | None:
        """The work's result, or None: a signal handler came in the middle of this thread's own work."""
        return self.run_within(ORPHANED_AFTER_S, work, *args)

    def run_within(self, wait_s: float, work: Callable[..., T], *args: object) -> T | None:
        """The same, or None if another thread is still inside after `wait_s`.

        Released twice over on purpose: an exception may be raised between any two instructions, also
        between leaving the body and the first release. The outer clause then finds the lock still owned.
        """
        lock = self._lock
        if lock._is_owned():
            return None
        try:
            try:
                if not lock.acquire(timeout=wait_s):
                    return None
                return work(*args)
            finally:
                if lock._is_owned():
                    lock.release()
        finally:
            if lock._is_owned():
                lock.release()

    @property
    def mine(self) -> bool:
        """True if this thread is inside."""
        return bool(self._lock._is_owned())

    @property
    def held(self) -> bool:
        """True if any thread is inside; for tests."""
        if self._lock._is_owned():
            return True
        if self._lock.acquire(blocking=False):
            self._lock.release()
            return False
        return True
