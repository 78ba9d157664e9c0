"""Outcome words -> counts, and the runs that are judged: the inner loop of every drain.

Nearly all words are successes of calm breakers: they are only counted, by one line of Python per word,
into cells keyed by all of the word but its duration and the last bits of its end. A breaker that has a
failure, a slow call or a trial among its words is unfolded: the odd outcomes of all workers are put into
the order of their ends, and successes are run together only between two of them.
Every word is hostile: whatever no honest worker writes is counted as invalid and left.
Neighbours: `intake` (calls), `ipc.layout` (the bits), `metrics` (the buckets). Knows no segment, no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ipc import layout as at
from ipc.ring import NO_EPOCH, Part, slices
from ipc.vocabulary import OutcomeKind
from supervisor.limits import Limits
from supervisor.messages import Judged
from supervisor.metrics import LONG_BUCKET, QUICK_BUCKET

CELL_SHIFT: Final = 22
"""A cell is one eighth of a second of one row, generation and lap: the bits from here on."""
CELL_BITS: Final = 64 - CELL_SHIFT
STEPS_PER_S: Final = int(at.END_STEPS_PER_S)
STEPS_PER_CELL: Final = 1 << CELL_SHIFT - at.END_SHIFT
CELLS_PER_S: Final = STEPS_PER_S // STEPS_PER_CELL
_CELL_ROW: Final = at.ROW_SHIFT - CELL_SHIFT
_CELL_GENERATION: Final = at.GENERATION_SHIFT - CELL_SHIFT
_CELL_MASK: Final = (1 << _CELL_ROW) - 1

FIRST_SUCCESS: Final = at.FAST_SUCCESS << at.CODE_SHIFT
LAST_SUCCESS: Final = FIRST_SUCCESS | (1 << at.CODE_SHIFT) - 1

SOURCES_MAX: Final = 1 << 14
"""Segments in one drain; with the words of a segment it bounds the number that orders outcomes."""
_SOURCE_SHIFT: Final = 21
_ORDER_SHIFT: Final = _SOURCE_SHIFT + 14

JUDGED: Final = frozenset(
    {
        OutcomeKind.SUCCESS,
        OutcomeKind.FAILURE,
        OutcomeKind.SLOW_SUCCESS,
        OutcomeKind.SLOW_FAILURE,
        OutcomeKind.CANCELLED_LATE,
    }
)
"""Kinds that prove something; the others are judged only as the end of a trial, whose permit they free."""

_Odd = tuple[int, Judged]
"""One outcome that is judged on its own, and before it its order: end, source and place in one number."""
_Run = tuple[int, int, int, int, int]
"""Successes judged together: (odd outcomes before them, row, generation code, eighth of a second, number)."""
_Marks = Mapping[int, Sequence[int]]
"""The orders of the odd outcomes of a row's breaker, sorted, by row; a row without any is calm."""


_Durations = defaultdict[int, defaultdict[int, int]]
"""How many calls took how long: by row and bucket."""


class _Cells(dict[int, defaultdict[int, int]]):
    """Durations by bucket of each cell of one epoch; a cell is made by its first word."""

    def __missing__(self, key: int) -> defaultdict[int, int]:
        cell = self[key] = defaultdict(int)
        return cell


class _Rows(dict[int, tuple[defaultdict[int, int], list[int]]]):
    """What a word needs of its row: where its duration is counted, and the marks of its breaker."""

    def __init__(self, durations: _Durations, marks: dict[int, list[int]]) -> None:
        self._durations = durations
        self._marks = marks

    def __missing__(self, row: int) -> tuple[defaultdict[int, int], list[int]]:
        made = self[row] = self._durations[row], self._marks.get(row, [])
        return made


@dataclass(slots=True)
class Counted:
    """What one segment's words of one drain amount to: first `scan`, then `count`."""

    worker: str
    source: int
    """Its number within this drain."""
    now: float
    limits: Mapping[int, Limits] = field(default_factory=dict)
    """The rows whose outcomes are told anew."""
    counts: defaultdict[tuple[int, int, int], int] = field(default_factory=lambda: defaultdict(int))
    """By (row, kind, 1 if local else 0)."""
    durations: _Durations = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    invalid: int = 0
    odd: list[_Odd] = field(default_factory=list)
    runs: list[_Run] = field(default_factory=list)
    _blocks: list[tuple[int, int, list[int]]] = field(default_factory=list)
    """(epoch, place of the first word in this drain, its fast successes, with 0 for every other word)."""
    _long: list[tuple[int, int, int]] = field(default_factory=list)
    """(order, row, generation code) of successes too long for a fast word."""

    def scan(self, parts: Sequence[Part]) -> None:
        """Count every word that is no fast success; find what is odd."""
        place, first, last = 0, FIRST_SUCCESS, LAST_SUCCESS
        for part in parts:
            for told, words in slices(part):
                # Without its time a word counts as ended now, and so does one from the future.
                epoch = int(self.now) if told == NO_EPOCH else min(told, int(self.now))
                self._blocks.append((epoch, place, words))
                if min(words) < first or max(words) > last:
                    for index in [index for index, word in enumerate(words) if not first <= word <= last]:
                        self._take(epoch, place + index, words[index])
                        words[index] = 0
                if self.limits:
                    self._take_too_slow(epoch, place, words)
                place += len(words)

    def _take_too_slow(self, epoch: int, place: int, words: list[int]) -> None:
        """Fast successes that are slow by the limits in force are no fast successes."""
        for index, word in enumerate(words):
            limits = self.limits.get(word >> at.ROW_SHIFT & at.ROW_MASK) if word else None
            if limits is not None and limits.slow_call_s is not None:
                if (word & at.DURATION_MASK) / at.DURATION_STEPS_PER_S >= limits.slow_call_s:
                    self._take(epoch, place + index, word)
                    words[index] = 0

    def _take(self, epoch: int, place: int, word: int) -> None:
        """Count a word that is no fast success."""
        code = at.CODES[word >> at.CODE_SHIFT]
        if code is None:
            if word >> at.CODE_SHIFT != at.CODE_VOID:
                self.invalid += 1
            return
        row = word >> at.ROW_SHIFT & at.ROW_MASK
        generation = word >> at.GENERATION_SHIFT & 15
        kind = code.kind
        if row in self.limits:
            per_s = at.LONG_STEPS_PER_S if code.long else at.DURATION_STEPS_PER_S
            kind = self.limits[row].kind(kind, (word & at.DURATION_MASK) / per_s)
        self.counts[row, kind, 0 if generation else 1] += 1
        if kind is OutcomeKind.COUNT:
            return
        table = LONG_BUCKET if code.long else QUICK_BUCKET
        self.durations[row][table[word & at.DURATION_MASK]] += 1
        if not generation or (kind not in JUDGED and code.permit is None):
            return
        steps = epoch * STEPS_PER_S + (word >> at.END_SHIFT & at.END_MASK)
        order = steps << _ORDER_SHIFT | self.source << _SOURCE_SHIFT | place
        if kind is OutcomeKind.SUCCESS and code.permit is None:
            self._long.append((order, row, generation))
            return
        permit = -1 if code.permit is None else code.permit
        end = min(steps / at.END_STEPS_PER_S, self.now)
        self.odd.append((order, Judged(self.worker, row, int(kind), generation, permit, end, 1)))

    def count(self, marks: _Marks) -> None:
        """Count the fast successes, and make the runs between the odd outcomes in `marks`."""
        if marks:
            self._count_between(marks)
        else:
            self._count_calm()
        long: defaultdict[tuple[int, int, int, int], int] = defaultdict(int)
        for order, row, generation in self._long:
            before = bisect_left(marks[row], order) if row in marks else 0
            long[before, row, generation, (order >> _ORDER_SHIFT) // STEPS_PER_CELL] += 1
        self.runs += [(*run, count) for run, count in long.items()]

    def _count_calm(self) -> None:
        """Nothing is odd here: one line for each word."""
        epochs: defaultdict[int, _Cells] = defaultdict(_Cells)
        for epoch, _, words in self._blocks:
            cells = epochs[epoch]
            for word in words:
                cells[word >> CELL_SHIFT][QUICK_BUCKET[word & at.DURATION_MASK]] += 1
            cells.pop(0, None)
        durations = self.durations
        for epoch, cells in epochs.items():
            self._add(epoch, {key: sum(buckets.values()) for key, buckets in cells.items()})
            for key, buckets in cells.items():
                row = key >> _CELL_ROW & at.ROW_MASK
                if row not in durations:
                    # The first cell of a row takes the others in: it has been summed up before.
                    durations[row] = buckets
                    continue
                into = durations[row]
                for bucket, number in buckets.items():
                    into[bucket] += number

    def _count_between(self, marks: _Marks) -> None:
        """As before, but a cell is also told by how many odd outcomes of its breaker came before.

        Cells are many and small here, so durations are counted beside them.
        """
        table, ends, shift = QUICK_BUCKET, at.END_MASK << at.END_SHIFT, _ORDER_SHIFT - at.END_SHIFT
        epochs: dict[int, tuple[defaultdict[int, int], _Rows]] = {}
        for epoch, place, words in self._blocks:
            if epoch not in epochs:
                # Orders as the words of this epoch have them: epoch and source are left out.
                base = epoch * STEPS_PER_S << _ORDER_SHIFT | self.source << _SOURCE_SHIFT
                here = {row: [order - base for order in orders] for row, orders in marks.items()}
                epochs[epoch] = defaultdict(int), _Rows(self.durations, here)
            cells, rows = epochs[epoch]
            for index, word in enumerate(words, place):
                if not word:
                    continue
                key = word >> 22
                buckets, orders = rows[key >> 9 & 1023]
                buckets[table[word & 65_535]] += 1
                if orders:
                    before = bisect_left(orders, (word & ends) << shift | index)
                    if before:
                        key |= before << 42
                cells[key] += 1
        for epoch, (cells, _) in epochs.items():
            self._add(epoch, cells)

    def _add(self, epoch: int, cells: Mapping[int, int]) -> None:
        """The numbers of successes of these cells."""
        rows: defaultdict[int, int] = defaultdict(int)
        first = epoch * CELLS_PER_S
        for key, count in cells.items():
            row = key >> _CELL_ROW & at.ROW_MASK
            generation = key >> _CELL_GENERATION & 15
            if generation:
                rows[row] += count
                self.runs.append((key >> CELL_BITS, row, generation, first + (key & _CELL_MASK), count))
            else:
                self.counts[row, OutcomeKind.SUCCESS, 1] += count
        for row, count in rows.items():
            self.counts[row, OutcomeKind.SUCCESS, 0] += count


def judge(counted: Sequence[Counted], names: Sequence[Mapping[int, str]], now: float) -> tuple[Judged, ...]:
    """Count what was scanned; return what has to be judged, ordered by end.

    `names` has, by source, the name of each row's breaker. Outcomes of different workers whose ends lie
    in the same 2 ms are taken worker by worker.
    """
    odd: dict[str, list[_Odd]] = {}
    for one in counted:
        for outcome in one.odd:
            odd.setdefault(_name(one, names, outcome[1].row), []).append(outcome)
    orders: dict[str, list[int]] = {}
    between: dict[str, list[tuple[int, Judged]]] = {}
    for name, outcomes in odd.items():
        outcomes.sort()
        orders[name] = [order for order, _ in outcomes]
        between[name] = []
    judged: list[Judged] = []
    latest = int(now * STEPS_PER_S)
    for one in counted:
        told = names[one.source] if odd else {}
        marks = {row: orders[name] for row, name in told.items() if name in orders}
        if odd:
            marks.update({row: orders[_alone(one, row)] for row in _nameless(one, told)})
        one.count(marks)
        for before, row, generation, eighth, count in one.runs:
            steps = min((eighth + 1) * STEPS_PER_CELL - 1, latest)
            row_orders = marks.get(row)
            if row_orders is not None and before < len(row_orders):
                steps = min(steps, row_orders[before] >> _ORDER_SHIFT)
            run = Judged(one.worker, row, 2, generation, -1, steps / at.END_STEPS_PER_S, count)
            if row_orders is None:
                judged.append(run)
            else:
                between[_name(one, names, row)].append((before, run))
    for name, outcomes in odd.items():
        judged += _merged(outcomes, between[name])
    judged.sort(key=_end)
    return tuple(judged)


def _merged(outcomes: list[_Odd], runs: list[tuple[int, Judged]]) -> list[Judged]:
    """One breaker's odd outcomes, and each run of successes at its place between them."""
    runs.sort(key=_before)
    merged: list[Judged] = []
    done = 0
    for before, run in runs:
        if before > done:
            merged += [outcome for _, outcome in outcomes[done:before]]
            done = before
        merged.append(run)
    merged += [outcome for _, outcome in outcomes[done:]]
    return merged


def _nameless(one: Counted, told: Mapping[int, str]) -> set[int]:
    """Rows with odd outcomes that no declaration names: the engine will count them as unknown."""
    return {outcome.row for _, outcome in one.odd if outcome.row not in told}


def _alone(one: Counted, row: int) -> str:
    return f"{one.source} {row}"


def _name(one: Counted, names: Sequence[Mapping[int, str]], row: int) -> str:
    """What tells the breaker of a row; a row without one is alone."""
    return names[one.source].get(row) or _alone(one, row)


def _end(judged: Judged) -> float:
    return judged.end


def _before(run: tuple[int, Judged]) -> int:
    return run[0]
