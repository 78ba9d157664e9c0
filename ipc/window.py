"""Rolling windows of outcomes that know whose outcome each one is. Pure: `now` is passed in.

An outcome is a party and two flags (FAILED, SLOW). A `RollingTime` holds what ended in the last seconds,
in buckets, placed by end time; a `RollingCount` holds the last N, in order of arrival.
Neighbours: `vocabulary` (the settings), `evidence` (which asks). Knows no breaker and no state.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, KeysView
from typing import Any, Final

from ipc.vocabulary import CountWindow, TimeWindow, Window

FAILED: Final = 1
SLOW: Final = 2
FLAGS: Final = 4
"""Number of combinations of the flags: the length of a cell, which counts outcomes by flags."""
EIGHTHS_PER_S: Final = 8.0
"""Buckets are whole eighths of a second wide: what the intake reports quiet stretches by."""
BUCKETS_MAX: Final = 64

Cell = list[int]
"""Outcomes by flags: [plain, failed, slow, both]."""
Entry = tuple[str, int, int, float | None]
"""(party, flags, count, end in s or None = not known): what a window hands over to another."""


def calls(cell: Cell) -> int:
    """All outcomes of a cell."""
    return cell[0] + cell[1] + cell[2] + cell[3]


def failures(cell: Cell) -> int:
    """The failed ones."""
    return cell[FAILED] + cell[FAILED | SLOW]


def slow(cell: Cell) -> int:
    """The slow ones."""
    return cell[SLOW] + cell[FAILED | SLOW]


class Rolling:
    """What both windows share: the totals, and each party's part of them."""

    __slots__ = ("parts", "totals")

    def __init__(self) -> None:
        self.totals: Cell = [0] * FLAGS
        self.parts: dict[str, Cell] = {}
        """Part of each party that has outcomes inside."""

    @property
    def parties(self) -> KeysView[str]:
        """The parties that have outcomes inside."""
        return self.parts.keys()

    def _count(self, party: str, flags: int, count: int) -> None:
        self.totals[flags] += count
        part = self.parts.get(party)
        if part is None:
            part = self.parts[party] = [0] * FLAGS
        part[flags] += count

    def _uncount(self, party: str, flags: int, count: int) -> None:
        self.totals[flags] -= count
        part = self.parts[party]
        part[flags] -= count
        if not any(part):
            del self.parts[party]

    def _forget(self, party: str) -> None:
        part = self.parts.pop(party, None)
        if part is not None:
            for flags, count in enumerate(part):
                self.totals[flags] -= count


class RollingTime(Rolling):
    """Outcomes that ended in the last `seconds`.

    Buckets are max(1/8 s, seconds/64 rounded up to 1/8 s) wide. An outcome is inside while its bucket is
    one of the newest ceil(seconds/width), the one of `now` included.
    """

    __slots__ = ("_buckets", "_edge", "_eighths", "_span", "settings")

    def __init__(self, settings: TimeWindow) -> None:
        super().__init__()
        self.settings = settings
        self._eighths = max(1, math.ceil(settings.seconds * EIGHTHS_PER_S / BUCKETS_MAX))
        self._span = math.ceil(settings.seconds * EIGHTHS_PER_S / self._eighths)
        self._edge: int | None = None
        """The newest bucket that is outside."""
        self._buckets: dict[int, dict[str, Cell]] = {}

    def _bucket(self, time: float) -> int:
        return math.floor(time * EIGHTHS_PER_S) // self._eighths

    def roll(self, now: float) -> None:
        """Let go of what is too old at `now` (s)."""
        edge = self._bucket(now) - self._span
        if edge == self._edge:
            return
        self._edge = edge
        for index in [index for index in self._buckets if index <= edge]:
            for party, cell in self._buckets.pop(index).items():
                for flags, count in enumerate(cell):
                    if count:
                        self._uncount(party, flags, count)

    def holds(self, end: float) -> bool:
        """True if an outcome that ended at `end` (s) is inside at the time of the last `roll`."""
        return self._edge is None or self._bucket(end) > self._edge

    def add(self, party: str, flags: int, count: int, end: float) -> None:
        """Put `count` equal outcomes in; the caller has asked `holds`."""
        index = self._bucket(end)
        bucket = self._buckets.get(index)
        if bucket is None:
            bucket = self._buckets[index] = {}
        cell = bucket.get(party)
        if cell is None:
            cell = bucket[party] = [0] * FLAGS
        cell[flags] += count
        self._count(party, flags, count)

    def drop(self, party: str) -> None:
        """Take everything of `party` out."""
        self._forget(party)
        for bucket in self._buckets.values():
            bucket.pop(party, None)

    def clear(self) -> None:
        """Take everything out."""
        self.totals[:] = [0] * FLAGS
        self.parts.clear()
        self._buckets.clear()

    def shift(self, delta: float) -> None:
        """Move every outcome by `delta` seconds, to within half a bucket."""
        width = self._eighths / EIGHTHS_PER_S
        moved: dict[int, dict[str, Cell]] = {}
        for index, bucket in self._buckets.items():
            cells = moved.setdefault(self._bucket((index + 0.5) * width + delta), {})
            for party, cell in bucket.items():
                old = cells.get(party, [0] * FLAGS)
                cells[party] = [mine + its for mine, its in zip(old, cell, strict=True)]
        self._buckets = moved
        self._edge = None

    def entries(self) -> Iterator[Entry]:
        """What is inside, oldest first; the end is the middle of its bucket."""
        for index, bucket in sorted(self._buckets.items()):
            end = (index + 0.5) * self._eighths / EIGHTHS_PER_S
            for party, cell in bucket.items():
                for flags, count in enumerate(cell):
                    if count:
                        yield party, flags, count, end

    def to_plain(self) -> list[Any]:
        """As JSON values: ["time", seconds, edge, parties, [[bucket, party number, flags, count], ...]]."""
        numbers: dict[str, int] = {}
        cells = [
            [index, numbers.setdefault(party, len(numbers)), flags, count]
            for index, bucket in self._buckets.items()
            for party, cell in bucket.items()
            for flags, count in enumerate(cell)
            if count
        ]
        return ["time", self.settings.seconds, self._edge, list(numbers), cells]

    def restore(self, edge: int | None, parties: list[str], cells: list[list[int]]) -> None:
        """Put back what `to_plain` wrote."""
        self._edge = edge
        for index, number, flags, count in cells:
            party = parties[number]
            self._buckets.setdefault(index, {}).setdefault(party, [0] * FLAGS)[flags] += count
            self._count(party, flags, count)


class RollingCount(Rolling):
    """The last `calls` outcomes, in order of arrival; equal neighbours are stored once with a count."""

    __slots__ = ("_runs", "settings")

    def __init__(self, settings: CountWindow) -> None:
        super().__init__()
        self.settings = settings
        self._runs: deque[tuple[str, int, int]] = deque()

    def roll(self, now: float) -> None:
        """Time takes nothing out of this window."""

    def holds(self, end: float) -> bool:  # noqa: ARG002 - the same question as to a RollingTime
        """Every outcome is new enough."""
        return True

    def add(self, party: str, flags: int, count: int, end: float) -> None:  # noqa: ARG002 - as RollingTime
        """Put `count` equal outcomes in; the oldest make room."""
        size = self.settings.calls
        count = min(count, size)
        runs = self._runs
        if runs and runs[-1][0] == party and runs[-1][1] == flags:
            runs.append((party, flags, runs.pop()[2] + count))
        else:
            runs.append((party, flags, count))
        self._count(party, flags, count)
        over = calls(self.totals) - size
        while over > 0:
            oldest, its_flags, its_count = runs.popleft()
            gone = min(over, its_count)
            self._uncount(oldest, its_flags, gone)
            if gone < its_count:
                runs.appendleft((oldest, its_flags, its_count - gone))
            over -= gone

    def drop(self, party: str) -> None:
        """Take everything of `party` out."""
        if party in self.parts:
            self._forget(party)
            self._runs = deque(run for run in self._runs if run[0] != party)

    def clear(self) -> None:
        """Take everything out."""
        self.totals[:] = [0] * FLAGS
        self.parts.clear()
        self._runs.clear()

    def shift(self, delta: float) -> None:
        """There are no times in this window."""

    def entries(self) -> Iterator[Entry]:
        """What is inside, oldest first; no end is known."""
        for party, flags, count in self._runs:
            yield party, flags, count, None

    def to_plain(self) -> list[Any]:
        """As JSON values: ["count", calls, None, parties, [[party number, flags, count], ...]]."""
        numbers: dict[str, int] = {}
        runs = [[numbers.setdefault(party, len(numbers)), flags, count] for party, flags, count in self._runs]
        return ["count", self.settings.calls, None, list(numbers), runs]

    def restore(self, parties: list[str], runs: list[list[int]]) -> None:
        """Put back what `to_plain` wrote."""
        for number, flags, count in runs:
            self._runs.append((parties[number], flags, count))
            self._count(parties[number], flags, count)


RollingWindow = RollingTime | RollingCount


def rolling(settings: Window) -> RollingWindow:
    """An empty window as the settings ask for it."""
    return RollingTime(settings) if isinstance(settings, TimeWindow) else RollingCount(settings)


def refit(old: RollingWindow, settings: Window, now: float) -> RollingWindow:
    """A window of other settings with the outcomes of the old one; ends that it did not keep become `now`."""
    fresh = rolling(settings)
    fresh.roll(now)
    for party, flags, count, ended in old.entries():
        end = now if ended is None else min(ended, now)
        if fresh.holds(end):
            fresh.add(party, flags, count, end)
    return fresh


def from_plain(plain: list[Any]) -> RollingWindow:
    """The window that `to_plain` wrote."""
    kind, size, edge, parties, cells = plain
    if kind == "time":
        timed = RollingTime(TimeWindow(size))
        timed.restore(edge, parties, cells)
        return timed
    counted = RollingCount(CountWindow(size))
    counted.restore(parties, cells)
    return counted
