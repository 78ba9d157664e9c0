"""What hundreds of workers with a hundred breakers each cost: beats, CPU, attaching, starting, the disk.

So many processes do not fit on the machine of a benchmark, so the workers are rings that this process
writes into (not timed), and time is a number that is counted up. Intake, engine, journal and copy are the
daemon's own, in its order, and timed by the CPU clock of this process: other work does not count. A beat
waits for the turn that is under way at most, so the longest turn stands for the oldest heartbeat.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Final

from benchmarks.figures import Figure, main
from ipc import layout as at
from ipc.segment import Segment
from supervisor.daemon import GC_THRESHOLDS
from supervisor.disk import DiskCopy
from supervisor.engine import Engine
from supervisor.image import read_image
from supervisor.intake import Intake
from supervisor.intake_actor import DEAR_S, REST_FACTOR, REST_MAX_S
from supervisor.journal import Journal
from supervisor.messages import BreakerDeclared, Message, WorkerJoined, to_plain
from supervisor.mind import rebuild

OUTCOMES_PER_S: Final = 60
"""Of one worker."""
DRAINS_PER_S: Final = 50
"""The daemon looks at the rings each 20 ms, unless it rests after a dear batch."""
SECONDS: Final = 4
"""For so long, on the counted clock, a host is busy."""
DAY_S: Final = 86_400


@dataclass(slots=True)
class Ring:
    """Writes what a worker's guard would, one outcome at a time."""

    segment: Segment
    position: int = 0
    due: float = field(default=0.0)

    def put(self, now: float, row: int, *, fails: bool) -> None:
        """An outcome of 3 ms that ends now."""
        layout, words = self.segment.layout, self.segment.words
        epoch = int(now)
        if self.position % at.BLOCK == 0:
            words[at.W_GRANTED] = self.position + at.BLOCK
            words[layout.ring + self.position % layout.slots] = at.pack_time(
                self.position // layout.slots, epoch
            )
            self.position += 1
        lap = self.position // layout.slots
        word = at.head(row, 1) + (lap & at.LAP_MASK) * at.LAP_WEIGHT
        word += (now - epoch) * at.END_FACTOR + at.ROUND_TO_END - at.ROUND_TO_END
        word += 0.003
        place = layout.ring + self.position % layout.slots
        self.segment.floats[place] = -word if fails else word
        self.position += 1


class Host:
    """The daemon's main path without its loop and sockets, and the rings of its workers."""

    def __init__(self, directory: str, workers: int, breakers: int) -> None:
        self.now = 1000.0
        self.spent_s = 0.0
        """CPU of the daemon's part."""
        self.longest_s = 0.0
        """CPU of its longest turn."""
        self.engine = Engine()
        self.intake = Intake(self.engine)
        self.journal = Journal.open(directory, 1, "benchmark")
        self.journal.snapshot(self.engine.to_plain())
        self._chance = random.Random(7)
        self._breakers = breakers
        self._rests_until = 0.0
        self.rings = [self._join(number) for number in range(workers)]
        more = True
        while more:
            self.turn()
            more = self.intake.more
        self.turn()
        if any(len(worker.rows) != breakers for worker in self.engine.workers.values()):
            raise RuntimeError("not every row was declared")
        self._rests_until = 0.0  # what comes now is no backlog of the attaching

    def _join(self, number: int) -> Ring:
        nonce = number.to_bytes(16, "big")
        segment = Segment.create(at.Layout(), nonce, 1)
        segment.close_fd()
        name = nonce.hex()
        for row in range(self._breakers):
            told = {"row": row, "breaker": f"dependency-{row}", "settings": {}}
            segment.declare(json.dumps(told).encode())
        began = time.process_time()
        self._handle([WorkerJoined(name, number, 0, 0, "root", f"worker-{number}", "shop", "0")])
        self.intake.add(name, segment, self.engine.reading(name))
        self.spent_s += time.process_time() - began
        return Ring(segment)

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
        """One drain, judged, committed and told; then the beat."""
        began = time.process_time()
        messages, batch = self.intake.drain(self.now)
        if messages or batch is not None:
            self._handle([*messages, *([batch] if batch is not None else [])])
        for taken in batch.taken if batch is not None else ():
            self.intake.publish_committed(taken.worker)
        self.intake.heartbeat(int(self.now * 1e9))
        took = time.process_time() - began
        self.spent_s += took
        self.longest_s = max(self.longest_s, took)
        if took > DEAR_S:
            self._rests_until = self.now + took + min(REST_MAX_S, REST_FACTOR * took)

    def second(self) -> None:
        """Every worker has its outcomes of a second, one in a hundred a failure."""
        for _ in range(DRAINS_PER_S):
            self.now += 1.0 / DRAINS_PER_S
            for ring in self.rings:
                ring.due += OUTCOMES_PER_S / DRAINS_PER_S
                while ring.due >= 1.0:
                    ring.due -= 1.0
                    row = self._chance.randrange(self._breakers)
                    ring.put(self.now, row, fails=self._chance.random() < 0.01)
            if self.now >= self._rests_until:
                self.turn()

    @property
    def counted(self) -> int:
        """Every outcome that reached the metrics."""
        return sum(sum(one.metrics.outcomes) for one in self.engine.catalogue.numbered)


def busy(workers: int, breakers: int) -> list[Figure]:
    """Attaching, beats and CPU of so many."""
    title = f"{workers} workers x {breakers} breakers"
    with tempfile.TemporaryDirectory() as directory:
        host = Host(directory, workers, breakers)
        attached_s = host.spent_s
        host.spent_s = host.longest_s = 0.0
        for _ in range(SECONDS):
            host.second()
        seconds_s = host.spent_s
        host.turn()
        wanted = workers * OUTCOMES_PER_S * SECONDS
        if not wanted - workers <= host.counted <= wanted:
            raise RuntimeError(f"{wanted} outcomes were put, {host.counted} were counted")
        cpu = seconds_s / SECONDS
        host.journal.close()
    return [
        _figure(f"{title}, 60 outcomes/s each: longest turn (oldest heartbeat)", host.longest_s, "s", 0.5),
        _figure(f"{title}, 60 outcomes/s each: CPU of the daemon's path", 100 * cpu, "% of a core", 25),
        _figure(f"{title}: attach and declare, CPU", attached_s, "s", 5),
    ]


def declared(workers: int, breakers: int, *, apart: bool) -> Engine:
    """An engine that so many workers declared so many breakers to, each its own ones or all the same."""
    engine = Engine()
    for number in range(workers):
        nonce = f"{number:032x}"
        engine.handle(WorkerJoined(nonce, number, 0, 0, "root", f"worker-{number}", "shop", "0"), 1000.0, 0.5)
        for row in range(breakers):
            name = f"dependency-{number if apart else 0}-{row}"
            engine.handle(BreakerDeclared(nonce, row, name, "{}"), 1000.0, 0.5)
    return engine


def start(title: str, workers: int, breakers: int, *, apart: bool = False) -> Figure:
    """What a new daemon does before it serves: read, rebuild, publish, snapshot."""
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal.open(directory, 1, "benchmark")
        journal.snapshot(declared(workers, breakers, apart=apart).to_plain())
        journal.close()
        began = time.process_time()
        journal = Journal.open(directory, 1, "benchmark")
        loaded = journal.load()
        if loaded is None:
            raise RuntimeError("nothing was loaded")
        engine = rebuild(loaded)
        words = len(engine.publications())
        journal.snapshot(engine.to_plain())
        took = time.process_time() - began
        journal.close()
    if words != workers * breakers:
        raise RuntimeError(f"{words} rows came back instead of {workers * breakers}")
    return _figure(f"start of a daemon at {title}: CPU", took, "s", 1.0)


def copied(workers: int, breakers: int) -> list[Figure]:
    """Bytes that go to the disk while so many are busy, and while they are idle."""
    with tempfile.TemporaryDirectory() as directory, tempfile.TemporaryDirectory() as state:
        host, disk = Host(directory, workers, breakers), DiskCopy(state)
        rates, last = [], b""
        for work in (host.second, host.turn):
            before = disk.written
            for _ in range(SECONDS):
                work()
                image = host.journal.image()
                if image != last and not disk.save(image, 1, host.now):
                    raise RuntimeError(disk.problem)
                last = image
            rates.append((disk.written - before) / SECONDS * DAY_S / 2**30)
        saved = disk.load().image
        if saved is None or rebuild(read_image(saved)).to_plain() != host.engine.to_plain():
            raise RuntimeError("the copy is not what was copied")
        host.journal.close()
    title = f"copy on disk, {workers} workers x {breakers} breakers"
    return [
        _figure(f"{title}, 60 outcomes/s each", rates[0], "GiB a day", 10),
        _figure(f"{title}, idle", rates[1], "GiB a day", 0.1),
    ]


def _figure(figure: str, value: float, unit: str, target: float) -> Figure:
    return Figure(
        figure,
        f"{value:.3g} {unit}",
        f"{value / target:.2f} x target",
        f"<= {target:g} {unit}",
        value <= target,
    )


def measure() -> list[Figure]:
    """Every figure."""
    gc.set_threshold(*GC_THRESHOLDS)
    return [
        *busy(512, 100),
        start("512 workers x 20 breakers", 512, 20),
        start("4,096 breakers of 8 workers", 8, 512, apart=True),
        start("8 workers x 1,000 breakers", 8, 1000),
        *copied(128, 20),
    ]


if __name__ == "__main__":
    sys.exit(main(measure))
