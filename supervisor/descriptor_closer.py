"""Closes descriptors that strangers sent, in threads, because closing may take as long as the sender likes.

A TCP socket that lingers, or a file of a FUSE mount, holds whoever closes its last copy. The event loop
therefore never closes, stats or reads such a descriptor. It does not close a connection either, because such
a descriptor may wait in its queue. It hands the number over. The descriptors of one user hold at most
THREADS_PER_UID_MAX threads. The kernel closes what is left when this process ends.
Neighbours: `connections` and `hello` (who hand over). Knows no request.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

THREADS_MAX: Final = 16
THREADS_PER_UID_MAX: Final = 2
F_GET_SEALS: Final = 1034
NO_LINGER: Final = struct.pack("ii", 0, 0)

Discard = Callable[[int, Sequence[int]], None]
"""Closes descriptors that came from this uid, now or soon."""


def close_now(_uid: int, numbers: Sequence[int]) -> None:
    """Close each of them, however long that takes."""
    for number in numbers:
        _close(number)


def is_memory_file(number: int) -> bool:
    """Whether this is a file in memory. Asks the kernel, never the file: one of FUSE would not be asked."""
    try:
        return fcntl.fcntl(number, F_GET_SEALS) >= 0
    except OSError:
        return False


def _close(number: int) -> None:
    """Close one descriptor; a socket does not linger."""
    try:
        found = socket.socket(fileno=number)
    except OSError:
        with contextlib.suppress(OSError):
            os.close(number)
        return
    with found, contextlib.suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)


class DescriptorCloser:
    """Owns what waits to be closed, by uid, and the threads that close it."""

    def __init__(self, close: Callable[[int], None] = _close) -> None:
        self.closed: Callable[[], object] = lambda: None
        """Called in a thread when all that a user has sent is closed: there are free descriptors again."""
        self._close = close
        self._lock = threading.Lock()
        self._waiting: dict[int, deque[int]] = {}
        self._busy: Counter[int] = Counter()
        """Threads that are closing, by the uid whose descriptors they close."""

    def discard(self, uid: int, numbers: Sequence[int]) -> None:
        """As `Discard`: returns at once."""
        if not numbers:
            return
        with self._lock:
            self._waiting.setdefault(uid, deque()).extend(numbers)
            wanted = self._has_thread_for(uid)
            if wanted:
                self._busy[uid] += 1
        if wanted:
            self._start(uid)

    def backlog(self, uid: int) -> int:
        """How many descriptors of this uid wait to be closed, or are being closed."""
        with self._lock:
            return len(self._waiting.get(uid, ())) + self._busy[uid]

    def retry(self) -> None:
        """Now and then: start the threads that could not be had, or were too many."""
        with self._lock:
            uids = [uid for uid in self._waiting if not self._busy[uid]]
        for uid in uids:
            with self._lock:
                wanted = self._has_thread_for(uid) and uid in self._waiting
                if wanted:
                    self._busy[uid] += 1
            if wanted:
                self._start(uid)

    def _has_thread_for(self, uid: int) -> bool:
        return self._busy[uid] < THREADS_PER_UID_MAX and self._busy.total() < THREADS_MAX

    def _start(self, uid: int) -> None:
        try:
            threading.Thread(target=self._work, args=(uid,), name="closer", daemon=True).start()
        except RuntimeError:
            with self._lock:
                self._busy[uid] -= 1

    def _work(self, uid: int) -> None:
        """Close what this uid has sent until there is nothing more of it."""
        while True:
            with self._lock:
                waiting = self._waiting.get(uid)
                if not waiting:
                    self._waiting.pop(uid, None)
                    self._busy[uid] -= 1
                    if not self._busy[uid]:
                        del self._busy[uid]
                    break
                number = waiting.popleft()
            self._close(number)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.closed()
