"""Counts of a breaker and the buckets of its durations."""

from __future__ import annotations

import json

import pytest

from ipc.vocabulary import CLASSES_PER_BREAKER, OTHER_CLASS, OutcomeKind, Tally
from supervisor import metrics
from supervisor.metrics import BUCKETS, LONG_BUCKET, QUICK_BUCKET, BreakerMetrics, bucket_mid_s, percentile_s


@pytest.mark.parametrize(("table", "per_s"), [(QUICK_BUCKET, 2.0**18), (LONG_BUCKET, 2.0**8)])
def test_the_middle_of_a_bucket_is_near_every_duration_in_it(table: tuple[int, ...], per_s: float) -> None:
    """From 4 us to 256 s no duration is told more than 10 % wrong."""
    known = range(1, 65_535 if table is LONG_BUCKET else 65_536)
    worst = max(abs(bucket_mid_s(table[value]) / (value / per_s) - 1.0) for value in known)
    assert worst <= 0.10


def test_the_tables_cover_every_value_of_the_field() -> None:
    """Intake looks up without a check: each table has 65,536 entries, all of them buckets, none falling."""
    for table in (QUICK_BUCKET, LONG_BUCKET):
        assert len(table) == 65_536
        assert sorted(table) == list(table)
        assert table[0] == 0
        assert table[-1] < BUCKETS


def test_both_units_tell_the_same_bucket_for_the_same_duration() -> None:
    """A duration of 0.25 s lands in one bucket, whichever unit its word has."""
    assert LONG_BUCKET[64] == QUICK_BUCKET[65_535] + 1


def test_the_last_value_of_the_long_field_is_its_own_bucket() -> None:
    """256 s or longer is told apart from everything that is known exactly."""
    assert LONG_BUCKET[65_535] == BUCKETS - 1
    assert LONG_BUCKET[65_534] == BUCKETS - 2


def test_percentiles_are_of_the_calls() -> None:
    """Half of the calls are below the median's bucket or in it; no calls have no percentile."""
    durations = [0] * BUCKETS
    assert percentile_s(durations, 0.5) is None
    durations[40], durations[80] = 98, 2
    assert percentile_s(durations, 0.5) == percentile_s(durations, 0.98) == bucket_mid_s(40)
    assert percentile_s(durations, 0.99) == bucket_mid_s(80)


def test_a_tally_of_an_outcome_is_an_outcome_that_overflowed() -> None:
    """The ring was full: the outcome is counted, and counted as one without order."""
    counted = BreakerMetrics()
    assert counted.take_tally(OutcomeKind.FAILURE, 3)
    assert counted.take_tally(Tally.REJECTED, 5)
    assert not counted.take_tally(OutcomeKind.COUNT, 1)
    assert not counted.take_tally(0, 1)
    assert counted.outcomes[OutcomeKind.FAILURE] == counted.overflow[OutcomeKind.FAILURE] == 3
    assert counted.tallies[Tally.REJECTED] == 5
    assert sum(counted.outcomes) == 3


def test_classes_beyond_the_limit_are_other() -> None:
    """A breaker tells 32 exception classes apart; the rest, and names that are none, share one count."""
    counted = BreakerMetrics()
    names = [counted.class_name(f"Error{number}") for number in range(CLASSES_PER_BREAKER + 3)]
    assert names[:32] == [f"Error{number}" for number in range(32)]
    assert set(names[32:]) == {OTHER_CLASS}
    assert counted.class_name("Error5") == "Error5"
    assert counted.class_name("bad\nname") == OTHER_CLASS
    counted.take_class(OTHER_CLASS, 2, 12.5)
    counted.take_class(OTHER_CLASS, 1, 13.5)
    assert (counted.classes[OTHER_CLASS].count, counted.classes[OTHER_CLASS].last_seen) == (3, 13.5)


def test_counts_survive_json() -> None:
    """A snapshot holds every count, and times move with the clock."""
    counted = BreakerMetrics()
    counted.take_tally(OutcomeKind.SUCCESS, 1)
    counted.take_durations(((7, 2), (105, 1), (BUCKETS, 9), (-1, 9)))
    counted.take_class(counted.class_name("TimeoutError"), 4, 50.0)
    again = BreakerMetrics.from_plain(json.loads(json.dumps(counted.to_plain())))
    assert again == counted
    again.shift(-20.0)
    assert again.classes["TimeoutError"].last_seen == 30.0
    assert sum(again.durations) == 3


def test_the_names_of_the_counts_are_those_of_the_answers() -> None:
    """What `stats` shows is named after the vocabulary."""
    assert list(metrics.KIND_NAMES.values()) == [
        "success",
        "failure",
        "slow_success",
        "slow_failure",
        "ignored",
        "cancelled",
        "cancelled_late",
    ]
    assert list(metrics.TALLY_NAMES.values()) == ["rejected", "permit_timeout", "ramped"]
