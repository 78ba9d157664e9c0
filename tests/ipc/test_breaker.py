"""One breaker as its engine meets it: opening, judging only what is current, verbs, settings, keeping."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ipc.breaker import Totals
from ipc.layout import unpack_row
from ipc.vocabulary import (
    FAILURES,
    FOREVER,
    SUCCESSES,
    BreakerSettings,
    BreakerState,
    OutcomeKind,
    TimeWindow,
    Verb,
)
from tests.ipc.conversation import FAILURE, SUCCESS, Talk

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
METRICS_ONLY = BreakerState.METRICS_ONLY
RATE = BreakerSettings(failure_threshold=None, minimum_calls=20, window=TimeWindow(30.0))


# --- opening ----------------------------------------------------------------------------------------


def test_failures_in_a_row_open_it_for_all() -> None:
    """Whoever they are of: the fifth in a row opens, and its open time begins there."""
    talk = Talk(parties="abc")
    for party in "abca":
        talk.fail(party)
    assert (talk.breaker.state_of(), talk.breaker.host_run) == (CLOSED, 4)
    talk.fail("b", chance=0.5)
    (moved,) = talk.breaker.take_transitions()
    assert (moved.scope, moved.old, moved.new, moved.generation) == ("", CLOSED, OPEN, 1)
    assert (moved.cause, moved.party) == ("5 failures in a row", "b")
    assert talk.breaker.until == talk.now + 30.0 * 1.05
    assert unpack_row(talk.breaker.word("c"))[:2] == (OPEN, 1)
    assert unpack_row(talk.breaker.word("c"))[2] == pytest.approx(talk.breaker.until, abs=1 / 1024)
    assert talk.breaker.opened_total == 1


def test_a_success_of_anybody_ends_the_run() -> None:
    """Failures are consecutive for the host, not for a worker."""
    talk = Talk(parties="ab")
    talk.fail("a", 4)
    talk.succeed("b")
    assert talk.breaker.host_run == 0
    talk.fail("a", 2)
    talk.fail("b", 2)
    assert talk.breaker.state_of() is CLOSED


def test_a_success_that_ended_before_the_run_does_not_end_it() -> None:
    """It comes late, from a hole in a ring: the failures after it still stand."""
    talk = Talk(parties="ab")
    talk.fail("a", 4)
    talk.call("b", SUCCESS, ago=2.0)
    assert talk.breaker.host_run == 4
    talk.fail("b")
    assert talk.breaker.state_of() is OPEN


def test_a_failure_that_ended_before_the_last_success_is_not_of_the_run() -> None:
    """It comes late, and a success has answered it."""
    talk = Talk(parties="ab")
    talk.succeed("b")
    for _ in range(5):
        talk.call("a", FAILURE, ago=2.0)
    assert (talk.breaker.host_run, talk.breaker.state_of()) == (0, CLOSED)


@pytest.mark.parametrize("kind", OutcomeKind)
def test_each_kind_counts_as_what_it_is(kind: OutcomeKind) -> None:
    """Failures open, successes end the run, everything else is as if it had not been."""
    talk = Talk(parties="a")
    talk.fail("a", 4)
    talk.call("a", kind)
    expected = 5 if kind in FAILURES else 0 if kind in SUCCESSES else 4
    assert talk.breaker.host_run == expected
    assert talk.breaker.state_of() is (OPEN if kind in FAILURES else CLOSED)


def test_a_rate_opens_from_minimum_calls_on() -> None:
    """Half of 20 calls failed: not one call earlier."""
    talk = Talk(RATE, "a")
    for _ in range(9):
        talk.succeed("a")
        talk.fail("a")
    talk.fail("a")
    assert talk.breaker.totals == Totals(19, 10, 0)
    assert talk.breaker.state_of() is CLOSED
    talk.succeed("a")
    assert talk.breaker.state_of() is OPEN
    assert talk.breaker.take_transitions()[0].cause == "10 of 20 calls failed (limit 0.5)"


def test_a_rate_is_asked_where_it_is_largest() -> None:
    """In a run of successes that is where minimum_calls is reached, though the run ends below the rate."""
    together, apart = Talk(RATE, "a"), Talk(RATE, "a")
    for talk in (together, apart):
        talk.fail("a", 10)
    together.call("a", SUCCESS, times=500)
    for _ in range(10):
        apart.call("a", SUCCESS)
    assert together.breaker.state_of() is OPEN
    assert together.breaker.take_transitions() == apart.breaker.take_transitions()


def test_a_run_of_successes_below_the_rate_is_only_counted() -> None:
    """However long it is."""
    talk = Talk(RATE, "a")
    talk.fail("a", 9)
    talk.call("a", SUCCESS, times=100_000)
    assert (talk.breaker.state_of(), talk.breaker.totals) == (CLOSED, Totals(100_009, 9, 0))


def test_slow_calls_have_a_rate_of_their_own() -> None:
    """Slow successes and slow failures count in it; quick failures do not."""
    slow = replace(RATE, failure_rate=None, slow_call_s=1.0, slow_call_rate=0.5, minimum_calls=4)
    talk = Talk(slow, "ab")
    talk.call("a", FAILURE, 3)
    talk.call("a", OutcomeKind.SLOW_SUCCESS)
    talk.call("a", OutcomeKind.SLOW_FAILURE)
    assert talk.breaker.totals == Totals(5, 4, 2)
    talk.call("b", OutcomeKind.SLOW_SUCCESS)
    assert talk.breaker.take_transitions()[0].cause == "3 of 6 calls were slow (limit 0.5)"


def test_what_is_older_than_the_window_is_only_counted() -> None:
    """An outcome is placed by its end: too old to be inside, it touches no rule at all."""
    talk = Talk(BreakerSettings(window=TimeWindow(8.0)), "a")
    talk.call("a", FAILURE, times=100, ago=8.0)
    assert (talk.breaker.totals, talk.breaker.host_run) == (Totals(0, 0, 0), 0)


def test_what_ends_in_the_future_ends_now() -> None:
    """A worker's clock that is ahead keeps no outcome in the window for longer."""
    talk = Talk(BreakerSettings(window=TimeWindow(8.0)), "a")
    talk.call("a", FAILURE, ago=-100.0)
    talk.later(8.0)
    assert talk.breaker.totals == Totals(0, 0, 0)


def test_rules_can_be_turned_off() -> None:
    """Without rules nothing opens."""
    talk = Talk(BreakerSettings(failure_threshold=None, failure_rate=None), "a")
    talk.fail("a", 500)
    assert (talk.breaker.state_of(), talk.breaker.host_run) == (CLOSED, 500)


def test_an_opening_uses_the_window_up() -> None:
    """No outcome decides twice: after recovery the rate begins with nothing."""
    talk = Talk(replace(RATE, successes_to_close=1), "a")
    talk.fail("a", 20)
    assert talk.breaker.totals == Totals(0, 0, 0)
    talk.later(30.0)
    talk.trial("a", SUCCESS)
    talk.fail("a", 19)
    assert talk.breaker.state_of() is CLOSED


# --- generations ------------------------------------------------------------------------------------


def test_what_comes_later_than_a_decision_decides_nothing() -> None:
    """Calls in flight at an opening neither count in the next window nor end a trial."""
    talk = Talk(parties="a")
    talk.half_open()
    talk.call("a", FAILURE, times=50, generation=0)
    talk.call("a", SUCCESS, times=50, generation=0)
    assert (talk.breaker.state_of(), talk.breaker.trials_passed) == (HALF_OPEN, 0)


def test_a_generation_that_looks_like_the_present_one_is_told_by_its_end() -> None:
    """15 generations apart two look the same in an outcome: what ended before this one began is not of it."""
    talk = Talk(parties="a")
    for _ in range(15):
        talk.breaker.command(Verb.RESET, FOREVER, "0:root", "", talk.now)
    assert talk.generation("a") == 15
    talk.later(10.0)
    talk.call("a", FAILURE, times=5, ago=11.0, generation=0)
    assert talk.breaker.host_run == 0
    talk.call("a", FAILURE, times=4, generation=15)
    assert talk.breaker.host_run == 4


def test_every_move_takes_the_next_generation() -> None:
    """Of whichever circuit, for whichever reason."""
    talk = Talk(parties="abc")
    talk.half_open()
    talk.trial("b", SUCCESS)
    talk.trial("c", SUCCESS)
    talk.trial("a", FAILURE)
    talk.breaker.command(Verb.DISABLE, FOREVER, "0:root", "", talk.now)
    talk.breaker.command(Verb.ENABLE, FOREVER, "0:root", "", talk.now)
    talk.breaker.command(Verb.RESET, FOREVER, "0:root", "", talk.now)
    generations = [moved.generation for moved in talk.breaker.take_transitions()]
    assert generations == [3, 4, 5, 6, 7]


# --- opening again, growth --------------------------------------------------------------------------


def test_the_open_time_grows_with_failed_recoveries_and_shrinks_with_time() -> None:
    """30, 60, 120, 240, 300, 300 s; each full 30 s spent CLOSED takes one step back."""
    talk = Talk(BreakerSettings(successes_to_close=1), "a")
    talk.open()
    lasted = []
    for _ in range(6):
        lasted.append(talk.breaker.until - talk.now)
        talk.later(lasted[-1])
        talk.trial("a", FAILURE)
    assert lasted == [30.0, 60.0, 120.0, 240.0, 300.0, 300.0]
    talk.later(300.0)
    talk.trial("a", SUCCESS)
    talk.later(65.0)
    talk.open()
    assert talk.breaker.until - talk.now == 120.0


def test_time_alone_ends_the_open_state_and_says_when() -> None:
    """`next_time` is when; not a moment earlier."""
    talk = Talk(parties="a")
    talk.open()
    due = talk.breaker.next_time()
    assert due == talk.breaker.until
    talk.breaker.advance(due - 1e-6, 0.0)
    assert talk.breaker.state_of() is OPEN
    talk.breaker.advance(due, 0.0)
    assert talk.breaker.state_of() is HALF_OPEN


def test_a_quiet_breaker_needs_no_time() -> None:
    """CLOSED, it never asks to be told."""
    talk = Talk(parties="a")
    talk.fail("a", 4)
    assert talk.breaker.next_time() == FOREVER


def test_the_clock_never_runs_backwards() -> None:
    """A `now` that is smaller than an earlier one is taken as that."""
    talk = Talk(parties="a")
    talk.open()
    talk.breaker.advance(talk.breaker.until, 0.0)
    talk.breaker.advance(0.0, 0.0)
    assert talk.breaker.ask("a", 1, 0.0) is not None
    assert talk.breaker.next_time() >= talk.breaker.since
