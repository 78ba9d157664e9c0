"""The record of one attached worker: who it is, what its rows mean, and how far its segment was read.

Positions and cumulative words are those of the last batch that was counted: whoever reads the segment
after a crash continues from here. Neighbours: `roster` (makes and ends it), `counting` (moves it on),
`intake` (asks where to continue), `views`. Knows no segment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ipc import layout as at
from supervisor.host_breaker import HostBreaker
from supervisor.messages import WorkerJoined


@dataclass(frozen=True, slots=True)
class Row:
    """What a row of a worker's segment means: a breaker, or one exception class of it."""

    breaker: HostBreaker
    class_name: str | None = None


@dataclass(frozen=True, slots=True)
class ReadFrom:
    """Where the reading of a worker's segment continues: what the last committed batch left."""

    position: int
    epoch: int
    holes: tuple[tuple[int, int], ...]
    declared: int
    tallies: tuple[tuple[int, int, int], ...]
    """(row, index, absolute value) of every cumulative word that was ever counted."""


@dataclass(slots=True)
class Worker:
    """One attached worker process."""

    nonce: str
    """32 hex digits: its only identity."""
    pid: int
    inode: int
    """Inode of its pidfd; 0 = not known."""
    uid: int
    user: str
    name: str
    namespace: str
    software: str
    since: float
    """When it joined, s of CLOCK_MONOTONIC."""
    quarantine: str = ""
    """Why its segment is not read any more; empty = it is read."""
    position: int = 0
    epoch: int = 0
    holes: tuple[tuple[int, int], ...] = ()
    declared: int = 0
    seen: dict[tuple[int, int], int] = field(default_factory=dict)
    """The highest value of each cumulative word, by (row, index)."""
    rows: dict[int, Row] = field(default_factory=dict)
    counters: dict[int, tuple[str, str, str]] = field(default_factory=dict)
    """By row: (namespace, kind, operation) of the counter that it is."""
    refused: dict[int, str] = field(default_factory=dict)
    """By row: the breaker that the host has not taken; its process decides about it alone."""
    outcomes: int = 0
    rejected: int = 0
    overflow: int = 0

    @property
    def joined(self) -> WorkerJoined:
        """What its hello said."""
        who = (self.nonce, self.pid, self.inode, self.uid, self.user, self.name)
        return WorkerJoined(*who, self.namespace, self.software)

    @property
    def title(self) -> str:
        """How it is called in sentences."""
        return f"{self.name or self.nonce[:8]} (pid {self.pid})"

    def read_from(self) -> ReadFrom:
        """Where intake continues."""
        tallies = tuple((row, index, value) for (row, index), value in self.seen.items())
        return ReadFrom(self.position, self.epoch, self.holes, self.declared, tallies)

    def more_of(self, row: int, index: int, value: int) -> int:
        """By how much a cumulative word has grown; 0 for what is not larger, or hostile."""
        if not 0 <= value < at.TALLY_LIMIT:
            return 0
        before = self.seen.get((row, index), 0)
        if value <= before:
            return 0
        self.seen[row, index] = value
        return value - before

    def breakers(self) -> dict[int, HostBreaker]:
        """The breakers that its rows show, by their number."""
        return {row.breaker.number: row.breaker for row in self.rows.values() if row.class_name is None}

    def to_plain(self) -> list[Any]:
        """The record as JSON values; a row is [row, number of the breaker, class name or None]."""
        return [
            self.nonce,
            self.pid,
            self.inode,
            self.uid,
            self.user,
            self.name,
            self.namespace,
            self.software,
            self.since,
            self.quarantine,
            self.position,
            self.epoch,
            [list(hole) for hole in self.holes],
            self.declared,
            [[row, index, value] for (row, index), value in self.seen.items()],
            [[number, row.breaker.number, row.class_name] for number, row in self.rows.items()],
            [self.outcomes, self.rejected, self.overflow, *self.refused.items()],
            [[number, *key] for number, key in self.counters.items()],
        ]

    @classmethod
    def from_plain(cls, plain: list[Any], breakers: Mapping[int, HostBreaker]) -> Worker:
        """The record that `to_plain` wrote; `breakers` by their number."""
        *scalars, holes, declared, seen, rows, totals, counters = plain
        worker = cls(*scalars)
        worker.holes = tuple((position, epoch) for position, epoch in holes)
        worker.declared = declared
        worker.seen = {(row, index): value for row, index, value in seen}
        worker.rows = {row: Row(breakers[number], class_name) for row, number, class_name in rows}
        worker.counters = {row: (namespace, kind, name) for row, namespace, kind, name in counters}
        worker.outcomes, worker.rejected, worker.overflow, *refused = totals
        worker.refused = dict(refused)
        return worker
