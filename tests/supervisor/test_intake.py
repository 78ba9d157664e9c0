"""Draining many segments: everything once, declarations first, a worker told only when told to."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc import layout as at
from ipc.segment import Segment
from ipc.vocabulary import OutcomeKind, Tally
from supervisor.intake import DRAIN_BATCH_MAX, DRAIN_WORDS_MAX, Intake
from supervisor.messages import BreakerDeclared, ClassDeclared, Message, OutcomeBatch, Taken
from supervisor.metrics import QUICK_BUCKET
from supervisor.worker import ReadFrom
from tests.ipc.ring_writer import RingWriter
from tests.supervisor.segments import NOW, SETTINGS, SLOTS, START, Bench, outcomes, reading, tick

ACTS = ("put", "put", "tally", "drain", "tick", "fail", "die")


def test_nothing_new_is_nothing() -> None:
    """Without news there is no batch, and no segment's bell word is touched."""
    bench = Bench()
    bench.drain()
    bell = bench.writers["a"].segment.words[at.W_BELL]
    assert bench.intake.drain(NOW) == ([], None)
    assert bench.writers["a"].segment.words[at.W_BELL] == bell


def test_one_drain_takes_everything() -> None:
    """Outcomes, durations and cumulative words of every worker come in one batch, with the positions."""
    bench = Bench("ab")
    bench.drain()
    bench.writers["a"].put(OutcomeKind.FAILURE)
    bench.writers["a"].put()
    bench.tally("b", 0, Tally.REJECTED, 3)
    first, second = bench.drain()
    assert first.durations == ((0, ((QUICK_BUCKET[262], 2),)),)
    counts = ((0, 3, 0, 1), (0, 2, 0, 1))
    assert first == Taken("a", 3, 100, (), first.declared, 0, 0, counts, first.durations, ())
    assert second == Taken("b", 0, 0, (), second.declared, 0, 0, (), (), ((0, Tally.REJECTED, 3),))


def test_declarations_come_before_the_words_of_their_rows() -> None:
    """A row is told in the same drain as its first word, as a message to be handled before the batch."""
    bench = Bench()
    bench.declare("a", 7, "cache")
    bench.writers["a"].segment.declare(b'{"row": 8, "of": 7, "class": "OSError"}')
    bench.writers["a"].put(row=7)
    messages, batch = bench.intake.drain(NOW)
    settings_json = json.dumps(SETTINGS, separators=(",", ":"))
    assert messages == [
        BreakerDeclared("a", 0, "database", settings_json),
        BreakerDeclared("a", 7, "cache", settings_json),
        ClassDeclared("a", 8, 7, "OSError"),
    ]
    assert batch is not None
    assert outcomes(list(batch.taken)) == 1


def test_a_worker_may_write_over_committed_slots_only() -> None:
    """The committed word moves when the batch is committed, not when it is read."""
    bench = Bench()
    bench.writers["a"].fill(10)
    words = bench.writers["a"].segment.words
    _, batch = bench.intake.drain(NOW)
    assert words[at.W_COMMITTED] == 0
    bench.commit(batch)
    assert words[at.W_COMMITTED] == 11
    bench.intake.publish_committed("nobody")


def test_what_was_not_committed_is_read_again() -> None:
    """After a failure the reading goes back to the last committed position, tallies and declarations too."""
    bench = Bench()
    bench.writers["a"].fill(5)
    bench.tally("a", 0, Tally.REJECTED)
    kept = reading(bench.drain()[0])
    bench.writers["a"].fill(3)
    bench.declare("a", 1, "cache")
    bench.tally("a", 1, Tally.RAMPED, 2)
    lost = bench.intake.drain(NOW)
    bench.intake.seek("a", kept)
    assert bench.intake.drain(NOW) == lost
    assert lost[1] is not None
    assert lost[1].taken[0].tallies == ((1, Tally.RAMPED, 2),)


def test_a_new_daemon_reads_on() -> None:
    """Another intake that begins at the committed position takes the rest, and only the rest."""
    bench = Bench()
    writer = bench.writers["a"]
    writer.fill(5)
    kept = reading(bench.drain()[0])
    writer.fill(4)
    bench.tally("a", 0, Tally.REJECTED, 2)
    other = Intake(bench.known)
    other.add("a", writer.segment, kept)
    messages, batch = other.drain(NOW)
    assert (messages, outcomes(list(batch.taken) if batch else [])) == ([], 4)
    assert other.drain(NOW) == ([], None)


def test_the_bell_is_a_new_epoch_before_each_reading() -> None:
    """A segment with news gets a new bell epoch in each drain, and a new daemon never repeats the last."""
    bench = Bench()
    words = bench.writers["a"].segment.words
    epochs = [words[at.W_BELL]]
    for _ in range(3):
        bench.writers["a"].put()
        bench.drain()
        epochs.append(words[at.W_BELL])
    Intake(bench.known).add("a", bench.writers["a"].segment, START)
    epochs.append(words[at.W_BELL])
    assert len(set(epochs)) == len(epochs)


@pytest.mark.parametrize("scribble", [(1 << 63) - 1, (1 << 64) - 1])
def test_a_scribbled_bell_is_survived(scribble: int) -> None:
    """Whatever stands in the bell word, a daemon begins there and goes on."""
    bench = Bench()
    segment = bench.writers["a"].segment
    segment.words[at.W_BELL] = scribble
    bench.intake.remove("a")
    bench.intake.add("a", segment, START)
    assert segment.words[at.W_BELL] != scribble
    bench.drain()


def test_a_drain_is_bounded() -> None:
    """One drain takes no more than its share of each ring, says that there is more, and the next goes on."""
    bench = Bench()
    bench.intake.remove("a")
    segment = Segment.create(at.Layout(16_384), b"b" * 16, 1)
    segment.close_fd()
    bench.intake.add("b", segment, START)
    writer = RingWriter(segment)
    total = DRAIN_BATCH_MAX + 500
    writer.fill(total)
    first = bench.drain()
    assert bench.intake.more
    second = bench.drain()
    assert (first[0].position, outcomes(first + second), bench.intake.more) == (DRAIN_BATCH_MAX, total, False)


def test_many_rings_share_the_bound() -> None:
    """With many full rings each gives a part, but a block at least."""
    bench = Bench("abcdefghijklmnopqrstuvwxyz")
    for writer in bench.writers.values():
        writer.fill(900)
    share = DRAIN_WORDS_MAX // 26
    assert {one.position for one in bench.drain()} == {min(share, writer.position)}


# --- everything once ------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 400))))
def test_every_outcome_is_counted_once(acts: list[tuple[str, int]]) -> None:
    """However puts, drains, ticks, lost commits and new daemons follow each other, the totals are exact."""
    bench = Bench()
    writer, put, counted, rejected = bench.writers["a"], 0, 0, 0
    kept = START
    seen: dict[tuple[int, int], int] = {}

    def commit(drained: tuple[list[Message], OutcomeBatch | None]) -> ReadFrom:
        nonlocal counted
        after = kept
        for one in bench.commit(drained[1]):
            counted += outcomes([one])
            seen.update({(row, index): value for row, index, value in one.tallies})
            after = reading(one, after)
        return after

    for act, number in acts:
        if act == "put":
            room = writer.segment.words[at.W_COMMITTED] + SLOTS - at.BLOCK - writer.position
            for _ in range(min(number, max(0, room))):
                writer.put()
                put += 1
        elif act == "tally":
            bench.tally("a", 0, Tally.REJECTED, number)
            rejected += number
        elif act in ("drain", "tick"):
            if act == "tick":
                bench.intake.look_for_holes()
            kept = commit(bench.intake.drain(NOW))
        elif act == "fail":
            bench.intake.drain(NOW)
            bench.intake.seek("a", kept)
        elif act == "die":
            bench.intake.drain(NOW)
            bench.intake = Intake(bench.known)
            bench.intake.add("a", writer.segment, kept)
    kept = commit(bench.intake.drain_dead("a", NOW))
    assert (counted, seen.get((0, Tally.REJECTED), 0)) == (put, rejected)


def test_a_look_at_64_idle_segments_is_cheap() -> None:
    """An idle tick over 64 segments takes no more time than a few dozen microseconds."""
    bench = Bench("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-")
    for _ in range(4):
        tick(bench)
    spent = []
    for _ in range(200):
        began = time.process_time_ns()
        bench.intake.look_for_holes()
        bench.intake.drain(NOW)
        spent.append(time.process_time_ns() - began)
    assert sorted(spent)[len(spent) // 2] < 200_000
