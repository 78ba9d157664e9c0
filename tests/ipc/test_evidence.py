"""Runs and rates by themselves: order, limits, and what is kept."""

from __future__ import annotations

import json

from ipc.evidence import HOST_RUN_EIGHTHS, Evidence, Finding
from ipc.vocabulary import BreakerSettings, CountWindow
from ipc.window import FAILED, SLOW

SETTINGS = BreakerSettings(window=CountWindow(1000), minimum_calls=10)


def told(*calls: tuple[str, int, float]) -> Evidence:
    """Evidence of these calls: (party, flags, end)."""
    evidence = Evidence(SETTINGS)
    for party, flags, end in calls:
        evidence.add(party, flags, 1, end)
    return evidence


def test_within_an_eighth_of_a_second_arrival_decides() -> None:
    """That is how exactly the end of a quiet stretch is told."""
    assert told(("a", FAILED, 10.12), ("b", 0, 10.01)).host_run == 0
    assert told(("b", 0, 10.12), ("a", FAILED, 10.01)).host_run == 1


def test_beyond_an_eighth_of_a_second_ends_decide() -> None:
    """Whatever arrived first."""
    assert told(("a", FAILED, 10.13), ("b", 0, 10.12)).host_run == 1
    assert told(("b", 0, 10.13), ("a", FAILED, 10.12)).host_run == 0


def test_a_late_success_ends_the_part_of_the_run_before_it() -> None:
    """The failures that ended after it stand."""
    evidence = told(*[("a", FAILED, float(end)) for end in range(10)], ("b", 0, 6.5))
    assert evidence.host_run == 3


def test_a_long_run_keeps_its_count() -> None:
    """Its oldest eighths of a second are remembered together."""
    evidence = told(*[("a", FAILED, float(end)) for end in range(10 * HOST_RUN_EIGHTHS)])
    assert evidence.host_run == 10 * HOST_RUN_EIGHTHS
    evidence.success("b", 10.0 * HOST_RUN_EIGHTHS - 1.5)
    assert evidence.host_run == 1
    evidence.success("b", 10.0 * HOST_RUN_EIGHTHS)
    assert evidence.host_run == 0


def test_the_newest_success_of_another_is_what_doubts_a_run() -> None:
    """Its own newest success is not, nor is an older one of a third that ended before the run."""
    evidence = told(("c", 0, 1.0), ("a", 0, 2.0), ("a", FAILED, 3.0), ("a", FAILED, 4.0))
    assert not evidence.runs["a"].doubted
    evidence.add("c", 0, 1, 5.0)
    evidence.add("b", 0, 1, 4.5)
    evidence.add("a", FAILED, 1, 6.0)
    assert evidence.runs["a"].doubted


def test_a_success_that_ended_after_the_last_failure_is_not_between() -> None:
    """It arrived early; the next failure may tell."""
    evidence = told(("a", FAILED, 1.0), ("b", 0, 5.0), ("a", FAILED, 4.0))
    assert not evidence.runs["a"].doubted
    evidence.add("a", FAILED, 1, 5.0)
    assert evidence.runs["a"].doubted


def test_the_second_newest_counts_for_the_newest() -> None:
    """For each party the newest success of anybody else is known, with only two remembered."""
    evidence = told(("a", FAILED, 1.0), ("b", FAILED, 1.0), ("c", 0, 2.0), ("d", 0, 3.0), ("c", 0, 3.5))
    evidence.add("b", FAILED, 1, 4.0)
    assert evidence.runs["b"].doubted
    evidence = told(("c", 0, 3.0), ("d", 0, 2.0))
    assert evidence.of_runs("c") is None
    evidence.failure("c", 1, 1.0)
    evidence.failure("c", 1, 4.0)
    assert evidence.runs["c"].doubted


def test_ties_between_workers_are_settled_the_same_way_each_time() -> None:
    """Most bad calls; of equal ones the one with fewer calls; then the smaller name."""
    cause = "6 of 11 calls failed (limit 0.5), too many of them of one worker"
    fewer = [("a", 0), *[("c", 0)] * 4, *[(party, FAILED) for party in "bababa"]]
    assert told(*[(party, flags, 1.0) for party, flags in fewer]).of_rate(FAILED) == Finding("b", cause)
    equal = [*[("c", 0)] * 5, *[(party, FAILED) for party in "bababa"]]
    assert told(*[(party, flags, 1.0) for party, flags in equal]).of_rate(FAILED) == Finding("a", cause)


def test_a_rate_that_is_off_says_nothing() -> None:
    """However bad it is."""
    evidence = told(*[("a", SLOW, 1.0)] * 50)
    assert evidence.of_rate(SLOW) is None


def test_steps_stop_where_a_rule_must_be_asked() -> None:
    """One by one where something is bad; all at once where nothing is."""
    evidence = told(("a", 0, 1.0))
    assert evidence.step(0, 500) == 500
    evidence.add("a", FAILED, 1, 1.0)
    assert (evidence.step(0, 500), evidence.step(0, 3), evidence.step(FAILED, 500)) == (8, 3, 1)
    evidence.add("a", 0, 100, 1.0)
    assert evidence.step(0, 500) == 1


def test_evidence_is_kept_and_shifts() -> None:
    """Runs, the newest successes and the host run, by their times."""
    evidence = told(("b", 0, 9.0), ("c", 0, 9.5), ("a", FAILED, 10.0), ("a", FAILED, 12.0))
    kept = json.loads(json.dumps(evidence.to_plain(), allow_nan=False))
    again = Evidence.from_plain(SETTINGS, kept)
    assert again.to_plain() == evidence.to_plain()
    for one, delta in ((evidence, 0.0), (again, -8.0)):
        one.shift(delta)
        one.success("c", 11.0 + delta)
        one.failure("a", 1, 12.5 + delta)
        assert (one.host_run, one.runs["a"].length, one.runs["a"].doubted) == (2, 3, True)


def test_empty_evidence_is_kept_too() -> None:
    """Where no success was seen yet."""
    kept = json.loads(json.dumps(Evidence(SETTINGS).to_plain(), allow_nan=False))
    assert Evidence.from_plain(SETTINGS, kept).to_plain() == kept
