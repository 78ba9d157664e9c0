"""How one drain of one segment is counted: outcomes, durations, cumulative words, and what was lost.

Every outcome that intake took is counted here exactly once, judged or not; who judges is the engine.
Neighbours: `engine` calls, `metrics` and `worker` hold the numbers. Knows no breaker's state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ipc.vocabulary import OTHER_CLASS, OutcomeKind, Tally
from supervisor.idle import Idle
from supervisor.messages import Taken
from supervisor.metrics import KIND_NAMES, ClassCount, Lost
from supervisor.worker import Worker

COUNTERS_MAX: Final = 8192
"""Counters of a host; beyond it an operation is counted as `other`."""
COUNTERS_OTHER_MAX: Final = 1024
"""Counters called `other` beyond that; a further one is refused."""
COUNTERS_EACH: Final = COUNTERS_MAX // 4
"""Counters of one user, and of one namespace; root and the supervisor's own user have no share."""
COUNTERS_KEPT: Final = COUNTERS_MAX // 16
"""Counters that only root and the supervisor's own user can have."""
FORGET_S: Final = 86_400.0
"""A counter that no worker has had for so long is forgotten."""
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
    own: int = -1
    """The supervisor's own user; -1 = not known."""
    idle: Idle[CounterKey] = field(default_factory=Idle)
    """Counters that are no worker's."""
    _owners: dict[CounterKey, int] = field(default_factory=dict)
    """The user whose worker declared each counter first; -1 = not known."""
    _owned: Counter[int] = field(default_factory=Counter)
    _spaces: Counter[str] = field(default_factory=Counter)
    """How many counters each user and each namespace has."""
    _uses: Counter[CounterKey] = field(default_factory=Counter)
    """How many rows of workers are which counter; it follows from the workers."""

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
            self._take_unknown(worker, number, kind in KIND_NAMES, count, now)

    def _take_tally(self, worker: Worker, number: int, index: int, more: int, now: float) -> None:
        """One cumulative word has grown by `more`."""
        row, counter = worker.rows.get(number), worker.counters.get(number)
        if counter is not None and index == OutcomeKind.COUNT:
            self._take_counter(counter, more, now)
        elif row is not None and row.class_name is not None and index == OutcomeKind.COUNT:
            row.breaker.metrics.take_class(row.class_name, more, now)
        elif row is not None and row.class_name is None and index == OutcomeKind.COUNT:
            metrics = row.breaker.metrics
            metrics.take_class(metrics.class_name(OTHER_CLASS), more, now)
        elif row is None or row.class_name is not None or not row.breaker.metrics.take_tally(index, more):
            self._take_unknown(worker, number, index in KIND_NAMES, more, now)
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

    def counter(self, wanted: CounterKey, owner: int, now: float) -> CounterKey | None:
        """The counter of this name, made on first sight; None = there are too many.

        Where there is no room, one goes that no worker has; else what is counted is called `other`.
        """
        namespace, kind, _ = key = wanted
        if key not in self.counters and not self._make_room(namespace, owner):
            key = (namespace, kind, OTHER_CLASS)
        if key not in self.counters and len(self.counters) >= COUNTERS_MAX + COUNTERS_OTHER_MAX:
            return None
        if key not in self.counters:
            self._add(key, owner)
            self.idle.rest(key, owner, now)
        return key

    def _add(self, key: CounterKey, owner: int) -> None:
        self.counters[key] = ClassCount()
        self._owners[key] = owner
        self._owned[owner] += 1
        self._spaces[key[0]] += 1

    def _make_room(self, namespace: str, owner: int) -> bool:
        """Whether one more counter may be made: for its user, its namespace, the host."""
        share = owner not in (0, self.own)
        most = COUNTERS_MAX - COUNTERS_KEPT if share else COUNTERS_MAX
        if share and self._owned[owner] >= COUNTERS_EACH and not self._forget_first(self.idle.of(owner)):
            return False
        if share and self._spaces[namespace] >= COUNTERS_EACH:
            idle = (key for key in self.idle.oldest() if key[0] == namespace)
            if not self._forget_first(idle):
                return False
        return len(self.counters) < most or self._forget_first(self.idle.oldest())

    def _forget_first(self, candidates: Iterator[CounterKey]) -> bool:
        first = next(candidates, None)
        if first is not None:
            self._forget(first)
        return first is not None

    def _forget(self, key: CounterKey) -> None:
        """Drop a counter that is no worker's."""
        owner = self._owners.pop(key)
        self.idle.use(key)
        del self.counters[key]
        self._owned[owner] -= 1
        self._spaces[key[0]] -= 1

    def forget_old(self, now: float) -> None:
        """Forget the counters that no worker has had for a day."""
        for key in self.idle.older(now, FORGET_S):
            self._forget(key)

    def forget_due(self) -> float:
        """When `forget_old` may have something to do, at the earliest (s of CLOCK_MONOTONIC)."""
        return self.idle.first + FORGET_S

    def used(self, key: CounterKey) -> None:
        """One more row of a worker is this counter."""
        self._uses[key] += 1
        self.idle.use(key)

    def unused(self, key: CounterKey, now: float) -> None:
        """One row less is."""
        self._uses[key] -= 1
        if not self._uses[key]:
            del self._uses[key]
            self.idle.rest(key, self._owners[key], now)

    def _take_unknown(self, worker: Worker, number: int, outcome: bool, count: int, now: float) -> None:
        if number in worker.refused:
            if outcome:
                worker.outcomes += count
                self.lost.refused_row += count
            return
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
        self.idle.shift(delta_s)

    def to_plain(self) -> list[Any]:
        """The counts as JSON values."""
        counters = [
            [*key, counted.count, counted.last_seen, self._owners[key]]
            for key, counted in self.counters.items()
        ]
        idle = [[list(key), owner, since] for key, owner, since in self.idle.to_plain()]
        lost = self.lost.to_plain()
        return [self.batches, lost, self.disorder_at, self.disorder, counters, self.own, idle]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Counting:
        """The counts that `to_plain` wrote."""
        batches, lost, disorder_at, disorder, counters, own, idle = plain
        counting = cls(batches, Lost(*lost), disorder_at, disorder, own=own)
        for namespace, kind, operation, count, seen, owner in counters:
            key = (namespace, kind, operation)
            counting._add(key, owner)
            counting.counters[key] = ClassCount(count, seen)
        for (namespace, kind, operation), owner, since in idle:
            counting.idle.rest((namespace, kind, operation), owner, since)
        return counting
