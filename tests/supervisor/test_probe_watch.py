"""What the verdicts of one probe say."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.messages import ProbeEnded, ProbeRule
from supervisor.probe_watch import ProbeWatch

RULE = ProbeRule("database", 2, 3, preventive=True, patience_s=10.0)


def watch(*verdicts: tuple[str, float], rule: ProbeRule = RULE) -> ProbeWatch:
    """A watch that was told these verdicts, each begun then and ended a quarter of a second later."""
    made = ProbeWatch(rule)
    for verdict, started in verdicts:
        made.take(ProbeEnded("database", verdict, "refused", 0.25, started), started + 0.25)
    return made


@pytest.mark.parametrize(
    ("verdicts", "risen", "fallen"),
    [
        ([], False, False),
        ([("passed", 10.0)], False, False),
        ([("passed", 9.9), ("passed", 10.0)], False, False),
        ([("passed", 10.0), ("passed", 11.0)], True, False),
        ([("passed", 8.0), ("passed", 9.0), ("passed", 10.0), ("passed", 11.0)], True, False),
        ([("passed", 10.0), ("failed", 11.0), ("passed", 12.0)], False, False),
        ([("passed", 10.0), ("error", 11.0), ("passed", 12.0)], True, False),
        ([("passed", 10.0), ("passed", 11.0), ("error", 12.0)], True, False),
        ([("passed", 10.0), ("passed", 11.0), ("failed", 12.0)], False, False),
        ([("failed", 9.0), ("failed", 10.0), ("failed", 11.0)], False, False),
        ([("failed", 9.0), ("failed", 10.0), ("failed", 11.0), ("failed", 12.0)], False, True),
        ([("failed", 10.0), ("failed", 11.0), ("passed", 12.0), ("failed", 13.0)], False, False),
        ([("error", 10.0), ("error", 11.0), ("error", 12.0)], False, False),
        ([("?", 10.0), ("?", 11.0), ("?", 12.0)], False, False),
    ],
)
def test_verdicts_count_from_the_period_in_which_they_were_begun(
    verdicts: list[tuple[str, float]], risen: bool, fallen: bool
) -> None:
    """Two passes or three failures in a row, begun at 10.0 s or later; an error is no verdict."""
    seen = watch(*verdicts)
    assert (seen.risen(10.0), seen.fallen(10.0)) == (risen, fallen)


def test_only_a_preventive_probe_opens() -> None:
    """Without it failures say nothing but that an opening must wait."""
    rule = ProbeRule("database", 2, 1, preventive=False, patience_s=10.0)
    assert not watch(("failed", 10.0), ("failed", 11.0), rule=rule).fallen(0.0)


def test_a_rule_of_nothing_still_wants_one_verdict() -> None:
    """Zero would hold without a probe that ever ran."""
    rule = ProbeRule("database", 0, 0, preventive=True, patience_s=10.0)
    assert not watch(rule=rule).risen(0.0)
    assert not watch(rule=rule).fallen(0.0)


def test_the_next_word_is_awaited_for_the_patience_of_the_rule() -> None:
    """From the end of the last verdict; an error prolongs nothing."""
    assert watch(("failed", 10.0)).until == 20.25
    assert watch(("passed", 10.0), ("error", 15.0)).until == 20.25
    assert watch(("error", 15.0)).until == float("-inf")


@pytest.mark.parametrize(("awaited_s", "until"), [(0.0, 20.25), (3.5, 13.75), (99.0, 20.25)])
def test_who_asks_may_say_when_the_next_word_ought_to_come(awaited_s: float, until: float) -> None:
    """Whoever is refused is told to come back then, not when the slowest of all probes could have spoken."""
    seen = ProbeWatch(RULE)
    seen.take(ProbeEnded("database", "failed", "refused", 0.25, 10.0, awaited_s=awaited_s), 10.25)
    assert seen.until == until


@pytest.mark.parametrize(
    ("verdicts", "news"),
    [
        ("pp", ["", ""]),
        ("fff", ["its probe fails: refused", "", ""]),
        ("pfpp", ["", "its probe fails: refused", "", "its probe passes again"]),
        ("fpfpfpp", ["its probe fails: refused", "", "", "", "", "", "its probe passes again"]),
        ("eepp", ["its probe could not be asked: refused", "", "", "its probe passes again"]),
        ("fe", ["its probe fails: refused", "its probe could not be asked: refused"]),
    ],
)
def test_a_change_is_told_once(verdicts: str, news: list[str]) -> None:
    """Not every verdict, and of a probe that flaps only that it began."""
    seen, names = ProbeWatch(RULE), {"p": "passed", "f": "failed", "e": "error"}
    told = [
        seen.take(ProbeEnded("database", names[verdict], "refused", 0.25, 10.0 + at), 10.5 + at)
        for at, verdict in enumerate(verdicts)
    ]
    assert told == news


def test_what_came_back_is_one_line_of_bounded_length() -> None:
    """Whatever a driver says, it cannot forge a line of the log, nor fill the journal."""
    seen = ProbeWatch(RULE)
    seen.take(ProbeEnded("database", "failed", "a\nb" * 1000, 0.25, 10.0), 10.5)
    assert (len(seen.text), seen.text[:3]) == (500, "a?b")


@pytest.mark.parametrize(
    ("took", "shown"), [(0.25, 0.25), (-1.0, 0.0), (math.nan, 0.0), (math.inf, 86_400.0)]
)
def test_how_long_it_took_is_a_number_of_seconds(took: float, shown: float) -> None:
    """Whatever its prober says: answers and snapshots are JSON."""
    seen = ProbeWatch(RULE)
    seen.take(ProbeEnded("database", "passed", "", took, 10.0), 10.5)
    assert seen.took_s == shown


WORDS = st.lists(st.tuples(st.sampled_from(("passed", "failed", "error")), st.floats(0.0, 5.0)), max_size=30)


@given(WORDS, WORDS, st.integers(1, 5), st.integers(1, 5), st.floats(0.0, 50.0))
def test_it_is_what_the_whole_list_of_verdicts_says(
    before: list[tuple[str, float]], after: list[tuple[str, float]], rise: int, fall: int, since: float
) -> None:
    """Kept as JSON in the middle, it answers as if all verdicts were read anew from the last one back."""
    now, told = 0.0, list[tuple[str, float]]()
    seen = ProbeWatch(ProbeRule("database", rise, fall, preventive=True, patience_s=10.0))
    for part in (before, after):
        for verdict, pause in part:
            now += pause
            seen.take(ProbeEnded("database", verdict, "", pause, now - 3 * pause), now)
            told.append((verdict, now - 3 * pause))
        seen = ProbeWatch.from_plain(json.loads(json.dumps(seen.to_plain(), allow_nan=False)))
    counted = {"passed": 0, "failed": 0}
    decisive = [one for one in told if one[0] != "error"]
    for verdict, started in reversed(decisive):
        if verdict != decisive[-1][0]:
            break
        counted[verdict] += started >= since
    assert (seen.risen(since), seen.fallen(since)) == (counted["passed"] >= rise, counted["failed"] >= fall)


def test_a_clock_that_began_anew_moves_every_time() -> None:
    """What counted for a period counts for it still."""
    seen = watch(("passed", 10.0), ("passed", 11.0))
    seen.shift(-5.0)
    assert (seen.ended, seen.until) == (6.25, 16.25)
    assert seen.risen(5.0)
    assert not seen.risen(5.5)
    unheard = watch()
    unheard.shift(-5.0)
    assert unheard.to_plain() == watch().to_plain()
