"""A breaker with other settings, on its own, kept as JSON, and moved to another clock."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ipc.breaker import Breaker, Manual, Totals
from ipc.vocabulary import (
    FOREVER,
    BreakerSettings,
    BreakerState,
    CountWindow,
    TimeWindow,
    Verb,
)
from tests.ipc.conversation import FAILURE, SUCCESS, Caller, Talk, traffic

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
METRICS_ONLY = BreakerState.METRICS_ONLY
RATE = BreakerSettings(failure_threshold=None, minimum_calls=20, window=TimeWindow(30.0))


def test_other_settings_keep_windows_states_and_growth() -> None:
    """A reload changes how things are judged from now on, nothing that was."""
    talk = Talk(parties="a")
    talk.fail("a", 4)
    talk.breaker.configure(BreakerSettings(failure_threshold=10, window=TimeWindow(60.0)), talk.now)
    assert (talk.breaker.totals, talk.breaker.host_run) == (Totals(4, 4, 0), 4)
    talk.fail("a", 5)
    assert talk.breaker.state_of() is CLOSED
    talk.breaker.configure(BreakerSettings(failure_threshold=10, window=CountWindow(100)), talk.now)
    assert talk.breaker.totals == Totals(9, 9, 0)
    talk.fail("a")
    until = talk.breaker.until
    talk.breaker.configure(BreakerSettings(recovery_timeout=1.0), talk.now)
    assert (talk.breaker.state_of(), talk.breaker.until) == (OPEN, until)


def test_growth_is_taken_back_by_the_timeout_that_was_in_force() -> None:
    """Of three steps two go in 65 s of 30 s each, the third in the 5 s left over and 95 s more of 100 s."""
    talk = Talk(BreakerSettings(successes_to_close=1, recovery_timeout_max=10_000.0), "a")
    talk.half_open()
    for wait in (60.0, 120.0, 240.0):
        talk.trial("a", FAILURE)
        talk.later(wait)
    talk.trial("a", SUCCESS)
    talk.now += 65.0
    talk.breaker.configure(replace(talk.breaker.settings, recovery_timeout=100.0), talk.now)
    talk.now += 96.0
    talk.open()
    assert talk.breaker.until - talk.now == pytest.approx(100.0)


def test_a_lower_threshold_decides_at_the_next_outcome() -> None:
    """Not by the change itself."""
    talk = Talk(parties="a")
    talk.fail("a", 4)
    talk.breaker.configure(BreakerSettings(failure_threshold=2), talk.now)
    assert talk.breaker.state_of() is CLOSED
    talk.fail("a")
    assert talk.breaker.state_of() is OPEN


# --- alone, kept, moved in time ---------------------------------------------------------------------


@pytest.mark.parametrize("state", BreakerState)
def test_a_worker_on_its_own_begins_where_the_board_was(state: BreakerState) -> None:
    """OPEN and manual states last until their own time, the others begin anew."""
    talk = Talk(parties="a")
    until = talk.now + 20.0
    talk.breaker.adopt(state, until, talk.now)
    assert talk.breaker.state_of("a") is state
    assert (talk.breaker.manual is not None) == (state in {FORCED_OPEN, DISABLED, METRICS_ONLY})
    talk.later(20.0)
    ends = {OPEN: HALF_OPEN, FORCED_OPEN: HALF_OPEN, DISABLED: CLOSED, METRICS_ONLY: CLOSED}
    assert talk.breaker.state_of("a") is ends.get(state, state)


def test_what_is_kept_goes_on_like_the_one_that_was_not() -> None:
    """A breaker in the middle of everything, kept as JSON, then told the same things as the original."""
    talk = Talk(BreakerSettings(recovery_timeout=5.0, window=TimeWindow(10.0)), "abcd")
    sick = {
        "a": Caller(0.05, lambda now: now < 160.0),
        "b": Caller(0.07, lambda now: 120.0 < now < 130.0),
        "c": Caller(0.11, lambda now: 124.0 < now < 130.0),
        "d": Caller(0.9, lambda now: 125.0 < now < 130.0),
    }
    seen: set[BreakerState] = set()
    for _ in range(80):
        traffic(talk, sick, 1.0)
        seen.add(talk.breaker.state_of())
        kept = json.loads(json.dumps(talk.breaker.to_plain(), allow_nan=False))
        other = Talk()
        other.breaker, other.now, other.asked = (
            Breaker.from_plain(talk.breaker.settings, kept),
            talk.now,
            talk.asked,
        )
        assert other.breaker.to_plain() == talk.breaker.to_plain()
        assert traffic(other, sick, 1.0) == traffic(talk, sick, 1.0)
        assert other.breaker.to_plain() == talk.breaker.to_plain()
    assert seen >= {CLOSED, OPEN}
    assert talk.breaker.isolated_total > 0


def test_what_is_kept_has_its_manual_state() -> None:
    """Who, why and until when outlive the daemon."""
    talk = Talk(parties="a")
    talk.breaker.command(Verb.FORCE_OPEN, FOREVER, "0:root", "a reason", talk.now)
    again = Breaker.from_plain(talk.breaker.settings, json.loads(json.dumps(talk.breaker.to_plain())))
    assert again.manual == Manual("0:root", "a reason", FOREVER)
    assert again.word("a") == talk.breaker.word("a")


def test_what_is_kept_takes_other_settings() -> None:
    """The window is refitted to the settings in force."""
    talk = Talk(parties="a")
    talk.fail("a", 4)
    again = Breaker.from_plain(BreakerSettings(window=CountWindow(50)), talk.breaker.to_plain())
    assert (again.totals, again.host_run) == (Totals(4, 4, 0), 4)


def test_a_breaker_shifts_with_the_clock() -> None:
    """After a reboot everything has as long to go as it had."""
    talk = Talk(parties="a", now=5000.0)
    talk.open()
    rest = talk.breaker.until - talk.now
    talk.breaker.shift(-4990.0)
    assert talk.breaker.until == pytest.approx(talk.now - 4990.0 + rest)
    assert talk.breaker.next_time() == talk.breaker.until
    talk.breaker.command(Verb.DISABLE, 1000.0, "0:root", "", 20.0)
    talk.breaker.shift(100.0)
    assert (talk.breaker.manual, talk.breaker.until) == (Manual("0:root", "", 1100.0), 1100.0)


def test_an_open_time_that_is_over_is_over_whatever_a_probe_says_then() -> None:
    """Told late, it ended when it ended: the word that comes after it keeps nothing open any more."""
    talk = Talk(parties="a")
    talk.open()
    talk.now = talk.breaker.until + 5.0
    talk.breaker.gate(talk.now + 60.0, vouched=False, now=talk.now)
    assert talk.breaker.state_of() is HALF_OPEN
    assert talk.moves() == [("", CLOSED, OPEN), ("", OPEN, HALF_OPEN)]


def test_a_probe_trips_what_is_judged_and_nothing_else() -> None:
    """CLOSED opens, METRICS_ONLY counts, a state by hand stays."""
    talk = Talk(parties="a")
    talk.breaker.command(Verb.DISABLE, FOREVER, "0:root", "", talk.now)
    talk.breaker.trip("its probe failed", talk.now, 0.0)
    assert talk.breaker.state_of() is DISABLED
    talk.breaker.command(Verb.METRICS_ONLY, FOREVER, "0:root", "", talk.now)
    talk.breaker.trip("its probe failed", talk.now, 0.0)
    assert (talk.breaker.state_of(), talk.breaker.would_open_total) == (METRICS_ONLY, 1)
    talk.breaker.command(Verb.RESET, FOREVER, "0:root", "", talk.now)
    talk.breaker.trip("its probe failed", talk.now, 0.5)
    assert (talk.breaker.state_of(), talk.breaker.until) == (OPEN, talk.now + 30.0 * 1.05)
