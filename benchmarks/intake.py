"""Outcomes that the daemon drains, judges, journals and publishes per second of its own CPU time.

Real segments are filled (not timed), then a drain, the engine, the journal and the committed words run as
they do in the daemon, timed by the CPU clock of this process. A plain loop that unpacks every field of
the same words and adds them up, judging nothing and keeping nothing, is timed beside it: the ratio.
Eight workers put what a drain takes at most, 4,096 words each: so it is when the daemon is at its limit.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from benchmarks.figures import Figure, main, middle
from ipc import layout as at
from ipc.segment import Segment
from ipc.vocabulary import BreakerSettings
from supervisor.engine import Engine
from supervisor.intake import DRAIN_BATCH_MAX, Intake
from supervisor.journal import Journal
from supervisor.messages import Message, WorkerJoined, to_plain

WORKERS: Final = 8
BLOCKS: Final = DRAIN_BATCH_MAX // at.BLOCK
"""Blocks of a worker in one drain."""
ROUNDS: Final = 8
REPEATS: Final = 5
BLOCK_S: Final = 0.002
"""In this time each worker fills a block: a million outcomes a second."""
TARGET_PER_S: Final = 1_000_000
SETTINGS: Final = BreakerSettings(failure_threshold=1000, failure_rate=0.99)
"""Every rule is on and none trips: an open breaker would have nothing to judge."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the workers put."""

    title: str
    rows: int
    failing: float
    """Share of failures."""
    target: bool


LOADS: Final = (
    Load("1 row, all succeed", 1, 0.0, target=True),
    Load("6 rows, 0.1 % fail", 6, 0.001, target=True),
    Load("20 rows, 1 % fail", 20, 0.01, target=True),
    Load("20 rows, 50 % fail", 20, 0.5, target=False),
)


class Putter:
    """Writes what a worker's guard would, one whole block at a time."""

    def __init__(self, segment: Segment, load: Load, chance: random.Random) -> None:
        self.segment = segment
        self._load = load
        self._chance = chance
        self._position = 0

    def put(self, now: float) -> None:
        """A block whose calls ended between `now` and BLOCK_S later."""
        layout, chance = self.segment.layout, self._chance
        lap = self._position // layout.slots
        place = layout.ring + self._position % layout.slots
        epoch = int(now)
        self.segment.words[at.W_GRANTED] = self._position + at.BLOCK
        self.segment.words[place] = at.pack_time(lap, epoch)
        for index in range(1, at.BLOCK):
            row = chance.randrange(self._load.rows)
            end = now - epoch + BLOCK_S * index / at.BLOCK
            word = at.head(row, 1) + (lap & at.LAP_MASK) * at.LAP_WEIGHT
            word += end * at.END_FACTOR + at.ROUND_TO_END - at.ROUND_TO_END
            word += min(chance.lognormvariate(-6.0, 1.0), 0.2)
            self.segment.floats[place + index] = -word if chance.random() < self._load.failing else word
        self._position += at.BLOCK


class Daemon:
    """The daemon's main path without its loop and sockets."""

    def __init__(self, directory: str, load: Load) -> None:
        self.now = 1000.0
        self.engine = Engine()
        self.intake = Intake(self.engine)
        self.journal = Journal.open(directory, 1, "benchmark")
        self.journal.snapshot(self.engine.to_plain())
        chance = random.Random(7)
        self.putters = [Putter(self._join(number, load.rows), load, chance) for number in range(WORKERS)]
        self.turn()

    def _join(self, number: int, rows: int) -> Segment:
        nonce = number.to_bytes(16, "big")
        segment = Segment.create(at.Layout(), nonce, 1)
        segment.close_fd()
        name = nonce.hex()
        self._handle([WorkerJoined(name, number, 0, 0, "root", f"worker-{number}", "shop", "0")])
        self.intake.add(name, segment, self.engine.reading(name))
        for row in range(rows):
            told = {"row": row, "breaker": f"dependency-{row}", "settings": SETTINGS.to_json()}
            segment.declare(json.dumps(told).encode())
        return segment

    def _handle(self, messages: list[Message]) -> None:
        fits = True
        for message in messages:
            self.engine.handle(message, self.now, 0.5)
            fits = self.journal.append(self.now, 0.5, to_plain(message)) and fits
        if fits and not self.journal.wants_snapshot:
            self.journal.commit()
        else:
            self.journal.snapshot(self.engine.to_plain())

    def turn(self) -> None:
        """One drain, judged, committed and told."""
        messages, batch = self.intake.drain(self.now)
        if batch is None:
            return
        self._handle([*messages, batch])
        for taken in batch.taken:
            self.intake.publish_committed(taken.worker)

    def close(self) -> None:
        """Let go of the files."""
        self.journal.close()

    @property
    def counted(self) -> int:
        """Every outcome that reached the metrics."""
        return sum(sum(one.metrics.outcomes) for one in self.engine.catalogue.named.values())


def plain_loop(segments: list[Segment], position: int) -> float:
    """CPU seconds of taking the same words apart, one field after the other."""
    counts = dict.fromkeys(range(at.ROWS), 0)
    took = 0
    began = time.process_time()
    for segment in segments:
        first = segment.layout.ring + position % segment.layout.slots
        for word in segment.words[first : first + DRAIN_BATCH_MAX].tolist():
            if at.CODES[word >> at.CODE_SHIFT] is None:
                continue
            if word >> at.GENERATION_SHIFT & 15 and word >> at.END_SHIFT & at.END_MASK:
                counts[word >> at.ROW_SHIFT & at.ROW_MASK] += 1
                took += word & at.DURATION_MASK
    return time.process_time() - began


def rates(load: Load) -> Iterator[tuple[float, float]]:
    """Outcomes per CPU second of the daemon's path and of the plain loop, once per repeat."""
    with tempfile.TemporaryDirectory() as directory:
        daemon = Daemon(directory, load)
        segments = [putter.segment for putter in daemon.putters]
        each = WORKERS * BLOCKS * (at.BLOCK - 1)
        for repeat in range(REPEATS):
            spent = plain = 0.0
            for turn in range(ROUNDS):
                for _ in range(BLOCKS):
                    for putter in daemon.putters:
                        putter.put(daemon.now)
                    daemon.now += BLOCK_S
                plain += plain_loop(segments, (repeat * ROUNDS + turn) * DRAIN_BATCH_MAX)
                began = time.process_time()
                daemon.turn()
                spent += time.process_time() - began
            yield ROUNDS * each / spent, ROUNDS * each / plain
        if daemon.counted != REPEATS * ROUNDS * each:
            raise RuntimeError(f"{REPEATS * ROUNDS * each} outcomes were put, {daemon.counted} were counted")
        daemon.close()


def measure() -> list[Figure]:
    """One line per load."""
    figures = []
    for load in LOADS:
        measured = list(rates(load))
        rate = middle(mine for mine, _ in measured)
        ratio = middle(mine / plain for mine, plain in measured)
        figures.append(
            Figure(
                f"outcomes drained, judged and journaled: {load.title}",
                f"{rate / 1e6:.2f} M per CPU second",
                f"{ratio:.2f} x a loop that only takes words apart",
                f">= {TARGET_PER_S / 1e6:g} M" if load.target else "-",
                rate >= TARGET_PER_S if load.target else None,
            )
        )
    return figures


if __name__ == "__main__":
    sys.exit(main(measure))
