"""How one drain of one segment is counted: outcomes, durations, cumulative words, and what was lost.

Every outcome that intake took is counted here exactly once, judged or not; who judges is the engine.
Neighbours: `engine` calls, `metrics` and `worker` hold the numbers. Knows no breaker's state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from ipc.vocabulary import OTHER_CLASS, OutcomeKind, Tally
from supervisor.messages import Taken
from supervisor.metrics import KIND_NAMES, ClassCount, Lost
from supervisor.worker import Worker

COUNTERS_MAX: Final = 8192
"""Counters of a host; beyond it an operation is counted as `other`."""
COUNTERS_OTHER_MAX: Final = 1024
"""Counters called `other` beyond that; a further one is refused."""
CounterKey = tuple[str, str, str]
"""(namespace, kind, operation)."""


@dataclass(slots=True)
class Counting:
    """What is counted host-wide, beside the metrics of each breaker."""

    batches: int = 0
    lost: Lost = field(default_factory=Lost)
    disorder_at: float | None = None
    """When outcomes were last lost, or counted without their order (s of CLOCK_MONOTONIC)."""
    disorder: str = ""
    """What that was, a sentence without its end."""
    counters: dict[CounterKey, ClassCount] = field(default_factory=dict)
    """What workers count beside calls, over all workers that ever were."""

    def take(self, taken: Taken, worker: Worker, now: float) -> None:
        """Count everything of one drain and remember where the next one begins."""
        worker.position, worker.epoch, worker.holes = taken.position, taken.epoch, taken.holes
        worker.declared = taken.declared
        if taken.gaps or taken.invalid:
            self.lost.ring_gap += taken.gaps
            self.lost.ring_invalid += taken.invalid
            self.note(now, f"{taken.gaps + taken.invalid} words of {worker.title} could not be read")
        rows = worker.rows
        for number, kind, local, count in taken.counts:
            row = rows.get(number)
            if row is None or row.class_name is not None or kind not in KIND_NAMES:
                self._take_odd(worker, number, kind, count, now)
                continue
            metrics = row.breaker.metrics
            metrics.outcomes[kind] += count
            if local:
                metrics.local += count
            worker.outcomes += count
        for number, counted in taken.durations:
            row = rows.get(number)
            if row is not None and row.class_name is None:
                row.breaker.metrics.take_durations(counted)
        for number, index, value in taken.tallies:
            more = worker.more_of(number, index, value)
            if more:
                self._take_tally(worker, number, index, more, now)

    def _take_odd(self, worker: Worker, number: int, kind: int, count: int, now: float) -> None:
        """Words of a row that is no breaker's: one more of a class, or nothing that can be credited."""
        row, counter = worker.rows.get(number), worker.counters.get(number)
        if counter is not None and kind == OutcomeKind.COUNT:
            self._take_counter(counter, count, now)
        elif row is not None and row.class_name is not None and kind == OutcomeKind.COUNT:
            row.breaker.metrics.take_class(row.class_name, count, now)
        else:
            self._take_unknown(worker, count, now)

    def _take_tally(self, worker: Worker, number: int, index: int, more: int, now: float) -> None:
        """One cumulative word has grown by `more`."""
        row, counter = worker.rows.get(number), worker.counters.get(number)
        if counter is not None and index == OutcomeKind.COUNT:
            self._take_counter(counter, more, now)
        elif row is not None and row.class_name is not None and index == OutcomeKind.COUNT:
            row.breaker.metrics.take_class(row.class_name, more, now)
        elif row is None or row.class_name is not None or not row.breaker.metrics.take_tally(index, more):
            self._take_unknown(worker, more, now)
        elif index in KIND_NAMES:
            worker.outcomes += more
            worker.overflow += more
            self.note(now, f"{more} outcomes of {worker.title} found its ring full: counted without order")
        elif index == Tally.REJECTED:
            worker.rejected += more

    def _take_counter(self, key: CounterKey, more: int, now: float) -> None:
        counted = self.counters[key]
        counted.count += more
        counted.last_seen = now

    def counter(self, namespace: str, kind: str, operation: str) -> CounterKey | None:
        """The counter of this name, made on first sight; None = the host has too many."""
        key = (namespace, kind, operation)
        if key not in self.counters and len(self.counters) >= COUNTERS_MAX:
            key = (namespace, kind, OTHER_CLASS)
        if key not in self.counters and len(self.counters) >= COUNTERS_MAX + COUNTERS_OTHER_MAX:
            return None
        self.counters.setdefault(key, ClassCount())
        return key

    def _take_unknown(self, worker: Worker, count: int, now: float) -> None:
        self.lost.unknown_row += count
        self.note(now, f"{count} outcomes of {worker.title} are of a row that was never declared")

    def note(self, now: float, text: str) -> None:
        """Remember that something was lost or lost its order."""
        self.disorder_at = now
        self.disorder = text

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        if self.disorder_at is not None:
            self.disorder_at += delta_s
        for counted in self.counters.values():
            if counted.last_seen is not None:
                counted.last_seen += delta_s

    def to_plain(self) -> list[Any]:
        """The counts as JSON values."""
        counters = [[*key, counted.count, counted.last_seen] for key, counted in self.counters.items()]
        return [self.batches, self.lost.to_plain(), self.disorder_at, self.disorder, counters]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Counting:
        """The counts that `to_plain` wrote."""
        batches, lost, disorder_at, disorder, counters = plain
        read = {tuple(key): ClassCount(count, seen) for *key, count, seen in counters}
        return cls(batches, Lost(*lost), disorder_at, disorder, read)
