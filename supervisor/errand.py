"""Work that may wait for a disk, in a thread of its own, so that the loop never does.

Not a pool: that keeps what it could not start, to be done later, when it is old. The thread touches only
what its work was given; `done` is called in the loop, also when the work raised. Whoever dies in between
leaves what its work leaves. Neighbours: `disk_actor`, `reload` (who send), `daemon` (whose loop it is).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable

Run = Callable[[Callable[[], object], Callable[[], None]], None]
"""Runs the first in a thread, then the second in the loop. Raises RuntimeError if there can be no thread."""


class Errand:
    """One piece of work at a time: whoever owns this sends the next after `done`."""

    def __init__(self, later: Callable[[Callable[[], None]], object]) -> None:
        """`later` has the loop call something, from any thread."""
        self._later = later
        self._thread: threading.Thread | None = None

    def __call__(self, work: Callable[[], object], done: Callable[[], None]) -> None:
        """As `Run`."""

        def run() -> None:
            try:
                work()
            finally:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for it
                    self._later(done)

        thread = threading.Thread(target=run, name="errand", daemon=True)
        thread.start()
        self._thread = thread

    def idle(self, seconds: float) -> bool:
        """Wait, not longer than that, until nothing is under way; whether nothing is."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()
