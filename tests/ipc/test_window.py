"""Rolling windows: what is inside when, whose it is, and that nothing is lost by keeping or refitting."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc import window as rolling
from ipc.vocabulary import CountWindow, TimeWindow
from ipc.window import FAILED, SLOW, RollingCount, RollingTime, RollingWindow


def shown(window: RollingWindow) -> tuple[int, int, int]:
    """(calls, failures, slow)."""
    return rolling.calls(window.totals), rolling.failures(window.totals), rolling.slow(window.totals)


def parts(window: RollingWindow) -> dict[str, int]:
    """Calls by party."""
    return {party: rolling.calls(cell) for party, cell in window.parts.items()}


def test_flags_are_counted_apart() -> None:
    """A call that failed slowly counts in both rates, and once as a call."""
    window = rolling.rolling(TimeWindow(30.0))
    for flags, count in ((0, 3), (FAILED, 2), (SLOW, 4), (FAILED | SLOW, 1)):
        window.add("a", flags, count, 10.0)
    assert shown(window) == (10, 3, 5)


@pytest.mark.parametrize(
    ("seconds", "end", "first_outside"),
    [
        (1.0, 10.0, 11.0),
        (1.0, 10.1, 11.0),
        (8.0, 10.0, 18.0),
        (30.0, 10.0, 40.0),
        (30.0, 10.49, 40.0),
        (3600.0, 56.25 * 2, 56.25 * 66),
    ],
)
def test_an_outcome_leaves_with_its_bucket(seconds: float, end: float, first_outside: float) -> None:
    """It is inside until its bucket is no longer one of the newest ceil(seconds/width)."""
    window = RollingTime(TimeWindow(seconds))
    window.roll(end)
    window.add("a", FAILED, 1, end)
    window.roll(math.nextafter(first_outside, 0.0))
    assert shown(window) == (1, 1, 0)
    window.roll(first_outside)
    assert (shown(window), parts(window)) == ((0, 0, 0), {})


def test_what_is_too_old_is_not_taken() -> None:
    """An outcome is placed by its end, never by its arrival."""
    window = RollingTime(TimeWindow(8.0))
    window.roll(100.0)
    assert [window.holds(end) for end in (92.0, 92.124, 92.125, 99.0)] == [False, False, True, True]


def test_a_new_window_holds_everything_until_it_is_told_the_time() -> None:
    """Before the first `roll` nothing is old."""
    assert RollingTime(TimeWindow(1.0)).holds(-1e9)


def test_late_outcomes_fall_out_in_the_order_of_their_ends() -> None:
    """One that arrives late leaves with those that ended when it did."""
    window = RollingTime(TimeWindow(8.0))
    window.add("a", 0, 1, 20.0)
    window.add("b", FAILED, 1, 14.0)
    window.roll(22.0)
    assert parts(window) == {"a": 1}


def test_the_last_calls_stay() -> None:
    """A count window lets its oldest go, whoever's it was."""
    window = RollingCount(CountWindow(5))
    window.add("a", FAILED, 2, 0.0)
    window.add("b", 0, 2, 0.0)
    window.add("a", SLOW, 2, 0.0)
    assert (shown(window), parts(window)) == ((5, 1, 2), {"a": 3, "b": 2})
    window.add("b", 0, 4, 0.0)
    assert (shown(window), parts(window)) == ((5, 0, 1), {"a": 1, "b": 4})


def test_more_calls_than_the_window_holds_fill_it() -> None:
    """Of a great many equal outcomes only as many count as fit."""
    window = RollingCount(CountWindow(5))
    window.add("a", FAILED, 3, 0.0)
    window.add("b", 0, 1_000_000, 0.0)
    assert (shown(window), parts(window)) == ((5, 0, 0), {"b": 5})


def test_a_count_window_knows_no_time() -> None:
    """Neither age nor a jumping clock changes it."""
    window = RollingCount(CountWindow(5))
    window.add("a", FAILED, 1, 0.0)
    window.roll(1e9)
    window.shift(1e9)
    assert window.holds(-1e9)
    assert shown(window) == (1, 1, 0)


@pytest.mark.parametrize("settings", [TimeWindow(30.0), CountWindow(10)])
def test_a_party_can_be_taken_out(settings: TimeWindow | CountWindow) -> None:
    """With it go its outcomes, and nobody else's."""
    window = rolling.rolling(settings)
    for party, flags in (("a", FAILED), ("b", 0), ("a", 0), ("b", SLOW)):
        window.add(party, flags, 2, 10.0)
    window.drop("a")
    window.drop("nobody")
    assert (shown(window), list(window.parties)) == ((4, 0, 2), ["b"])
    window.add("a", 0, 1, 10.0)
    assert parts(window) == {"a": 1, "b": 4}


@pytest.mark.parametrize("settings", [TimeWindow(30.0), CountWindow(10)])
def test_a_window_can_be_emptied(settings: TimeWindow | CountWindow) -> None:
    """Nothing of what was inside comes back or leaves a second time."""
    window = rolling.rolling(settings)
    window.add("a", FAILED, 10, 10.0)
    window.clear()
    assert (shown(window), parts(window)) == ((0, 0, 0), {})
    window.add("b", 0, 10, 60.0)
    window.roll(60.0)
    assert (shown(window), parts(window)) == ((10, 0, 0), {"b": 10})


def test_a_longer_window_keeps_what_is_inside() -> None:
    """Other seconds: outcomes stay where their ends are, to within a bucket."""
    window = RollingTime(TimeWindow(8.0))
    window.roll(100.0)
    window.add("a", FAILED, 2, 93.0)
    window.add("b", 0, 1, 100.0)
    longer = rolling.refit(window, TimeWindow(30.0), 100.0)
    assert (shown(longer), parts(longer)) == ((3, 2, 0), {"a": 2, "b": 1})
    shorter = rolling.refit(longer, TimeWindow(3.0), 100.0)
    assert parts(shorter) == {"b": 1}


def test_time_becomes_count_and_back() -> None:
    """The newest outcomes are kept; what has no end any more counts as ended now."""
    window = RollingTime(TimeWindow(8.0))
    window.add("a", FAILED, 3, 10.0)
    window.add("b", 0, 3, 12.0)
    counted = rolling.refit(window, CountWindow(4), 12.0)
    assert (shown(counted), parts(counted)) == ((4, 1, 0), {"a": 1, "b": 3})
    timed = rolling.refit(counted, TimeWindow(1.0), 50.0)
    assert (shown(timed), parts(timed)) == ((4, 1, 0), {"a": 1, "b": 3})
    timed.roll(51.0)
    assert parts(timed) == {}


def test_a_window_shifts_with_the_clock() -> None:
    """After a reboot an outcome is as old as it was, to within a bucket."""
    window = RollingTime(TimeWindow(8.0))
    window.roll(1000.0)
    window.add("a", FAILED, 1, 995.0)
    window.add("b", 0, 1, 1000.0)
    window.shift(-990.0)
    window.roll(10.0)
    assert parts(window) == {"a": 1, "b": 1}
    window.roll(13.125)
    assert parts(window) == {"b": 1}


def test_shifted_buckets_may_meet() -> None:
    """By a part of a bucket: outcomes are added together, none is lost."""
    window = RollingTime(TimeWindow(3600.0))
    for end in range(0, 600, 7):
        window.add("a", FAILED, 1, float(end))
    window.shift(3.0)
    assert shown(window) == (86, 86, 0)
    window.roll(10_000.0)
    assert shown(window) == (0, 0, 0)


calls = st.tuples(
    st.sampled_from("abc"), st.integers(0, 3), st.integers(1, 5), st.sampled_from([0.0, 0.125, 1.0])
)


@pytest.mark.parametrize("settings", [TimeWindow(2.0), CountWindow(7)])
@given(script=st.lists(calls, max_size=40))
def test_a_window_is_kept_whole(
    settings: TimeWindow | CountWindow, script: list[tuple[str, int, int, float]]
) -> None:
    """What was kept as JSON goes on like the one that was not."""
    window, now = rolling.rolling(settings), 100.0
    for party, flags, count, step in script:
        now += step
        again = rolling.from_plain(json.loads(json.dumps(window.to_plain(), allow_nan=False)))
        for one in (window, again):
            one.roll(now)
            one.add(party, flags, count, now)
        assert (again.totals, again.parts) == (window.totals, window.parts)
        window = again


@given(script=st.lists(calls, max_size=40), drop=st.sampled_from("abc"))
def test_totals_are_the_sums_of_the_parts(script: list[tuple[str, int, int, float]], drop: str) -> None:
    """Of the parties, and of the entries, whatever came and went."""
    for window in (RollingTime(TimeWindow(2.0)), RollingCount(CountWindow(7))):
        now = 100.0
        for place, (party, flags, count, step) in enumerate(script):
            now += step
            window.roll(now)
            window.add(party, flags, count, now)
            if place % 7 == 6:
                window.drop(drop)
            entries = list(window.entries())
            for flag in range(4):
                assert window.totals[flag] == sum(part[flag] for part in window.parts.values())
                assert window.totals[flag] == sum(entry[2] for entry in entries if entry[1] == flag)
            assert {entry[0] for entry in entries} == set(window.parties)
