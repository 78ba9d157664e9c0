"""Outcome words -> counts, and the runs that are judged: the inner loop of every drain.

Nearly all words are successes of calm rows: they are only counted, by one line of Python per word, into
cells keyed by all of the word but its duration and the last bits of its end. A breaker with a failure,
a slow call or a trial among its words is unfolded: its words go into the order of their ends over all
workers, and successes are run together only between two of the others.
Every word is hostile: whatever no honest worker writes is counted as invalid and left.
Neighbours: `intake` (calls), `ipc.layout` (the bits), `metrics` (the buckets). Knows no segment, no clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ipc import layout as at
from ipc.ring import NO_EPOCH, Part, slices
from ipc.vocabulary import OutcomeKind
from supervisor.messages import Judged
from supervisor.metrics import LONG_BUCKET, QUICK_BUCKET

CELL_SHIFT: Final = 22
"""A cell is one eighth of a second of one row, generation and lap: the bits from here on."""
STEPS_PER_CELL: Final = 1 << CELL_SHIFT - at.END_SHIFT
CELLS_PER_S: Final = int(at.END_STEPS_PER_S) // STEPS_PER_CELL
_CELL_ROW: Final = at.ROW_SHIFT - CELL_SHIFT
_CELL_GENERATION: Final = at.GENERATION_SHIFT - CELL_SHIFT
_CELL_MASK: Final = (1 << _CELL_ROW) - 1

FIRST_SUCCESS: Final = at.FAST_SUCCESS << at.CODE_SHIFT
LAST_SUCCESS: Final = FIRST_SUCCESS | (1 << at.CODE_SHIFT) - 1

SOURCES_MAX: Final = 1 << 14
"""Segments in one drain; with the words of a segment it bounds the key that orders words."""
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


class _Cells(dict[int, defaultdict[int, int]]):
    """Durations by bucket of each cell of one epoch; a cell is made by its first word."""

    def __missing__(self, key: int) -> defaultdict[int, int]:
        cell = self[key] = defaultdict(int)
        return cell


_Odd = tuple[int, Judged]
"""One outcome that is judged on its own, and before it its order: end, source and place in one number."""


@dataclass(slots=True)
class Counted:
    """What one segment's words of one drain amount to."""

    worker: str
    source: int
    """Its number within this drain."""
    now: float
    counts: defaultdict[tuple[int, int, int], int] = field(default_factory=lambda: defaultdict(int))
    """By (row, kind, 1 if local else 0)."""
    durations: defaultdict[int, defaultdict[int, int]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(int))
    )
    """By row and bucket."""
    invalid: int = 0
    calm: defaultdict[tuple[int, int, int], int] = field(default_factory=lambda: defaultdict(int))
    """Successes by (row, generation code, eighth of a second since CLOCK_MONOTONIC began)."""
    odd: list[_Odd] = field(default_factory=list)
    _blocks: list[tuple[int, int, list[int]]] = field(default_factory=list)
    """(epoch, place of the first word in this drain, words), kept to be unfolded."""

    def take(self, parts: Sequence[Part]) -> None:
        """Count every word of these parts, in the order of the ring."""
        cells: dict[int, _Cells] = {}
        place = 0
        for part in parts:
            for told, words in slices(part):
                # Without its time a word counts as ended now, and so does one from the future.
                epoch = int(self.now) if told == NO_EPOCH else min(told, int(self.now))
                self._blocks.append((epoch, place, words))
                fast = words
                if min(words) < FIRST_SUCCESS or max(words) > LAST_SUCCESS:
                    fast = self._take_slow(epoch, place, words)
                place += len(words)
                into = cells.get(epoch)
                if into is None:
                    into = cells[epoch] = _Cells()
                for word in fast:
                    into[word >> CELL_SHIFT][QUICK_BUCKET[word & at.DURATION_MASK]] += 1
        for epoch, into in cells.items():
            self._fold(epoch, into)

    def _fold(self, epoch: int, cells: _Cells) -> None:
        """Cells into counts, durations and calm runs."""
        for key, buckets in cells.items():
            row = key >> _CELL_ROW & at.ROW_MASK
            generation = key >> _CELL_GENERATION & 15
            count = 0
            durations = self.durations[row]
            for bucket, number in buckets.items():
                durations[bucket] += number
                count += number
            self.counts[row, OutcomeKind.SUCCESS, 0 if generation else 1] += count
            if generation:
                self.calm[row, generation, epoch * CELLS_PER_S + (key & _CELL_MASK)] += count

    def _take_slow(self, epoch: int, place: int, words: list[int]) -> list[int]:
        """Count every word that is no fast success; return those that are."""
        fast: list[int] = []
        for index, word in enumerate(words):
            if FIRST_SUCCESS <= word <= LAST_SUCCESS:
                fast.append(word)
                continue
            code = at.CODES[word >> at.CODE_SHIFT]
            if code is None:
                if word >> at.CODE_SHIFT != at.CODE_VOID:
                    self.invalid += 1
                continue
            row = word >> at.ROW_SHIFT & at.ROW_MASK
            generation = word >> at.GENERATION_SHIFT & 15
            kind = code.kind
            self.counts[row, kind, 0 if generation else 1] += 1
            if kind is OutcomeKind.COUNT:
                continue
            table = LONG_BUCKET if code.long else QUICK_BUCKET
            self.durations[row][table[word & at.DURATION_MASK]] += 1
            if not generation or (kind not in JUDGED and code.permit is None):
                continue
            steps = epoch * int(at.END_STEPS_PER_S) + (word >> at.END_SHIFT & at.END_MASK)
            if kind is OutcomeKind.SUCCESS and code.permit is None:
                self.calm[row, generation, steps // STEPS_PER_CELL] += 1
                continue
            permit = -1 if code.permit is None else code.permit
            order = self._order(steps, place + index)
            end = min(steps / at.END_STEPS_PER_S, self.now)
            self.odd.append((order, Judged(self.worker, row, int(kind), generation, permit, end, 1)))
        return fast

    def _order(self, steps: int, place: int) -> int:
        """The key by which words of all segments are merged: end first, then each ring's own order."""
        return steps << _ORDER_SHIFT | self.source << _SOURCE_SHIFT | place

    def unfold(self, marks: dict[int, list[int]], into: dict[int, _Runs]) -> None:
        """Share the successes of the rows in `marks` out between the odd outcomes of their breakers.

        `marks` has the orders of a breaker's odd outcomes by row, sorted; `into` its runs by row.
        """
        for key in [key for key in self.calm if key[0] in marks]:
            del self.calm[key]
        source = self.source << _SOURCE_SHIFT
        for epoch, place, words in self._blocks:
            base = epoch * int(at.END_STEPS_PER_S)
            for index, word in enumerate(words, place | source):
                row = word >> at.ROW_SHIFT & at.ROW_MASK
                orders = marks.get(row)
                if orders is None or not _is_calm_success(word):
                    continue
                steps = base + (word >> at.END_SHIFT & at.END_MASK)
                before = bisect_left(orders, steps << _ORDER_SHIFT | index)
                generation = word >> at.GENERATION_SHIFT & 15
                if generation:
                    into[row][before, self.source, row, generation, steps // STEPS_PER_CELL] += 1


_Runs = defaultdict[tuple[int, int, int, int, int], int]
"""Successes by (odd outcomes before them, source, row, generation, eighth of a second)."""


def _is_calm_success(word: int) -> bool:
    """A success that is no trial, fast or long."""
    if FIRST_SUCCESS <= word <= LAST_SUCCESS:
        return True
    code = at.CODES[word >> at.CODE_SHIFT]
    return code is not None and code.kind is OutcomeKind.SUCCESS and code.permit is None


def judge(counted: Sequence[Counted], names: Sequence[dict[int, str]], now: float) -> tuple[Judged, ...]:
    """What a drain has to be judged, ordered by end; `names` has the breaker's name of each row, by source.

    Words of different workers whose ends lie in the same 2 ms are taken worker by worker.
    """
    odd: dict[str, list[_Odd]] = {}
    for one in counted:
        for outcome in one.odd:
            odd.setdefault(_name(one, names, outcome[1].row), []).append(outcome)
    judged: list[Judged] = []
    if odd:
        judged = _unfolded(counted, names, odd, now)
    for one in counted:
        for (row, generation, eighth), count in one.calm.items():
            end = min((eighth + 1) * STEPS_PER_CELL - 1, int(now * at.END_STEPS_PER_S)) / at.END_STEPS_PER_S
            judged.append(Judged(one.worker, row, int(OutcomeKind.SUCCESS), generation, -1, end, count))
    judged.sort(key=_end)
    return tuple(judged)


def _name(one: Counted, names: Sequence[dict[int, str]], row: int) -> str:
    """What tells the breaker of a row; a row without one is alone."""
    return names[one.source].get(row) or f"{one.source} {row}"


def _end(judged: Judged) -> float:
    return judged.end


def _unfolded(
    counted: Sequence[Counted], names: Sequence[dict[int, str]], odd: dict[str, list[_Odd]], now: float
) -> list[Judged]:
    """The outcomes of every breaker that has odd ones, each breaker's in the order of their ends."""
    orders: dict[str, list[int]] = {}
    runs: dict[str, _Runs] = {}
    for name, outcomes in odd.items():
        outcomes.sort()
        orders[name] = [order for order, _ in outcomes]
        runs[name] = defaultdict(int)
    for one in counted:
        rows = {row for row, _, _ in one.calm}
        here = {row: name for row in rows if (name := _name(one, names, row)) in odd}
        if here:
            marks = {row: orders[name] for row, name in here.items()}
            one.unfold(marks, {row: runs[name] for row, name in here.items()})
    judged: list[Judged] = []
    for name, outcomes in odd.items():
        done = 0
        for (before, source, row, generation, eighth), count in sorted(runs[name].items()):
            judged += [outcome for _, outcome in outcomes[done:before]]
            done = before
            steps = (eighth + 1) * STEPS_PER_CELL - 1
            if before < len(outcomes):
                steps = min(steps, outcomes[before][0] >> _ORDER_SHIFT)
            end = min(steps / at.END_STEPS_PER_S, now)
            judged.append(
                Judged(counted[source].worker, row, int(OutcomeKind.SUCCESS), generation, -1, end, count)
            )
        judged += [outcome for _, outcome in outcomes[done:]]
    return judged
