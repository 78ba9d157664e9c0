"""Blocks of ring slots: how a queue hands out tickets, and the one tuple that a hot path needs.

A block is 256 slots behind a word that tells its epoch. Its tickets are a `range` iterator: one C call
takes one, so no two threads get the same, and an exhausted block falls out of the `for` that took it.
Neighbours: `layout` (the bits), `link` (opens and closes blocks), `admission` (puts words). No clock.

Between a ticket and its store stands no call and no backward jump: CPython with its lock switches threads
and runs signal handlers only there, so no hole is left. Free-threaded builds take the gate instead: their
`limit` reads 0.0, which sends every call the slow way.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from ipc import layout as at
from ipc.segment import Segment

FREE_THREADED: Final = not getattr(sys, "_is_gil_enabled", lambda: True)()
EPOCH_MARGIN_S: Final = 16
"""A block takes ends from so long before it was opened: a thread may be held up between its last clock
reading and its ticket, by a signal handler or a collection of garbage, while others open a block."""
CELLS: Final = 500
"""Places for limits in the page; a block's is reused after so many blocks."""


@dataclass(slots=True, eq=False, repr=False)
class Block:
    """What the slow path knows about the block that is open."""

    words: memoryview[int]
    after: int
    """Position behind its last slot."""
    epoch: int
    lap: int
    until: float
    """Calls that end from here on need another block, s."""
    limit: float
    """Calls that end from here on must look first, s; at most `until`."""


Queue: TypeAlias = "tuple[Iterator[int], memoryview[float], memoryview[float], float, float, Block]"
"""(tickets, ring as doubles, limit, plus, minus, block): the word of a quick outcome that ended before
`limit[0]` is (end * END_FACTOR + plus) - minus + head + duration. `limit` is a cell of a page that any fork
wipes, so a child falls into the slow path before it stores a word."""


def nothing(segment: Segment, page: memoryview[float], granted: int) -> Queue:
    """A queue with no slot, for a segment whose blocks up to `granted` are gone."""
    floats = segment.floats[segment.layout.ring :]
    block = Block(segment.words, granted, 0, 0, float("-inf"), float("-inf"))
    return iter(()), floats, page[-1:], 0.0, 0.0, block


def open_block(segment: Segment, page: memoryview[float], start: int, now: float) -> Queue:
    """The block at position `start`, which is committed; not in use before its tuple is stored.

    An exception may have ended an earlier attempt after any line: its epoch is then kept, because the
    reader may have seen it. Killed here, the block is empty slots that no later word follows.
    """
    layout, words = segment.layout, segment.words
    first = layout.ring + (start & (layout.slots - 1))
    lap = start // layout.slots & at.LAP_MASK
    epoch = max(0, int(now) - EPOCH_MARGIN_S)
    word = words[first]
    if word >> at.LAP_SHIFT == at.pack_time(lap, 0) >> at.LAP_SHIFT and now < (word & at.EPOCH_MASK) + 60:
        epoch = word & at.EPOCH_MASK
    words[at.W_GRANTED] = start + at.BLOCK
    words[first] = at.pack_time(lap, epoch)
    cell = 1 + start // at.BLOCK % CELLS
    place = first - layout.ring
    slots, until = words[layout.ring : layout.tallies], epoch + at.BLOCK_SPAN_S
    block = Block(slots, start + at.BLOCK, epoch, lap, until, 0.0)
    return (
        iter(range(place + 1, place + at.BLOCK)),
        segment.floats[layout.ring : layout.tallies],
        page[cell : cell + 1],
        at.ROUND_TO_END - epoch * at.END_FACTOR,
        at.ROUND_TO_END - lap * at.LAP_WEIGHT,
        block,
    )


def arm(queue: Queue, fresh_until: float, quick: bool) -> None:
    """Calls that end before the block does and before `fresh_until` need no look; `quick` ones no check."""
    block = queue[5]
    block.limit = min(block.until, fresh_until)
    queue[2][0] = block.limit if quick and not FREE_THREADED else 0.0


def drawn(queue: Queue) -> int:
    """The position behind the last ticket that was taken."""
    return queue[5].after - operator.length_hint(queue[0])


def give_up(queue: Queue) -> None:
    """Close a block whose time is over: its remaining slots say so, or the reader would wait for them."""
    block = queue[5]
    void = at.pack_void(block.lap)
    for slot in queue[0]:
        block.words[slot] = void
    queue[2][0] = 0.0
