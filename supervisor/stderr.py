"""Standard error as a place that may be full, stopped or closed: nobody who writes there ever waits or fails.

A pipe or a terminal is opened anew without blocking (the flag of the one that was inherited is shared with
whoever else has it), a socket is told per call, a file never blocks. What does not fit is dropped and
counted, and said once in COMPLAIN_S when there is room again. One owner each: it has no lock.
Neighbours: `priority` (breakerd's own lines) and `logs` (those of managed workers).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from collections.abc import Callable
from functools import partial
from typing import Final

COMPLAIN_S: Final = 10.0
"""At most one sentence about dropped lines in this time."""
_FULL: Final = "nobody reads it"


class Stderr:
    """Writes whole lines to one descriptor, or drops them."""

    def __init__(self, number: int, clock: Callable[[], float], mark: str = "") -> None:
        """`number` -1 = there is none; `mark` stands before the sentence about dropped lines."""
        self._number = number
        self._clock = clock
        self._mark = mark
        self._close: Callable[[], object] = _nothing
        self._put = self._way(number)
        self._rest = b""
        """The end of a line whose beginning was taken: it goes out before anything else."""
        self._untold = 0
        self._told_at = -COMPLAIN_S
        self.dropped = 0
        """Lines that were never written, since the beginning."""
        self.dropped_at: float | None = None
        """When the last of them was, by the clock that was given."""
        self.problem = ""
        """Why the last one was not; empty = it was."""

    def write(self, data: bytes) -> bool:
        """Write these lines; False = they were dropped."""
        if not self._flush() or not self._begin(data):
            self._drop(data.count(b"\n"))
            return False
        self.problem = ""
        if self._untold and not self._rest and self._clock() - self._told_at >= COMPLAIN_S:
            self._told_at = self._clock()
            lost, self._untold = self._untold, 0
            self._begin(f"{self._mark}breakerd: {lost} lines could not be written here\n".encode())
        return True

    def _flush(self) -> bool:
        """Get rid of what is left of an earlier line; False = it must go on waiting."""
        return not self._rest or (self._begin(self._rest) and not self._rest)

    def _begin(self, data: bytes) -> bool:
        """Give data away; what is not taken of it is kept. False = nothing was taken."""
        begun = False
        try:
            while data:
                data = data[self._put(data) :]
                begun = True
        except BlockingIOError:
            self.problem = _FULL
        except OSError as error:
            self.problem = os.strerror(error.errno or errno.EIO)
        if begun:
            self._rest = data
        return begun

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self.dropped_at = self._clock()
        self._untold += lines

    def _way(self, number: int) -> Callable[[bytes], int]:
        """How to write there without ever waiting."""
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            return _nowhere
        if stat.S_ISSOCK(mode):
            sock = socket.socket(fileno=os.dup(number))
            self._close = sock.close
            return lambda data: sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        if stat.S_ISREG(mode):
            return lambda data: os.write(number, data)
        try:
            own = os.open(f"/proc/self/fd/{number}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            return lambda data: _where_room_is(number, data)  # another user's pipe, perhaps
        self._close = partial(os.close, own)
        return lambda data: os.write(own, data)

    def close(self) -> None:
        """Let go of what was opened here; the descriptor that was given stays its owner's."""
        self._close()
        self._put, self._close = _nowhere, _nothing


def _nothing() -> None:
    """There is nothing to close."""


def _where_room_is(number: int, data: bytes) -> int:
    """Write what a pipe takes at once if it takes anything; whoever else writes there may be faster."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError(errno.EAGAIN, _FULL)
    return os.write(number, data[: select.PIPE_BUF])


def _nowhere(_data: bytes) -> int:
    raise OSError(errno.EBADF, "closed")
