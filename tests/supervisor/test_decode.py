"""Words into counts and runs: agrees with a plain reading of the same words, one after the other."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc import layout as at
from ipc.ring import NO_EPOCH, Part
from ipc.vocabulary import FAILURES, OutcomeKind
from supervisor.decode import Counted, judge
from supervisor.messages import Judged
from supervisor.metrics import LONG_BUCKET, QUICK_BUCKET

NOW = 1000.0
EPOCH = 990
NAMES = {0: "database", 1: "cache", 2: "database"}
S, F = OutcomeKind.SUCCESS, OutcomeKind.FAILURE


def word(
    kind: OutcomeKind = S,
    row: int = 0,
    end: float = 0.0,
    generation: int = 1,
    permit: int | None = None,
    long: bool = False,
    took: float = 0.001,
) -> int:
    """An outcome word; `end` in seconds since EPOCH."""
    if permit is None and not long and kind in (S, F):
        code = at.FAST_SUCCESS if kind is S else at.FAST_FAILURE
    else:
        code = at.pack_code(kind, long, permit)
    return at.pack_outcome(code, generation, 0, row, end, took)


def drained(
    *rings: Sequence[int], names: dict[int, str] | None = None, now: float = NOW
) -> tuple[list[Counted], tuple[Judged, ...]]:
    """What comes of one drain of these rings, whose workers are called w0, w1 and so on."""
    counted = [Counted(f"w{number}", number, now) for number in range(len(rings))]
    for one, ring in zip(counted, rings, strict=True):
        one.scan([Part(at.BLOCK + 1, EPOCH, list(ring))] if ring else [])
    judged = judge(counted, [NAMES if names is None else names] * len(rings), now)
    return counted, judged


def told(judged: Sequence[Judged]) -> list[tuple[str, int, int]]:
    """Who, what and how many, in order."""
    return [(one.worker, one.kind, one.count) for one in judged]


def test_calm_successes_become_one_run_per_eighth() -> None:
    """Successes of one row and generation in one eighth of a second are one run, at that eighth's end."""
    one, judged = drained([word(end=0.01), word(end=0.12), word(end=0.13), word(end=0.13, generation=2)])
    assert told(judged) == [("w0", S, 2), ("w0", S, 1), ("w0", S, 1)]
    assert [run.end for run in judged] == [EPOCH + 63 / 512, EPOCH + 127 / 512, EPOCH + 127 / 512]
    assert dict(one[0].counts) == {(0, S, 0): 4}


def test_a_failure_stands_between_the_successes_around_it() -> None:
    """Successes before and after a failure of the same breaker, of any worker, are told apart."""
    _, judged = drained(
        [word(end=0.01), word(F, end=0.05), word(end=0.09)], [word(end=0.02), word(end=0.07), word(end=0.08)]
    )
    assert told(judged) == [("w0", S, 1), ("w1", S, 1), ("w0", F, 1), ("w0", S, 1), ("w1", S, 2)]
    ends = [one.end for one in judged]
    assert ends == sorted(ends)
    assert judged[2].end == EPOCH + 25 / 512


def test_a_ring_keeps_its_own_order_within_one_step_of_time() -> None:
    """Outcomes of one worker that ended in the same 2 ms are judged in the order in which it put them."""
    _, judged = drained([word(), word(F), word(), word(F), word(F), word()])
    assert [(one.kind, one.count) for one in judged] == [(S, 1), (F, 1), (S, 1), (F, 1), (F, 1), (S, 1)]


def test_the_order_is_that_of_the_ends_not_of_the_ring() -> None:
    """A thread that ended first and stored last is judged first."""
    _, judged = drained([word(F, end=0.4), word(end=0.1)])
    assert told(judged) == [("w0", S, 1), ("w0", F, 1)]


def test_other_breakers_stay_calm() -> None:
    """A failure unfolds its own breaker alone, in all its rows."""
    _, judged = drained([word(row=1), word(F, row=2, end=0.05), word(row=1, end=0.1), word(row=0, end=0.1)])
    assert [(one.row, one.kind, one.count) for one in judged if one.row == 1] == [(1, S, 2)]
    assert [(one.row, one.kind) for one in judged if one.row != 1] == [(2, F), (0, S)]


def test_long_successes_are_runs_too() -> None:
    """A success too long for a fast word is counted in its own durations and judged with the others."""
    one, judged = drained([word(), word(long=True, took=3.0), word()])
    assert told(judged) == [("w0", S, 2), ("w0", S, 1)]
    assert dict(one[0].durations[0]) == {QUICK_BUCKET[262]: 2, LONG_BUCKET[768]: 1}
    _, judged = drained([word(long=True, took=3.0), word(F, end=0.01), word(long=True, took=3.0, end=0.02)])
    assert told(judged) == [("w0", S, 1), ("w0", F, 1), ("w0", S, 1)]


def test_trials_are_judged_one_by_one_with_their_permit() -> None:
    """A trial keeps its permit, whatever its kind, so that the permit can be freed."""
    kinds = (S, F, OutcomeKind.IGNORED, OutcomeKind.CANCELLED)
    _, judged = drained([word(kind, permit=number) for number, kind in enumerate(kinds)])
    assert [(one.kind, one.permit, one.count) for one in judged] == [
        (int(kind), number, 1) for number, kind in enumerate(kinds)
    ]


def test_what_proves_nothing_is_counted_and_not_judged() -> None:
    """Ignored and cancelled calls, counters and local outcomes reach the counts alone."""
    one, judged = drained(
        [
            word(OutcomeKind.IGNORED),
            word(OutcomeKind.CANCELLED),
            word(OutcomeKind.COUNT),
            word(generation=0),
            word(F, generation=0),
        ]
    )
    assert judged == ()
    assert dict(one[0].counts) == {
        (0, OutcomeKind.IGNORED, 0): 1,
        (0, OutcomeKind.CANCELLED, 0): 1,
        (0, OutcomeKind.COUNT, 0): 1,
        (0, S, 1): 1,
        (0, F, 1): 1,
    }


def test_a_slot_given_up_is_nothing_and_a_marker_elsewhere_is_invalid() -> None:
    """A void word is passed over; a time word inside a block, or any unknown code, is invalid."""
    one, judged = drained([at.pack_void(0), at.pack_time(0, 5), 0xFFF << 52, 1 << 52, word()])
    assert (one[0].invalid, told(judged)) == (3, [("w0", S, 1)])


def test_the_future_is_now() -> None:
    """An end after the drain, or a block without its time, counts as ended at the drain."""
    _, judged = drained([word(F, end=60.0)], now=EPOCH + 1.0)
    assert judged[0].end == EPOCH + 1.0
    one = Counted("w0", 0, NOW)
    one.scan([Part(1, NO_EPOCH, [word(F, end=50.0)]), Part(at.BLOCK, 3, [at.pack_time(0, 10**9), word(F)])])
    assert [run.end for run in judge([one], [NAMES], NOW)] == [NOW, NOW]


def test_rows_without_a_name_are_alone() -> None:
    """Undeclared rows are counted and judged by themselves; the engine knows what to make of them."""
    one, judged = drained([word(F, row=900), word(row=900, end=0.1)], [word(F, row=900)], names={})
    assert told(judged) == [("w0", F, 1), ("w1", F, 1), ("w0", S, 1)]
    assert dict(one[1].counts) == {(900, F, 0): 1}


KINDS = st.sampled_from([S, S, S, F, F, *OutcomeKind])
WORDS = st.builds(
    word,
    KINDS,
    st.integers(0, 3),
    st.floats(0.0, 0.6),
    st.integers(0, 3),
    st.none() | st.integers(0, 63),
    st.booleans(),
    st.floats(0.0, 0.2),
)
RINGS = st.lists(st.lists(WORDS | st.integers(0, (1 << 64) - 1), max_size=30), min_size=1, max_size=4)


@settings(max_examples=400, deadline=None)
@given(RINGS)
def test_counts_are_those_of_a_plain_loop(rings: list[list[int]]) -> None:
    """Every field of every word, also of random ones, is counted as a loop that unpacks it would."""
    counted, _ = drained(*rings)
    for one, ring in zip(counted, rings, strict=True):
        counts: Counter[tuple[int, int, int]] = Counter()
        durations: Counter[tuple[int, int]] = Counter()
        invalid = 0
        for value in ring:
            code = at.CODES[value >> 52]
            if code is None:
                invalid += value >> 52 != at.CODE_VOID
                continue
            row = value >> 31 & 1023
            counts[row, code.kind, int(not value >> 48 & 15)] += 1
            if code.kind is not OutcomeKind.COUNT:
                durations[row, (LONG_BUCKET if code.long else QUICK_BUCKET)[value & 65_535]] += 1
        assert (dict(one.counts), one.invalid) == (dict(counts), invalid)
        told = {(row, bucket): n for row, cell in one.durations.items() for bucket, n in cell.items()}
        assert told == dict(durations)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(WORDS, max_size=30), min_size=1, max_size=4))
def test_judged_is_the_merge_by_end(rings: list[list[int]]) -> None:
    """For each breaker: the same outcomes as merging all words by end, and between two that are no calm
    success the same successes of each worker, row and generation.
    """
    _, judged = drained(*rings, now=EPOCH + 0.5)
    ends = [one.end for one in judged]
    assert ends == sorted(ends)
    for name in ("database", "cache", "3"):
        rows = {row for row in range(4) if NAMES.get(row, "3") == name}
        if name == "3":
            # A row without a name is alone in each worker.
            for number, ring in enumerate(rings):
                mine = [one for one in judged if one.row == 3 and one.worker == f"w{number}"]
                assert stretches(mine) == stretches(plainly([ring], {3}, number))
        else:
            assert stretches([one for one in judged if one.row in rows]) == stretches(plainly(rings, rows))


def plainly(rings: Sequence[Sequence[int]], rows: set[int], first: int = 0) -> list[Judged]:
    """Every word of these rows that is judged, merged by end, each on its own."""
    found = []
    for number, ring in enumerate(rings, first):
        for place, value in enumerate(ring):
            code = at.CODES[value >> 52]
            generation, row = value >> 48 & 15, value >> 31 & 1023
            if code is None or not generation or row not in rows:
                continue
            proves = code.kind in FAILURES or code.kind in (S, OutcomeKind.SLOW_SUCCESS)
            if code.kind is OutcomeKind.COUNT or not (proves or code.permit is not None):
                continue
            steps = EPOCH * 512 + (value >> 16 & 0x7FFF)
            permit = -1 if code.permit is None else code.permit
            end = min(steps / 512, EPOCH + 0.5)
            seen = Judged(f"w{number}", row, int(code.kind), generation, permit, end, 1)
            found.append((steps, number, place, seen))
    return [seen for *_, seen in sorted(found, key=lambda one: one[:3])]


def stretches(judged: Sequence[Judged]) -> list[object]:
    """Odd outcomes as they are, and between them how many successes each worker, row and generation has."""
    cut: list[object] = []
    for calm, group in itertools.groupby(judged, lambda one: one.kind == S and one.permit < 0):
        if not calm:
            cut += group
            continue
        counts: Counter[tuple[str, int, int]] = Counter()
        for one in group:
            counts[one.worker, one.row, one.generation] += one.count
        cut.append(counts)
    return cut


@pytest.mark.parametrize("end", [0.0, 0.1249, 0.125, 0.25, 63.9])
def test_a_run_lies_in_the_eighth_in_which_its_calls_ended(end: float) -> None:
    """The end told for a run is in the same eighth of a second as every end in it."""
    _, judged = drained([word(end=end)], now=EPOCH + 64.0)
    assert int(judged[0].end * 8) == int((EPOCH + end) * 8)
