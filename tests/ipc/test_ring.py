"""The reading side of a ring: order, laps, holes, gaps, and words that no honest writer would store."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc import layout as at
from ipc.ring import HOLES_MAX, NO_EPOCH, Part, Reader, epoch_of, slices
from ipc.segment import Segment
from ipc.vocabulary import OutcomeKind
from tests.ipc.ring_writer import RingWriter

SLOTS = at.PRIVATE_SLOTS
TICKS = 8


def pair(position: int = 0) -> tuple[RingWriter, Reader]:
    """A writer and a reader of one private ring, both at a position."""
    segment = Segment.private()
    return RingWriter(segment, position), Reader(segment.words, segment.layout, position)


def outcomes(parts: list[Part]) -> list[int]:
    """The words of these parts that are no time words."""
    return [word for part in parts for _, words in slices(part) for word in words]


def take(reader: Reader, limit: int = 4096) -> list[int]:
    """What is read now."""
    return outcomes(reader.read(limit))


def test_an_empty_ring_has_nothing() -> None:
    """Nothing is read from a ring into which nothing was put, and nothing waits there."""
    _, reader = pair()
    assert (reader.waiting, reader.read(100), reader.position) == (False, [], 0)


def test_every_word_is_read_once_in_order() -> None:
    """Words come in the order of their tickets, over block borders, and never twice."""
    writer, reader = pair()
    put = writer.fill(600)
    assert reader.waiting
    assert take(reader, 100) + take(reader) == put
    assert (take(reader), reader.waiting) == ([], False)


def test_the_epoch_of_a_block_is_told_with_its_words() -> None:
    """Each block's words come with that block's epoch, also when a read begins in its middle."""
    writer, reader = pair()
    first = writer.fill(300)
    writer.epoch = 170
    second = writer.fill(210 + 100)
    parts = [*reader.read(20), *reader.read(1000)]
    told = [(epoch, len(words)) for part in parts for epoch, words in slices(part)]
    assert told == [(100, 19), (100, 236), (100, 255), (170, 100)]
    assert outcomes(parts) == first + second


def test_laps_go_on_and_the_tag_wraps() -> None:
    """Reading goes on through 300 laps, more than the lap tag tells apart (C8)."""
    writer, reader = pair()
    for _ in range(300 * SLOTS // at.BLOCK):
        put = writer.fill(at.BLOCK - 1)
        assert take(reader) == put
    assert reader.position == 300 * SLOTS


@pytest.mark.parametrize("lap", [0, 1, 127, 128, 129, (1 << 47) - 1])
def test_any_lap_begins_well(lap: int) -> None:
    """A reader and a writer that begin at any lap agree about every word."""
    writer, reader = pair(lap * SLOTS)
    put = writer.fill(SLOTS - SLOTS // at.BLOCK)
    assert take(reader) == put


def test_the_lap_before_is_not_read_again() -> None:
    """What stands in the slots from the lap before is not new."""
    writer, reader = pair()
    writer.fill(SLOTS - SLOTS // at.BLOCK)
    take(reader)
    assert (take(reader), reader.position) == ([], SLOTS)


def test_a_word_of_another_lap_stops_the_reading() -> None:
    """A word with a wrong lap tag is not published where it stands."""
    writer, reader = pair()
    put = writer.fill(3)
    writer.store(writer.ticket(), writer.word(5 * SLOTS))
    assert take(reader) == put
    assert not reader.waiting


def test_a_hole_is_not_stepped_over_on_first_sight() -> None:
    """An empty slot with filled ones behind it is waited for until it was seen so on two ticks."""
    writer, reader = pair()
    before = writer.fill(2)
    hole = writer.ticket()
    behind = writer.fill(2)
    assert take(reader) == before
    assert (reader.look_for_holes(), reader.stuck, take(reader)) == (False, True, [])
    assert reader.look_for_holes()
    assert take(reader) == behind
    assert (reader.holes, reader.committed, reader.gaps) == ([(hole, 100)], hole, 0)


def test_idle_ticks_do_not_count_as_looks() -> None:
    """A slot that was empty for long is still waited for when the first word appears behind it."""
    writer, reader = pair()
    writer.fill(2)
    take(reader)
    for _ in range(10):
        assert not reader.look_for_holes()
    writer.ticket()
    writer.fill(1)
    assert (reader.look_for_holes(), reader.look_for_holes()) == (False, True)


def test_a_filled_slot_between_two_looks_is_no_hole() -> None:
    """A slot that is filled before the second look is simply read."""
    writer, reader = pair()
    writer.fill(1)
    take(reader)
    late = writer.ticket()
    behind = writer.fill(1)
    reader.look_for_holes()
    writer.store(late, word := writer.word(late))
    assert (reader.look_for_holes(), reader.stuck) == (False, False)
    assert take(reader) == [word, *behind]


def test_a_late_store_is_counted_once() -> None:
    """A hole that is filled later gives its word once, with its block's epoch, and frees the position."""
    writer, reader = pair()
    hole = writer.ticket()
    writer.fill(3)
    step_over(reader)
    take(reader)
    writer.store(hole, word := writer.word(hole, OutcomeKind.FAILURE))
    parts = reader.read(100)
    assert parts == [Part(hole, 100, [word])]
    assert (reader.holes, reader.committed, reader.gaps) == ([], reader.position, 0)
    assert take(reader) == []


def test_a_hole_is_a_gap_when_its_lap_is_over() -> None:
    """When the writer needs the hole's block again, the hole is given up and the writer is not stuck."""
    writer, reader = pair()
    writer.fill(5)
    take(reader)
    writer.ticket()
    while writer.position < SLOTS:
        writer.fill(1)
    step_over(reader)
    take(reader)
    assert reader.committed == 6
    assert (reader.look_for_holes(), reader.take_gaps(), reader.take_gaps()) == (False, 1, 0)
    assert reader.committed == SLOTS
    put = writer.fill(10)
    assert take(reader) == put


def test_a_hole_in_a_later_block_is_kept_when_an_earlier_one_is_given_up() -> None:
    """Only holes of the block that the writer needs are given up."""
    writer, reader = pair()
    first = writer.ticket()
    writer.fill(300)
    second = writer.ticket()
    while writer.position < SLOTS:
        writer.fill(1)
    for _ in range(TICKS):
        take(reader)
        reader.look_for_holes()
    assert reader.position == SLOTS
    assert (reader.take_gaps(), reader.holes) == (1, [(second, 100)])
    assert first < reader.committed == second


def test_more_holes_than_can_be_remembered_make_the_reading_wait() -> None:
    """Beyond 64 open holes reading waits; when the writer has used up its lap the oldest are given up."""
    writer, reader = pair()
    holes: list[int] = []
    while len(holes) <= HOLES_MAX:
        holes.append(writer.ticket())
        writer.fill(1)
    for _ in range(3 * HOLES_MAX):
        reader.look_for_holes()
        take(reader)
    assert [position for position, _ in reader.holes] == holes[:HOLES_MAX]
    assert reader.position == holes[-1]
    put = [writer.put() for _ in range(SLOTS - writer.position - 3)]
    assert put
    for _ in range(TICKS):
        take(reader)
        reader.look_for_holes()
    assert reader.position > holes[-1]


def test_the_holes_of_a_dead_writer_are_gaps_at_once() -> None:
    """Nobody will fill them: the words behind them are read and the slots are counted as lost."""
    writer, reader = pair()
    writer.ticket()
    first = writer.fill(1)
    step_over(reader)
    read = take(reader)
    writer.ticket()
    writer.ticket()
    last = writer.fill(1)
    while reader.look_for_holes(dead=True):
        read += take(reader)
    assert (read, reader.take_gaps(), reader.holes) == (first + last, 3, [])


def test_a_ticket_that_nothing_follows_is_no_gap() -> None:
    """The call in flight when its process was killed is not counted as lost."""
    writer, reader = pair()
    put = writer.fill(3)
    writer.ticket()
    assert take(reader) == put
    assert (reader.look_for_holes(dead=True), reader.take_gaps()) == (False, 0)


def test_a_missing_time_word_leaves_its_block_without_epoch() -> None:
    """Words behind a block's empty first slot are read, and their epoch is not known."""
    writer, reader = pair()
    writer.fill(at.BLOCK - 1)
    take(reader)
    writer.segment.words[at.W_GRANTED] = 2 * at.BLOCK
    writer.position += 1
    word = writer.put()
    step_over(reader)
    assert reader.holes == [(at.BLOCK, NO_EPOCH)]
    assert [cut for part in reader.read(9) for cut in slices(part)] == [(NO_EPOCH, [word])]


def test_garbage_behind_the_granted_position_leads_nowhere() -> None:
    """A valid looking word beyond what the worker granted itself does not move the reader."""
    writer, reader = pair()
    writer.store(50, writer.word(50))
    for _ in range(TICKS):
        assert not reader.look_for_holes()
    assert (reader.position, reader.holes) == (0, [])


@pytest.mark.parametrize("granted", [0, 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 256])
@pytest.mark.parametrize("seed", range(10))
def test_a_garbage_ring_costs_one_lap_at_most(granted: int, seed: int) -> None:
    """Random words and a hostile granted word: at most one lap is considered, whatever is done (C4, C5)."""
    segment = Segment.private()
    reader = Reader(segment.words, segment.layout)
    dice = random.Random(seed)
    for slot in range(SLOTS):
        segment.words[segment.layout.ring + slot] = dice.getrandbits(64) & ~(at.LAP_MASK << at.LAP_SHIFT - 3)
    segment.words[at.W_GRANTED] = granted
    read = 0
    for _ in range(3 * SLOTS):
        read += sum(len(part.words) for part in reader.read(100))
        reader.look_for_holes()
    assert read <= SLOTS
    assert reader.position <= SLOTS
    assert len(reader.holes) <= HOLES_MAX


def test_a_dead_garbage_ring_is_read_to_its_end() -> None:
    """The last drain of a ring of every second slot ends, and counts what lies between as gaps."""
    segment = Segment.private()
    reader = Reader(segment.words, segment.layout)
    segment.words[at.W_GRANTED] = (1 << 64) - 1
    segment.words[segment.layout.ring + 1 : segment.layout.ring + SLOTS : 2] = memoryview(
        b"\x01\0\0\0\0\0\0\0" * (SLOTS // 2)
    ).cast("Q")
    read = len(take(reader))
    while reader.look_for_holes(dead=True):
        read += sum(len(part.words) for part in reader.read(SLOTS))
    assert (read, reader.take_gaps()) == (SLOTS // 2, SLOTS // 2)


def test_only_a_time_word_tells_an_epoch() -> None:
    """A block that begins with anything else has no epoch."""
    assert epoch_of(at.pack_time(3, 12_345)) == 12_345
    assert epoch_of(at.pack_void(3)) == NO_EPOCH
    assert epoch_of(0) == NO_EPOCH


def step_over(reader: Reader) -> list[int]:
    """Read up to an empty slot, then two ticks, after which the reader has stepped over it."""
    read = take(reader)
    assert not reader.look_for_holes()
    assert reader.look_for_holes()
    return read


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["put", "draw", "store", "read", "tick"]), st.integers(0, 300))))
def test_nothing_is_lost_or_read_twice(acts: list[tuple[str, int]]) -> None:
    """However tickets, late stores, reads and ticks follow each other, the words read are those stored.

    At the end the writer is dead: every ticket that was never stored and lies before the last word is
    a gap, and no other slot is.
    """
    writer, reader = pair()
    open_tickets: list[int] = []
    stored: dict[int, int] = {}
    read: list[int] = []
    for act, number in acts:
        if act in ("put", "draw") and writer.position + 2 >= reader.committed + SLOTS:
            continue
        if act == "put":
            for _ in range(min(number, reader.committed + SLOTS - writer.position - 2)):
                position = writer.ticket()
                stored[position] = writer.word(position, row=position % 1000)
                writer.store(position, stored[position])
        elif act == "draw":
            open_tickets.append(writer.ticket())
        elif act == "store" and open_tickets:
            position = open_tickets.pop(number % len(open_tickets))
            stored[position] = writer.word(position, row=position % 1000)
            writer.store(position, stored[position])
        elif act == "read":
            read += take(reader, number)
        elif act == "tick":
            reader.look_for_holes()
    given_up = reader.take_gaps()
    read += take(reader)
    while reader.look_for_holes(dead=True) or reader.waiting:
        read += take(reader)
    last = max(stored, default=0)
    missing = [position for position in open_tickets if position < last]
    assert sorted(read) == sorted(stored.values())
    assert given_up == 0
    assert reader.take_gaps() == len(missing)
