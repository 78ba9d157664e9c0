"""Pretend workers with real segments, read by a real intake."""

from __future__ import annotations

import json
from collections.abc import Mapping

from ipc import layout as at
from ipc.segment import Segment
from ipc.vocabulary import BreakerSettings
from supervisor.intake import Intake
from supervisor.messages import OutcomeBatch, Taken
from supervisor.worker import ReadFrom, Worker
from tests.ipc.ring_writer import RingWriter

NOW = 101.0
START = ReadFrom(0, 0, (), 0, ())
SLOTS = 1024
SETTINGS = BreakerSettings().to_json()


class Known:
    """A pretend engine: all that intake asks is who is quarantined."""

    def __init__(self) -> None:
        self.workers: Mapping[str, Worker] = {}


class Bench:
    """An intake with pretend workers, by letter, and what their words amount to."""

    def __init__(self, letters: str = "a") -> None:
        self.known = Known()
        self.intake = Intake(self.known)
        self.writers: dict[str, RingWriter] = {}
        for letter in letters:
            self.join(letter)

    def join(self, letter: str) -> RingWriter:
        """A new worker with row 0 declared as `database`."""
        segment = Segment.create(at.Layout(SLOTS), letter.encode() * 16, 1)
        segment.close_fd()
        self.writers[letter] = RingWriter(segment)
        self.intake.add(letter, segment, START)
        self.declare(letter, 0)
        return self.writers[letter]

    def declare(self, letter: str, row: int, name: str = "database") -> None:
        """Declare a row."""
        told = {"row": row, "breaker": name, "settings": SETTINGS}
        assert self.writers[letter].segment.declare(json.dumps(told).encode())

    def tally(self, letter: str, row: int, index: int, more: int = 1) -> None:
        """Bump a cumulative word as a worker does."""
        segment = self.writers[letter].segment
        segment.words[segment.layout.tallies + at.TALLIES * row + index] += more
        segment.words[at.W_CHANGES] += 1

    def drain(self, now: float = NOW) -> list[Taken]:
        """Drain once and let the workers write on."""
        _, batch = self.intake.drain(now)
        return self.commit(batch)

    def commit(self, batch: OutcomeBatch | None) -> list[Taken]:
        """What a committed batch took."""
        taken = list(batch.taken) if batch else []
        for one in taken:
            self.intake.publish_committed(one.worker)
        return taken


def reading(taken: Taken, before: ReadFrom = START) -> ReadFrom:
    """Where the reading goes on when this was committed."""
    tallies = {(row, index): value for row, index, value in (*before.tallies, *taken.tallies)}
    told = tuple((row, index, value) for (row, index), value in tallies.items())
    return ReadFrom(taken.position, taken.epoch, taken.holes, taken.declared, told)


def outcomes(taken: list[Taken]) -> int:
    """How many outcomes were taken."""
    return sum(count for one in taken for *_, count in one.counts)


def tick(bench: Bench) -> list[Taken]:
    """What the daemon does every 20 ms."""
    bench.intake.look_for_holes()
    return bench.drain()
