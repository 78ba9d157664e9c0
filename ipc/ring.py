"""The reading side of a ring: takes published words in order, remembers holes, believes nothing.

A word is published when its lap tag fits the position at which it is read; every word is read once.
A slot whose ticket is drawn but whose word is not stored is a hole: it is remembered and read again
until it is filled, its writer is dead, or its lap is over. Only then is it a gap.
Neighbours: `layout` (the bits), `supervisor.intake` and `local` (who read). Knows no breaker.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from ipc import layout as at
from ipc.vocabulary import FAILURES, SUCCESSES

HOLES_MAX: Final = 64
"""Open holes remembered per ring; beyond it reading waits."""
STUCK_LOOKS: Final = 2
"""Ticks for which a slot must stay empty, with a later one filled, before it is a hole."""
NO_EPOCH: Final = 0


class Part(NamedTuple):
    """Consecutive words of one ring: `words` from `start` on, `epoch` as it stood before the first."""

    start: int
    epoch: int
    words: list[int]


@dataclass(slots=True, eq=False, repr=False)
class Reader:
    """Where one reader of one ring stands. `position` is the next unread; only its owner changes it."""

    words: memoryview
    layout: at.Layout
    position: int = 0
    epoch: int = NO_EPOCH
    holes: list[tuple[int, int]] = field(default_factory=list)
    """(position, epoch) of slots that were empty when later ones were filled."""
    gaps: int = 0
    """Slots given up since the last call of `take_gaps`."""
    _stuck_at: int = -1
    _looks: int = 0

    @property
    def committed(self) -> int:
        """The writer may overwrite only slots before this position."""
        return self.holes[0][0] if self.holes else self.position

    @property
    def waiting(self) -> bool:
        """True if the next slot is published: one load, for a cheap look."""
        position, slots = self.position, self.layout.slots
        word = self.words[self.layout.ring + (position & (slots - 1))]
        return (word >> at.LAP_SHIFT & at.LAP_MASK) == (position // slots & at.LAP_MASK) and word != 0

    @property
    def stuck(self) -> bool:
        """True if an empty slot with a filled one behind it was seen, and is not yet a hole."""
        return self._stuck_at >= 0

    def read(self, limit: int) -> list[Part]:
        """The published words that follow, at most `limit`, and holes that were filled meanwhile."""
        parts = self._filled_holes() if self.holes else []
        start, epoch = self.position, self.epoch
        taken: list[int] = []
        room = min(limit, self.committed + self.layout.slots - start)
        while room > 0:
            block = self._block(min(room, at.BLOCK - self.position % at.BLOCK))
            if not block:
                break
            if self.position % at.BLOCK == 0:
                self.epoch = epoch_of(block[0])
            taken.extend(block)
            self.position += len(block)
            room -= len(block)
        if taken:
            parts.append(Part(start, epoch, taken))
        return parts

    def _block(self, count: int) -> list[int]:
        """The published prefix of the next `count` slots, which lie in one block."""
        position, slots = self.position, self.layout.slots
        first = self.layout.ring + (position & (slots - 1))
        tag = position // slots & at.LAP_MASK
        listed: list[int] = self.words[first : first + count].tolist()
        last = listed[-1]
        if last and last >> at.LAP_SHIFT & at.LAP_MASK == tag:
            # The last is there, so all are, as a rule. Else few are, and they are counted from the front.
            tops = {word >> at.LAP_SHIFT for word in listed}
            if all(top & at.LAP_MASK == tag for top in tops) and (tag or 0 not in listed):
                return listed
        for index, word in enumerate(listed):
            if word == 0 or (word >> at.LAP_SHIFT & at.LAP_MASK) != tag:
                del listed[index:]
                break
        return listed

    def _filled_holes(self) -> list[Part]:
        """Words that were stored late into remembered holes."""
        found: list[Part] = []
        still: list[tuple[int, int]] = []
        for position, epoch in self.holes:
            word = self._word(position)
            if word is None:
                still.append((position, epoch))
            else:
                found.append(Part(position, epoch, [word]))
        self.holes[:] = still
        return found

    def _word(self, position: int) -> int | None:
        """The word at `position` if it is published there, else None."""
        slots = self.layout.slots
        word: int = self.words[self.layout.ring + (position & (slots - 1))]
        if word == 0 or (word >> at.LAP_SHIFT & at.LAP_MASK) != (position // slots & at.LAP_MASK):
            return None
        return word

    def look_for_holes(self, dead: bool = False) -> bool:
        """Once a tick, when `read` is stuck: step over empty slots that have filled ones behind them.

        True if the position moved, so that reading goes on. Nothing is stepped over on first sight,
        and never past the worker's own `granted` word, so that garbage cannot lead the reader ahead
        of an honest writer. With `dead` every hole is given up at once.
        """
        self._give_up(dead)
        end = min(self.words[at.W_GRANTED], self.committed + self.layout.slots)
        behind = self._filled_behind(end, dead)
        if behind is None:
            self._stuck_at = -1
            return False
        if self.position != self._stuck_at:
            self._stuck_at, self._looks = self.position, 0
        self._looks += 1
        if self._looks < STUCK_LOOKS and not dead:
            return False
        self._step_over(behind, dead)
        return True

    def _filled_behind(self, end: int, dead: bool) -> int | None:
        """The first filled slot behind an empty one at the position; None = not stuck, or too many holes."""
        if self.position >= end or self._word(self.position) is not None:
            return None
        last = end if dead else min(end, self.position + HOLES_MAX - len(self.holes) + 1)
        behind = self.position + 1
        while behind < last:
            count = min(last - behind, at.BLOCK - behind % at.BLOCK)
            first = self.layout.ring + (behind & (self.layout.slots - 1))
            tag = behind // self.layout.slots & at.LAP_MASK
            for index, word in enumerate(self.words[first : first + count].tolist()):
                if word and word >> at.LAP_SHIFT & at.LAP_MASK == tag:
                    return behind + index
            behind += count
        return None

    def _step_over(self, behind: int, dead: bool) -> None:
        """Make holes (or, of a dead writer, gaps) of the slots from the position up to `behind`."""
        for position in range(self.position, behind):
            if position % at.BLOCK == 0:
                # The word that would have told this block's epoch is missing.
                self.epoch = NO_EPOCH
            if dead:
                self.gaps += 1
            else:
                self.holes.append((position, self.epoch))
        self.position = behind
        self._stuck_at = -1

    def _give_up(self, dead: bool) -> None:
        """Count holes as gaps that nobody will fill any more.

        The lap of a hole is over when its block is the next that the writer needs: then everything that
        could be written was read, or, with no room for further holes, was granted at least.
        """
        while self.holes:
            first = self.holes[0][0]
            over = first - first % at.BLOCK + self.layout.slots
            full = len(self.holes) >= HOLES_MAX and self.words[at.W_GRANTED] >= over
            if not (dead or full or self.position >= over):
                return
            del self.holes[0]
            self.gaps += 1

    def take_gaps(self) -> int:
        """The number of slots given up since the last call."""
        taken, self.gaps = self.gaps, 0
        return taken


def epoch_of(word: int) -> int:
    """The epoch that a block's first word tells; NO_EPOCH if it is not a time word."""
    return word & at.EPOCH_MASK if word >> at.CODE_SHIFT == at.CODE_TIME else NO_EPOCH


def slices(part: Part) -> list[tuple[int, list[int]]]:
    """A part cut at block borders: (epoch, words without the time word); epoch NO_EPOCH = unknown."""
    cut: list[tuple[int, list[int]]] = []
    epoch, words, position = part.epoch, part.words, part.start
    index = 0
    while index < len(words):
        count = min(at.BLOCK - position % at.BLOCK, len(words) - index)
        block = words[index : index + count]
        if position % at.BLOCK == 0:
            epoch = epoch_of(block[0])
            if epoch != NO_EPOCH:
                del block[0]
        if block:
            cut.append((epoch, block))
        index += count
        position += count
    return cut


def last_run(words: memoryview[int], layout: at.Layout, row: int, generation: int | None = None) -> int:
    """Failures of `row` since its last success, counted backwards through the ring of this process.

    With a generation code: only those that were admitted under it.
    """
    run, granted = 0, words[at.W_GRANTED]
    for position in range(granted - 1, max(-1, granted - 1 - layout.slots), -1):
        word = words[layout.ring + (position & (layout.slots - 1))]
        if (word >> at.LAP_SHIFT & at.LAP_MASK) != (position // layout.slots & at.LAP_MASK):
            continue
        code = at.CODES[word >> at.CODE_SHIFT]
        if code is None or (word >> at.ROW_SHIFT & at.ROW_MASK) != row:
            continue
        if code.kind in SUCCESSES:
            break
        if generation is not None and word >> at.GENERATION_SHIFT & 15 != generation:
            break
        run += code.kind in FAILURES
    return run
