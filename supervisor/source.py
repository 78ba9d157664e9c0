"""One attached segment as the daemon reads it: declarations, outcome words, cumulative words.

The worker writes what is read here and believes nothing of it to be read twice; the daemon's loop is the
only reader. It stores two words of the segment, the bell and `committed`, and never reads one back.
Whichever side dies between any two lines, the words stay where they are: they are read again from the
last committed position, by this daemon or the next. Every word is hostile: it can deceive nobody but its
own worker. Neighbours: `intake` (owns all of these), `ipc.ring`, `ipc.segment`. Knows no clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Final

from ipc import layout as at
from ipc.ring import HOLES_MAX, NO_EPOCH, Part, Reader
from ipc.segment import Segment
from ipc.vocabulary import NAME_PATTERN
from supervisor.messages import BreakerDeclared, ClassDeclared, CounterDeclared, Message
from supervisor.metrics import CLASS_NAME_MAX
from supervisor.worker import ReadFrom

DECLARATION_BYTES_MAX: Final = 8192
"""A larger declaration is invalid."""
CATCH_UP_MAX: Final = 1 << 24
"""Slots that a position may lie behind the worker's ring; a worker that claims more is not believed."""
INVALID_DRAINS_MAX: Final = 3
"""Drains with invalid words after which a segment is not read any more."""
BELL_MASK: Final = (1 << 63) - 1
NEVER: Final = -1
"""No word has this value: what is remembered as this differs from whatever stands there."""


@dataclass(slots=True)
class Portion:
    """What one look at a segment took from it."""

    parts: list[Part] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    tallies: list[tuple[int, int, int]] = field(default_factory=list)
    invalid: int = 0


class Source:
    """One segment. `quarantined`: it is not read any more, because too much of it was invalid."""

    __slots__ = (
        "_ahead",
        "_ahead_view",
        "_bell",
        "_rows",
        "_seen",
        "_stale",
        "_told",
        "changes",
        "declared",
        "invalid_drains",
        "names",
        "next_slot",
        "next_word",
        "quarantined",
        "reader",
        "segment",
        "words",
        "worker",
    )

    def __init__(self, worker: str, segment: Segment, reading: ReadFrom) -> None:
        """Read `segment` of `worker` from there on."""
        self.worker = worker
        self.segment = segment
        self.words = segment.words
        self.quarantined = False
        self.invalid_drains = 0
        # Read back once: a daemon must not begin with the epoch for which its predecessor was rung.
        # A worker that scribbled over this word delays only the news of its own failures.
        self._bell = segment.words[at.W_BELL] & BELL_MASK
        self.reader: Reader
        self.seek(reading)
        self.ring()

    def seek(self, reading: ReadFrom) -> None:
        """Go (back) to where the engine stands: what was read and not committed is read again."""
        self.reader = Reader(self.words, self.segment.layout, reading.position, reading.epoch)
        self.reader.holes.extend(reading.holes)
        self._catch_up()
        self.declared = 0
        """Bytes of declarations that were read."""
        self.names: dict[int, str] = {}
        """Short names of breakers by row: they only tell which rows of several workers belong together."""
        self._rows = 0
        """One more than the highest declared row: of so many rows the cumulative words are read."""
        self._seen: list[int] = []
        """Those words as they stood when they were last read."""
        self._read_declarations(Portion(), reading.declared)
        self.declared = reading.declared
        self._seen.extend([0] * (at.TALLIES * self._rows))
        for row, index, value in reading.tallies:
            if row < self._rows:
                self._seen[at.TALLIES * row + index] = value
        self._told = (reading.position, len(reading.holes), reading.declared)
        # While these three words stand in the segment, nothing has happened since the last look.
        self.next_slot = self.segment.layout.ring
        self.next_word = NEVER
        self.changes = NEVER
        self._stale = True
        self._ahead = b""
        self._ahead_view = self.segment.bytes[:0]

    def _catch_up(self) -> None:
        """Jump to the worker's ring if the checkpoint lies more than a lap behind it.

        Only after an older copy of the checkpoint had to be used: `committed` had already gone on.
        """
        reader = self.reader
        oldest = self.words[at.W_GRANTED] - self.segment.layout.slots
        if not reader.committed < oldest <= reader.committed + CATCH_UP_MAX:
            return
        open_holes = [hole for hole in reader.holes if hole[0] >= oldest]
        reader.gaps += len(reader.holes) - len(open_holes)
        reader.holes[:] = open_holes
        if reader.position < oldest:
            reader.gaps += oldest - reader.position
            reader.position, reader.epoch = oldest, NO_EPOCH

    # --- reading ----------------------------------------------------------------------------------

    def ring(self) -> None:
        """A new bell epoch, stored before words are read: who stores a failure after that rings again."""
        self._bell = self._bell + 1 & BELL_MASK
        self.words[at.W_BELL] = self._bell

    def read(self, limit: int) -> Portion:
        """At most `limit` outcome words, then every declaration, then the cumulative words that changed.

        In this order, because a worker declares a row before it stores the first word of it.
        """
        portion = Portion(self.reader.read(limit))
        if self.words[at.W_DECLARED] != self.declared:
            self._read_declarations(portion, 8 * at.DECLARATION_WORDS)
        changes = self.words[at.W_CHANGES]
        if changes != self.changes:
            self.changes = changes
            self._read_tallies(portion)
        return portion

    def read_last(self) -> Portion:
        """All that is left of a dead worker: a lap at most, holes given up, cumulative words in any case."""
        slots = self.segment.layout.slots
        start, parts = self.reader.position, self.reader.read(slots)
        while self.reader.position - start < slots:
            if not self.reader.look_for_holes(dead=True) and not self.reader.waiting:
                break
            parts += self.reader.read(slots)
        self.changes = NEVER
        portion = self.read(0)
        portion.parts = parts
        return portion

    def settle(self) -> bool:
        """Remember the words that a look compares with. True = the next slot is already filled again."""
        reader, slots = self.reader, self.segment.layout.slots
        self.next_slot = self.segment.layout.ring + (reader.position & slots - 1)
        # One load: the word that is judged here is the word that is remembered.
        word = self.words[self.next_slot]
        filled = word != 0 and word >> at.LAP_SHIFT & at.LAP_MASK == reader.position // slots & at.LAP_MASK
        self.next_word = NEVER if filled or reader.holes else word
        self._stale = True
        return filled

    def told(self) -> bool:
        """True if position, holes or declarations differ from those of the last call: tell the engine."""
        stands = (self.reader.position, len(self.reader.holes), self.declared)
        before, self._told = self._told, stands
        return stands != before

    # --- holes ------------------------------------------------------------------------------------

    def look_for_holes(self) -> None:
        """Once a tick: step over slots that stay empty while later ones are filled.

        A segment in which nothing was stored behind the next slot costs one comparison of bytes.
        """
        if not self._stale and bytes(self._ahead_view) == self._ahead:
            return
        reader = self.reader
        if self._stale:
            start = 8 * (self.next_slot + 1)
            stop = min(start + 8 * HOLES_MAX, 8 * self.segment.layout.tallies)
            # A view that ends with the ring sees less ahead; an empty one is looked at on each tick.
            self._ahead_view = self.segment.bytes[start:stop]
        # Copied before the look: what is stored while it looks makes the next tick look again.
        ahead = bytes(self._ahead_view)
        if reader.look_for_holes() or reader.gaps:
            self.next_word = NEVER
            self._stale = True
        else:
            self._ahead = ahead
            self._stale = reader.stuck or not ahead

    # --- declarations and cumulative words --------------------------------------------------------

    def _read_declarations(self, portion: Portion, end: int) -> None:
        """Every record before byte `end` that was not read; one that cannot be read ends it, as invalid."""
        records, reached = self.segment.declarations(self.declared)
        place = self.declared
        for record in records:
            if place >= end:
                return
            place += 8 + -(-len(record) // 8) * 8
            message = read_declaration(self.worker, record)
            if message is None:
                portion.invalid += 1
                continue
            self._rows = max(self._rows, message.row + 1)
            if isinstance(message, BreakerDeclared):
                self.names.setdefault(message.row, message.name)
            portion.messages.append(message)
        if reached == self.declared:
            portion.invalid += 1
        self.declared = reached

    def _read_tallies(self, portion: Portion) -> None:
        """The cumulative words that changed, of every declared row; 2**48 and more is refused."""
        start, count = self.segment.layout.tallies, at.TALLIES * self._rows
        self._seen.extend([0] * (count - len(self._seen)))
        listed: list[int] = self.words[start : start + count].tolist()
        if listed == self._seen:
            return
        for place, (value, before) in enumerate(zip(listed, self._seen, strict=True)):
            if value >= at.TALLY_LIMIT:
                portion.invalid += value != before
            elif value > before:
                portion.tallies.append((place // at.TALLIES, place % at.TALLIES, value))
        self._seen = listed


Declared = BreakerDeclared | ClassDeclared | CounterDeclared


def read_declaration(worker: str, record: bytes) -> Declared | None:
    """What a worker declared; None = nothing that an honest one would."""
    if len(record) > DECLARATION_BYTES_MAX:
        return None
    try:
        told = json.loads(record)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    row = _row(told.get("row"))
    if row is None:
        return None
    if "of" in told:
        breaker_row, name = _row(told["of"]), told.get("class")
        if breaker_row is not None and isinstance(name, str) and name.isprintable():
            return ClassDeclared(worker, row, breaker_row, name[:CLASS_NAME_MAX])
        return None
    if "counter" in told:
        return _counter(worker, row, told["counter"])
    name, settings = told.get("breaker"), told.get("settings")
    if isinstance(name, str) and NAME_PATTERN.fullmatch(name) and isinstance(settings, dict):
        return BreakerDeclared(worker, row, name, json.dumps(settings, separators=(",", ":")))
    return None


def _counter(worker: str, row: int, told: Any) -> CounterDeclared | None:
    """A counter from [kind, operation]; None = nothing that an honest worker would write."""
    if not isinstance(told, list) or len(told) != 2:
        return None
    if not all(
        isinstance(text, str) and text.isprintable() and 0 < len(text) <= CLASS_NAME_MAX for text in told
    ):
        return None
    return CounterDeclared(worker, row, *told)


def _row(value: Any) -> int | None:
    """A row's number, or None."""
    return value if type(value) is int and 0 <= value < at.ROWS else None
