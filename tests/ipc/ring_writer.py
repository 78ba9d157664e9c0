"""A pretend worker: puts words into a segment's ring as the guard does, and as a broken one would."""

from __future__ import annotations

from ipc import layout as at
from ipc.segment import Segment
from ipc.vocabulary import OutcomeKind


class RingWriter:
    """One writer of one ring. Blocks are opened as needed; a ticket may be drawn and stored later."""

    def __init__(self, segment: Segment, position: int = 0, epoch: int = 100) -> None:
        self.segment = segment
        self.position = position
        self.epoch = epoch

    def ticket(self) -> int:
        """The position of the next slot; opens its block, which puts the time word."""
        words = self.segment.words
        if self.position % at.BLOCK == 0:
            words[at.W_GRANTED] = self.position + at.BLOCK
            self.store(self.position, at.pack_time(self.lap(self.position), self.epoch))
            self.position += 1
        self.position += 1
        return self.position - 1

    def lap(self, position: int) -> int:
        """The lap that a position lies in."""
        return position // self.segment.layout.slots

    def store(self, position: int, word: int) -> None:
        """Store any word at a position."""
        layout = self.segment.layout
        self.segment.words[layout.ring + position % layout.slots] = word

    def word(
        self,
        position: int,
        kind: OutcomeKind = OutcomeKind.SUCCESS,
        row: int = 0,
        end: float | None = None,
        took: float = 0.001,
        generation: int = 1,
        permit: int | None = None,
        long: bool = False,
    ) -> int:
        """The outcome word that belongs at a position; `end` in s, by default the block's epoch."""
        relative = (self.epoch if end is None else end) - self.epoch
        plain = permit is None and not long and kind in (OutcomeKind.SUCCESS, OutcomeKind.FAILURE)
        fast = at.FAST_SUCCESS if kind is OutcomeKind.SUCCESS else at.FAST_FAILURE
        code = fast if plain else at.pack_code(kind, long, permit)
        if plain:
            # pack_outcome takes the unit of the duration from bit 4, which no fast code has set.
            assert not code & 16
        return at.pack_outcome(code, generation, self.lap(position), row, relative, took)

    def put(
        self,
        kind: OutcomeKind = OutcomeKind.SUCCESS,
        row: int = 0,
        end: float | None = None,
        generation: int = 1,
        permit: int | None = None,
    ) -> int:
        """Put one outcome; return the word."""
        position = self.ticket()
        word = self.word(position, kind, row, end, generation=generation, permit=permit)
        self.store(position, word)
        return word

    def fill(self, count: int) -> list[int]:
        """Put this many successes; return their words."""
        return [self.put() for _ in range(count)]
