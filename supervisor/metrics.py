"""Everything that is counted about one breaker, cumulative over all workers that ever were.

Durations are kept as a histogram of four buckets per octave: the middle of a bucket is at most 10 % off
every duration in it. The two tables turn the duration field of an outcome word into a bucket without
arithmetic, because intake does it once per word. Neighbours: `intake` (the tables), `engine` (who
counts), `views` (who shows). Knows no clock: what is remembered with a time is told the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

from ipc import layout as at
from ipc.vocabulary import CLASSES_PER_BREAKER, OTHER_CLASS, OutcomeKind, Tally

PER_OCTAVE: Final = 4
OCTAVES: Final = 26
"""From one step of 2**-18 s (3.8 us) to 2**8 s, the longest duration that a word can tell."""
BUCKETS: Final = 1 + PER_OCTAVE * OCTAVES + 1
"""Bucket 0 holds what is shorter than one step, the last one what is 256 s or longer."""
CLASS_NAME_MAX: Final = 128
"""Characters of an exception class name that are kept."""
_QUICK_STEPS: Final = at.DURATION_MASK + 1
_LONG_RATIO: Final = int(at.DURATION_STEPS_PER_S / at.LONG_STEPS_PER_S)


def _table(ratio: int) -> tuple[int, ...]:
    """The bucket of every value of a duration field whose unit is `ratio` steps of 2**-18 s."""
    table = [0]
    for bucket in range(1, BUCKETS):
        first_of_next = math.ceil(2.0 ** (bucket / PER_OCTAVE) / ratio)
        table += [bucket] * (min(first_of_next, _QUICK_STEPS) - len(table))
    table += [BUCKETS - 1] * (_QUICK_STEPS - len(table))
    return tuple(table)


QUICK_BUCKET: Final = _table(1)
"""Bucket of a duration field in units of 2**-18 s."""
LONG_BUCKET: Final = (*_table(_LONG_RATIO)[:-1], BUCKETS - 1)
"""Bucket of a duration field in units of 2**-8 s; the field's last value means that or longer."""


def bucket_mid_s(bucket: int) -> float:
    """The duration in seconds that stands for every one in this bucket."""
    if bucket <= 0:
        return 0.0
    return float(2.0 ** ((bucket - 0.5) / PER_OCTAVE)) / at.DURATION_STEPS_PER_S


def percentile_s(durations: list[int], share: float) -> float | None:
    """The duration in seconds below which `share` (0 to 1) of the counted calls lie; None = no calls."""
    total = sum(durations)
    if not total:
        return None
    wanted = max(1, math.ceil(share * total))
    seen = 0
    for bucket, count in enumerate(durations):
        seen += count
        if seen >= wanted:
            return bucket_mid_s(bucket)
    return bucket_mid_s(BUCKETS - 1)


@dataclass(slots=True)
class ClassCount:
    """How often one exception class was seen by one breaker, and when last (s of CLOCK_MONOTONIC)."""

    count: int = 0
    last_seen: float | None = None


@dataclass(slots=True)
class BreakerMetrics:
    """The counts of one breaker. Nothing here ever goes down."""

    outcomes: list[int] = field(default_factory=lambda: [0] * at.TALLIES)
    """By OutcomeKind, overflowed ones included."""
    overflow: list[int] = field(default_factory=lambda: [0] * at.TALLIES)
    """By OutcomeKind: of `outcomes`, those that found the ring full."""
    tallies: list[int] = field(default_factory=lambda: [0] * at.TALLIES)
    """By Tally: calls that were refused, by the reason."""
    local: int = 0
    """Of `outcomes`, those that a worker had while it was on its own."""
    durations: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    classes: dict[str, ClassCount] = field(default_factory=dict)

    def take_durations(self, counted: tuple[tuple[int, int], ...]) -> None:
        """Add (bucket, count) pairs; a bucket that does not exist is dropped."""
        durations = self.durations
        for bucket, count in counted:
            if 0 <= bucket < BUCKETS:
                durations[bucket] += count

    def take_tally(self, index: int, more: int) -> bool:
        """Add to a cumulative word's count; False if no breaker row has a word of this index."""
        if index in TALLY_NAMES:
            self.tallies[index] += more
        elif index in KIND_NAMES:
            self.outcomes[index] += more
            self.overflow[index] += more
        else:
            return False
        return True

    def class_name(self, name: str) -> str:
        """The name under which this class is counted: its own, or OTHER_CLASS beyond the limit."""
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= CLASS_NAME_MAX:
            name = OTHER_CLASS
        if name not in self.classes:
            named = len(self.classes) - (OTHER_CLASS in self.classes)
            if named >= CLASSES_PER_BREAKER:
                name = OTHER_CLASS
            self.classes.setdefault(name, ClassCount())
        return name

    def take_class(self, name: str, more: int, now: float) -> None:
        """Count `more` exceptions of a class that `class_name` gave."""
        counted = self.classes[name]
        counted.count += more
        counted.last_seen = now

    def add(self, other: BreakerMetrics) -> None:
        """Count what another breaker counted, but for its classes."""
        for mine, more in (
            (self.outcomes, other.outcomes),
            (self.overflow, other.overflow),
            (self.tallies, other.tallies),
            (self.durations, other.durations),
        ):
            mine[:] = map(int.__add__, mine, more)
        self.local += other.local

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        for counted in self.classes.values():
            if counted.last_seen is not None:
                counted.last_seen += delta_s

    def to_plain(self) -> list[Any]:
        """The counts as JSON values."""
        return [
            self.outcomes.copy(),
            self.overflow.copy(),
            self.tallies.copy(),
            self.local,
            [[bucket, count] for bucket, count in enumerate(self.durations) if count],
            [[name, counted.count, counted.last_seen] for name, counted in self.classes.items()],
        ]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> BreakerMetrics:
        """The counts that `to_plain` wrote."""
        outcomes, overflow, tallies, local, durations, classes = plain
        metrics = cls(list(outcomes), list(overflow), list(tallies), local)
        metrics.take_durations(tuple((bucket, count) for bucket, count in durations))
        metrics.classes = {name: ClassCount(count, seen) for name, count, seen in classes}
        return metrics


@dataclass(slots=True)
class Lost:
    """What could not be counted, or not in order: each with its own reason."""

    ring_gap: int = 0
    """Slots of rings that were given up: drawn, never stored."""
    ring_invalid: int = 0
    """Words that no honest worker writes."""
    segment_lost: int = 0
    """Workers whose segment was gone before its last words were read."""
    unknown_row: int = 0
    """Outcomes of rows that were never declared."""
    checkpoint_lost: int = 0
    """What new daemons could not take over of an earlier life, whatever was counted in it: a checkpoint that
    was damaged or set aside, all that came after a copy on disk, a segment that could not be used."""
    refused_row: int = 0
    """Outcomes of breakers that the host has not taken: their processes decided about them alone."""

    def to_plain(self) -> list[int]:
        """The counts as JSON values."""
        lost = self.ring_gap, self.ring_invalid, self.segment_lost, self.unknown_row
        return [*lost, self.checkpoint_lost, self.refused_row]


KIND_NAMES: Final = {int(kind): kind.name.lower() for kind in OutcomeKind if kind is not OutcomeKind.COUNT}
"""The kinds of outcome that a breaker row counts."""
TALLY_NAMES: Final = {int(tally): tally.name.lower() for tally in Tally}
