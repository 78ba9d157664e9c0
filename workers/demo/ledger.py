"""What one worker issued, in its own mmap'ed file, and the cues that the demo gives: both outlive kill -9.

A ledger is `WORDS` aligned 64-bit words, native byte order, numbered by `Word`. Only its worker writes it:
an ISSUED word before the outcome goes into the ring, the DONE word of the same kind after; so at any
instant ISSUED - DONE is 1 for the one call in flight and 0 otherwise. If the worker dies between any two
lines its words stay as they are, in the page cache; if the reader dies nobody notices. The cues are three
words in one more file, each with one writer (see `Cue`). This file knows no clock, breaker or process.
"""

from __future__ import annotations

import enum
import mmap
import os
from dataclasses import dataclass
from typing import Final

from ipc import BreakerState

WORDS: Final = 32
WORD_BYTES: Final = 8


class Word(enum.IntEnum):
    """Where a figure stands in a ledger. Times are nanoseconds of CLOCK_MONOTONIC, 0 = not yet."""

    PHASE = 0
    """A `Phase`."""
    SEES = 1
    """The BreakerState that the worker saw last, 0 = none yet."""
    ISSUED_SUCCESS = 2
    ISSUED_FAILURE = 3
    DONE_SUCCESS = 4
    DONE_FAILURE = 5
    REFUSED = 6
    """Calls that the breaker refused: they never reached the database."""
    HITS = 7
    """Calls that failed on the database since it was locked."""
    WAITED_NS = 8
    """How long those calls took together."""
    FIRST_FAILURE = 9
    """When the first call failed since the database was locked."""
    FIRST_REFUSAL = 10
    LAST_REFUSAL = 11
    BACK = 12
    """When the first call succeeded after the last refusal."""


class Phase(enum.IntEnum):
    """What a worker process is doing."""

    STARTING = 0
    WORKING = 1
    STOPPED = 2
    """It was asked to stop, ended its last call and left."""


class Cue(enum.IntEnum):
    """Where a cue stands in the file of cues, and who writes it."""

    STOP = 0
    """1 = no further call; written by the demo, read by every worker before each call."""
    LOCKED_NS = 1
    """When the outage held the database; written by the outage, read by workers and the demo."""
    RELEASED_NS = 2
    """When the outage let go of it; written by the outage, read by the demo."""


class Words:
    """A small file as aligned 64-bit words."""

    __slots__ = ("_map", "words")

    def __init__(self, path: str, create: bool = False) -> None:
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0)
        number = os.open(path, flags, 0o600)
        try:
            if create:
                # The blocks must be there before the first store, or a full disk would be a SIGBUS.
                os.posix_fallocate(number, 0, WORDS * WORD_BYTES)
            self._map = mmap.mmap(number, WORDS * WORD_BYTES)
        finally:
            os.close(number)
        self.words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Unmap the file; the words in it stay."""
        self.words.release()
        self._map.close()


class Cues(Words):
    """What the demo and the outage tell the workers."""

    __slots__ = ()

    @property
    def stop(self) -> bool:
        """Whether workers should leave."""
        return self.words[Cue.STOP] != 0

    def say_stop(self) -> None:
        """Ask every worker to end its call and leave."""
        self.words[Cue.STOP] = 1

    @property
    def locked_ns(self) -> int:
        """When the database was locked, 0 = not yet."""
        return self.words[Cue.LOCKED_NS]

    @property
    def released_ns(self) -> int:
        """When the database was free again, 0 = not yet."""
        return self.words[Cue.RELEASED_NS]


@dataclass(frozen=True, slots=True)
class Counts:
    """One reading of a ledger."""

    phase: Phase
    sees: BreakerState | None
    issued_success: int
    issued_failure: int
    done_success: int
    done_failure: int
    refused: int
    hits: int
    waited_ns: int
    first_failure: int
    first_refusal: int
    last_refusal: int
    back: int

    @property
    def issued(self) -> int:
        """Outcomes that were issued."""
        return self.issued_success + self.issued_failure

    @property
    def in_flight(self) -> tuple[int, int]:
        """Successes and failures that were issued and whose end was never marked."""
        return self.issued_success - self.done_success, self.issued_failure - self.done_failure


class Ledger(Words):
    """The words of one worker."""

    __slots__ = ()

    def enter(self, phase: Phase) -> None:
        """Note what the worker is doing from now on."""
        self.words[Word.PHASE] = phase

    def saw(self, state: BreakerState) -> None:
        """Note the state that the worker sees its breaker in."""
        self.words[Word.SEES] = state

    def issue_success(self) -> None:
        """Note a success that the breaker is about to put into the ring."""
        self.words[Word.ISSUED_SUCCESS] += 1

    def issue_failure(self) -> None:
        """Note a failure that the breaker is about to put into the ring."""
        self.words[Word.ISSUED_FAILURE] += 1

    def succeeded(self, now: int) -> None:
        """The success is in the ring; `now` is noted if a refusal went before it."""
        words = self.words
        words[Word.DONE_SUCCESS] += 1
        if words[Word.LAST_REFUSAL] > words[Word.BACK]:
            words[Word.BACK] = now

    def failed(self, now: int, took: int, locked: bool) -> None:
        """The failure, which took `took` ns, is in the ring; `locked` = it hit the dead database."""
        words = self.words
        words[Word.DONE_FAILURE] += 1
        if locked:
            words[Word.HITS] += 1
            words[Word.WAITED_NS] += took
            if not words[Word.FIRST_FAILURE]:
                words[Word.FIRST_FAILURE] = now

    def refused(self, now: int) -> None:
        """The breaker refused a call."""
        words = self.words
        words[Word.REFUSED] += 1
        words[Word.LAST_REFUSAL] = now
        if not words[Word.FIRST_REFUSAL]:
            words[Word.FIRST_REFUSAL] = now

    def read(self) -> Counts:
        """What the ledger says now."""
        words = self.words
        sees = words[Word.SEES]
        return Counts(
            Phase(words[Word.PHASE]),
            BreakerState(sees) if sees else None,
            *words[Word.ISSUED_SUCCESS : Word.BACK + 1].tolist(),
        )
