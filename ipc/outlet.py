"""What a process writes for whoever reads it: outcomes, tallies, declarations, and a ring of the bell.

One segment at a time; `link` says which, and swaps it whole. Each store is complete by itself, so a kill
between any two lines loses at most the call in flight, and nobody waits for a dead writer: the reader has
the lap tags and the pidfd. Neighbours: `blocks` (the slots), `segment` (the memory), `link` (which looks
after it). Knows no board, no breaker and no clock.
"""

from __future__ import annotations

import os
from typing import Final

from ipc import layout as at
from ipc.blocks import FREE_THREADED, Queue, nothing
from ipc.gate import Gate
from ipc.ownership import NO_FILE, eventfd_of
from ipc.segment import Segment, wipe_on_fork_page

NEVER: Final = float("-inf")


class Outlet:
    """The writing side of a segment. The gate admits one thread at a time to change what it points at."""

    segment: Segment
    words: memoryview[int]
    floats: memoryview[float]
    """The same memory as doubles."""
    tallies: int
    queue: Queue

    def __init__(self) -> None:
        self._gate = Gate()
        self.rows = 0
        """Rows numbered so far, breakers and exception classes."""
        self._records: list[tuple[int, bytes]] = []
        """Everything declared, in order: said again to every new segment."""
        self.page = wipe_on_fork_page()
        """Cell 0 reads 0.0 in a forked child that has not begun its own life; the others are limits."""
        self._bell, self._bell_file, self.rung = -1, NO_FILE, -1

    @property
    def attached(self) -> bool:
        """True if the segment was given to us by a supervisor, whether it is awake or not."""
        return self.segment.fd >= 0

    def _write_into(self, segment: Segment) -> None:
        """Put into this segment from now on."""
        granted = -(-segment.words[at.W_GRANTED] // at.BLOCK) * at.BLOCK
        queue = nothing(segment, self.page, granted)
        # No call from here on: no other thread sees one segment's words and another's places.
        self.segment, self.words, self.tallies = segment, segment.words, segment.layout.tallies
        self.floats = segment.floats
        self.queue = queue

    def _drop(self, segment: Segment) -> None:
        """Close what came with a segment that is not used any more, as far as it is still ours."""
        self._close_bell()
        segment.close_fd()

    # --- declarations -------------------------------------------------------------------------------

    def add_class(self, record: bytes) -> int | None:
        """A row that counts an exception class; None = no room, or asked in the middle of our own work."""
        return self._gate.run(self._declare, record)

    def _declare(self, record: bytes) -> int | None:
        """Number a row and tell it. A kill in between leaves a number unused, never used twice."""
        if self.rows >= at.ROWS:
            return None
        row = self.rows
        numbered = b'{"row":%d,' % row + record
        if self.attached and not self.segment.declare(numbered):
            return None
        self.rows = row + 1
        self._records.append((row, numbered))
        self.rung = -1
        self.ring()
        return row

    def _declare_again(self, segment: Segment) -> None:
        """Tell a new segment every row, with the numbers that they have.

        A row for which there is no room left is nothing that its reader knows: we decide about it alone.
        """
        for row, record in self._records:
            if not segment.declare(record):
                segment.words[at.W_BOARD + row] = at.ALONE

    # --- outcomes that are no words of the ring -----------------------------------------------------

    def tally(self, row: int, index: int) -> None:
        """One more in a cumulative word: exact, without order. One statement is one step for threads."""
        if FREE_THREADED:
            self._gate.run(self._tally, row, index)
        else:
            self._tally(row, index)

    def _tally(self, row: int, index: int) -> bool:
        self.words[self.tallies + at.TALLIES * row + index] += 1
        self.words[at.W_CHANGES] += 1
        return True

    def _store(self, queue: Queue, word: int) -> bool:
        """Put a word into the next slot of `queue`, which may have been replaced or used up."""
        words = queue[5].words
        if self.queue is queue:
            for slot in queue[0]:
                words[slot] = word
                return True
        return False

    # --- the bell -----------------------------------------------------------------------------------

    def hear(self, bell: int) -> None:
        """The supervisor's doorbell; rung at once, because there are declarations to read."""
        if bell != self._bell:
            self._close_bell()
        self._bell, self._bell_file, self.rung = bell, eventfd_of(bell), -1
        self.ring()

    def _close_bell(self) -> None:
        bell, self._bell = self._bell, -1
        if bell >= 0 and eventfd_of(bell) == self._bell_file:
            os.close(bell)

    def ring(self) -> None:
        """Ring the supervisor's bell, unless it has not read since we rang last.

        Its descriptor is checked first: an application may have closed them all, and the number may be
        another file's by now.
        """
        epoch = self.words[at.W_BELL]
        if epoch == self.rung:
            return
        if self._bell >= 0:
            try:
                if eventfd_of(self._bell) == self._bell_file:
                    os.eventfd_write(self._bell, 1)
            except OSError:  # full: it is ringing already. The supervisor's tick is the guarantee.
                pass
        self.rung = epoch
