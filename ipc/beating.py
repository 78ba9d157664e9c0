"""The sign of life of a managed worker: one word of a page that it shares with the nursery alone.

Written by the worker (`beat`), read by the nursery, which restarts a worker whose word is older than its
heartbeat_timeout_s. The store is one aligned word: a worker that dies around it leaves the old time or the
new one. In a process that nobody watches, and in the children that a worker forks, `beat` does nothing.
Neighbours: `supervisor.birth`, which hands the page over. Knows no breaker.
"""

from __future__ import annotations

import mmap
import os
import time

_watched: list[tuple[int, memoryview]] = []
"""At most one: whose page it is (a pid), and the page as 64-bit words."""


def watch(page: mmap.mmap) -> None:
    """From now on beats of this process go into this page. Called by the supervisor, before the target."""
    _watched[:] = [(os.getpid(), memoryview(page).cast("Q"))]


def beat() -> None:
    """Say that this worker is well. Costs less than a microsecond; does nothing where nobody listens."""
    if _watched:
        pid, words = _watched[0]
        if pid == os.getpid():
            words[0] = time.monotonic_ns()
