"""One segment as it is read: holes, the last drain, and everything that a hostile worker may write."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc import layout as at
from ipc.vocabulary import OutcomeKind, Tally
from supervisor.intake import Intake
from supervisor.messages import WorkerQuarantined
from supervisor.source import INVALID_DRAINS_MAX, read_declaration
from supervisor.worker import Worker
from tests.supervisor.segments import NOW, SLOTS, START, Bench, outcomes, reading, tick

# --- holes and death ------------------------------------------------------------------------------------


def test_a_hole_is_told_and_its_late_word_counted() -> None:
    """A slot that stays empty becomes a hole of the checkpoint; its word is counted once when it comes."""
    bench = Bench()
    writer = bench.writers["a"]
    writer.fill(2)
    bench.drain()
    late = writer.ticket()
    writer.fill(3)
    ticks = [tick(bench) for _ in range(3)]
    taken = [one for told in ticks for one in told]
    assert (outcomes(taken), taken[-1].holes, taken[-1].gaps) == (3, ((late, 100),), 0)
    assert writer.segment.words[at.W_COMMITTED] == late
    writer.store(late, writer.word(late))
    (last,) = bench.drain()
    assert (outcomes([last]), last.holes) == (1, ())
    assert writer.segment.words[at.W_COMMITTED] == writer.position


def test_holes_go_through_a_restart() -> None:
    """A new daemon knows the open holes, and counts a late word once."""
    bench = Bench()
    writer = bench.writers["a"]
    late = writer.ticket()
    writer.fill(3)
    kept = START
    for _ in range(4):
        for one in tick(bench):
            kept = reading(one, kept)
    writer.store(late, writer.word(late))
    other = Intake(bench.known)
    other.add("a", writer.segment, kept)
    _, batch = other.drain(NOW)
    assert outcomes(list(batch.taken) if batch else []) == 1


def test_a_hole_at_the_end_of_the_ring_is_found() -> None:
    """The slot before the ring's end has its later ones at the ring's beginning."""
    bench = Bench()
    writer = bench.writers["a"]
    while writer.position < SLOTS - 1:
        writer.put()
    bench.drain()
    late = writer.ticket()
    assert late == SLOTS - 1
    writer.fill(2)
    taken = [one for _ in range(4) for one in tick(bench)]
    assert (outcomes(taken), taken[-1].holes) == (2, ((late, 100),))


def test_the_last_drain_takes_all_that_is_left() -> None:
    """Of a dead worker the whole ring is taken, its holes are gaps, and its cumulative words are read."""
    bench = Bench()
    writer = bench.writers["a"]
    writer.fill(600)
    writer.ticket()
    writer.fill(10)
    writer.ticket()
    segment = writer.segment
    segment.words[segment.layout.tallies + Tally.REJECTED] = 9
    bench.declare("a", 3, "cache")
    messages, batch = bench.intake.drain_dead("a", NOW)
    assert len(messages) == 2
    (taken,) = bench.commit(batch)
    assert (outcomes([taken]), taken.gaps, taken.tallies) == (610, 1, ((0, Tally.REJECTED, 9),))
    assert bench.intake.drain_dead("a", NOW) == ([], None)
    assert bench.intake.drain_dead("nobody", NOW) == ([], None)


def test_the_last_drain_begins_where_the_reading_stands() -> None:
    """What was taken before the death is not taken again, and open holes are gaps."""
    bench = Bench()
    writer = bench.writers["a"]
    writer.ticket()
    writer.fill(5)
    before = [one for _ in range(4) for one in tick(bench)]
    writer.fill(2)
    _, batch = bench.intake.drain_dead("a", NOW)
    (taken,) = bench.commit(batch)
    assert (outcomes(before), outcomes([taken]), taken.gaps, taken.holes) == (5, 2, 1, ())


def test_a_checkpoint_that_lies_behind_the_ring_catches_up() -> None:
    """After an older checkpoint had to be used, what was written over since is a gap, the rest is read."""
    bench = Bench()
    writer = bench.writers["a"]
    old = reading(bench.drain()[0])
    for _ in range(4 * SLOTS // at.BLOCK + 1):
        writer.fill(at.BLOCK - 1)
        bench.drain()
    writer.fill(10)
    bench.intake.seek("a", old)
    (taken,) = bench.drain()
    assert taken.position == writer.position
    assert (taken.gaps, taken.invalid) == (writer.segment.words[at.W_GRANTED] - SLOTS, 0)
    assert outcomes([taken]) == 3 * (at.BLOCK - 1) + 10


# --- hostile segments -----------------------------------------------------------------------------------


def test_a_worker_with_invalid_words_is_quarantined() -> None:
    """After three drains with words that no worker writes the segment is not read any more."""
    bench = Bench("ab")
    writer = bench.writers["a"]
    invalid = []
    for _ in range(INVALID_DRAINS_MAX):
        position = writer.ticket()
        writer.store(position, 1 << 52 | writer.lap(position) << 41 | 5)
        bench.writers["b"].put()
        invalid += [one.invalid for one in bench.drain() if one.worker == "a"]
    assert (invalid, bench.intake.more) == ([1, 1, 1], True)
    messages, batch = bench.intake.drain(NOW)
    assert batch is None
    assert messages == [WorkerQuarantined("a", "3 drains of its segment found words that no worker writes")]
    writer.fill(10)
    bench.writers["b"].put()
    assert [one.worker for one in bench.drain()] == ["b"]
    assert bench.intake.drain_dead("a", NOW) == ([], None)


def test_a_quarantine_that_was_not_committed_is_told_again() -> None:
    """If the message was lost with its commit, the next drain brings it again, before a word is read."""
    bench = Bench()
    writer = bench.writers["a"]
    for _ in range(INVALID_DRAINS_MAX):
        position = writer.ticket()
        writer.store(position, 1 << 52 | 5)
        (taken,) = bench.drain()
    first = bench.intake.drain(NOW)
    bench.intake.seek("a", reading(taken))
    assert bench.intake.drain(NOW) == first
    assert isinstance(first[0][0], WorkerQuarantined)


def test_whom_the_engine_has_quarantined_is_not_read() -> None:
    """A new daemon goes on not reading it."""
    bench = Bench()
    record = Worker("b", 1, 0, 0, "root", "b", "root", "0", 0.0)
    bench.known.workers = {"b": replace(record, quarantine="because")}
    bench.join("b").fill(5)
    assert {one.worker for one in bench.drain()} == {"a"}


def test_hostile_cumulative_words_are_refused() -> None:
    """2**48 and more is never told, and once counted as invalid; what went down is not told either."""
    bench = Bench()
    bench.tally("a", 0, Tally.REJECTED, 5)
    bench.drain()
    segment = bench.writers["a"].segment
    first = segment.layout.tallies
    segment.words[first + Tally.REJECTED] = 2
    segment.words[first + Tally.RAMPED] = (1 << 64) - 1
    segment.words[first + OutcomeKind.FAILURE] = at.TALLY_LIMIT - 1
    segment.words[at.W_CHANGES] += 1
    (taken,) = bench.drain()
    assert (taken.tallies, taken.invalid) == (((0, OutcomeKind.FAILURE, at.TALLY_LIMIT - 1),), 1)
    segment.words[at.W_CHANGES] += 1
    assert bench.drain() == []


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 5000,
        b'{"row": 1024, "breaker": "x", "settings": {}}',
        b'{"row": -1, "breaker": "x", "settings": {}}',
        b'{"row": true, "breaker": "x", "settings": {}}',
        b'{"row": 1.0, "breaker": "x", "settings": {}}',
        b'{"row": 1, "breaker": "a/b", "settings": {}}',
        b'{"row": 1, "breaker": "", "settings": {}}',
        b'{"row": 1, "breaker": "x", "settings": []}',
        b'{"row": 1, "breaker": 5, "settings": {}}',
        b'{"row": 1, "of": 5000, "class": "OSError"}',
        b'{"row": 1, "of": 1, "class": 7}',
        b'{"row": 1, "of": 1, "class": "\\ud800"}',
        b'{"row": 1, "of": 1, "class": "a\\nb"}',
        b'{"row": 1, "breaker": "x", "settings": {"a": "' + b"y" * 9000 + b'"}}',
    ],
)
def test_a_declaration_that_no_worker_makes_is_invalid(record: bytes) -> None:
    """Whatever is not a row with a breaker or a class is nothing, and counted as invalid."""
    assert read_declaration("a", record) is None
    bench = Bench()
    bench.drain()
    bench.writers["a"].segment.declare(record)
    messages, batch = bench.intake.drain(NOW)
    assert messages == []
    assert batch is not None
    assert batch.taken[0].invalid == 1


def test_declarations_that_cannot_be_read_end_in_quarantine() -> None:
    """A declared word that no record reaches is invalid in each drain: no look repeats for ever."""
    bench = Bench()
    bench.drain()
    segment = bench.writers["a"].segment
    segment.words[segment.layout.declared + segment.words[at.W_DECLARED] // 8] = 1 << 63
    segment.words[at.W_DECLARED] += 4096
    for _ in range(INVALID_DRAINS_MAX):
        (taken,) = bench.drain()
        assert taken.invalid == 1
    assert isinstance(bench.intake.drain(NOW)[0][0], WorkerQuarantined)
    assert bench.intake.drain(NOW) == ([], None)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, (1 << 64) - 1))
def test_a_garbage_segment_hurts_nobody_else(seed: int, granted: int) -> None:
    """Random words in every part of a segment: other workers' words are taken, and drains end (C4, C5)."""
    bench = Bench("ab")
    segment = bench.writers["a"].segment
    noise = random.Random(seed).randbytes(segment.layout.size - 128)
    segment.bytes[128 : 128 + len(noise)] = noise
    segment.words[at.W_GRANTED] = granted
    bench.writers["b"].fill(10)
    taken = []
    for _ in range(40):
        taken += tick(bench)
    assert outcomes([one for one in taken if one.worker == "b"]) == 10
    hostile = [one for one in taken if one.worker == "a"]
    assert sum(one.invalid + outcomes([one]) for one in hostile) <= 3 * SLOTS
    bench.intake.drain_dead("a", NOW)
