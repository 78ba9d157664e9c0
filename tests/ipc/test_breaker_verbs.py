"""What operators tell a breaker, and how manual states end."""

from __future__ import annotations

import pytest

from ipc.breaker import Manual, Totals
from ipc.layout import unpack_row
from ipc.vocabulary import (
    FOREVER,
    BreakerSettings,
    BreakerState,
    TimeWindow,
    Verb,
)
from tests.ipc.conversation import FAILURE, Talk

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
METRICS_ONLY = BreakerState.METRICS_ONLY
RATE = BreakerSettings(failure_threshold=None, minimum_calls=20, window=TimeWindow(30.0))


@pytest.mark.parametrize(
    ("verb", "state", "after"),
    [
        (Verb.FORCE_OPEN, FORCED_OPEN, HALF_OPEN),
        (Verb.DISABLE, DISABLED, CLOSED),
        (Verb.METRICS_ONLY, METRICS_ONLY, CLOSED),
    ],
)
@pytest.mark.parametrize("by_itself", [True, False])
@pytest.mark.parametrize("first", [None, Verb.FORCE_OPEN, Verb.DISABLE, Verb.METRICS_ONLY, OPEN])
def test_manual_states_end_by_themselves_or_by_verb(
    verb: Verb, state: BreakerState, after: BreakerState, by_itself: bool, first: Verb | BreakerState | None
) -> None:
    """Whatever was before: each lasts as long as it was told, names who and why, and goes where it must."""
    talk = Talk(parties="a")
    if isinstance(first, Verb):
        talk.breaker.command(first, talk.now + 5.0, "7:ann", "", talk.now)
    elif first is OPEN:
        talk.open()
    until = talk.now + 60.0 if by_itself else FOREVER
    talk.breaker.command(verb, until, "0:root", "maintenance", talk.now)
    assert talk.breaker.state_of("a") is state
    assert talk.breaker.manual == Manual("0:root", "maintenance", until)
    talk.later(59.0)
    assert talk.breaker.state_of("a") is state
    if by_itself:
        assert talk.breaker.next_time() == until
        talk.later(1.0)
    else:
        assert talk.breaker.next_time() == FOREVER
        talk.breaker.command(Verb.ENABLE, FOREVER, "0:root", "", talk.now)
    assert talk.breaker.state_of("a") is after
    assert talk.breaker.manual is None


def test_the_same_verb_again_only_changes_who_and_how_long() -> None:
    """No new generation: nothing that is admitted changes."""
    talk = Talk(parties="a")
    talk.breaker.command(Verb.DISABLE, talk.now + 5.0, "0:root", "one", talk.now)
    talk.breaker.command(Verb.DISABLE, talk.now + 50.0, "7:ann", "two", talk.now)
    assert len(talk.breaker.take_transitions()) == 1
    assert talk.breaker.manual == Manual("7:ann", "two", talk.now + 50.0)
    talk.later(49.0)
    assert talk.breaker.state_of() is DISABLED
    talk.later(1.0)
    assert talk.breaker.state_of() is CLOSED


def test_enable_without_a_manual_state_does_nothing() -> None:
    """It ends what a verb began, not what outcomes did."""
    talk = Talk(parties="a")
    talk.open()
    talk.breaker.take_transitions()
    talk.breaker.command(Verb.ENABLE, FOREVER, "0:root", "", talk.now)
    assert (talk.breaker.state_of(), talk.breaker.take_transitions()) == (OPEN, [])


@pytest.mark.parametrize("verb", [Verb.FORCE_OPEN, Verb.DISABLE])
def test_forced_and_disabled_feed_no_window(verb: Verb) -> None:
    """And what was in it before is gone: the breaker begins anew."""
    talk = Talk(RATE, "a")
    talk.fail("a", 19)
    talk.breaker.command(verb, talk.now + 10.0, "0:root", "", talk.now)
    talk.call("a", FAILURE, times=100)
    assert talk.breaker.totals == Totals(0, 0, 0)
    assert talk.breaker.state_of() is (FORCED_OPEN if verb is Verb.FORCE_OPEN else DISABLED)


def test_after_a_forced_opening_trials_decide() -> None:
    """And a failing one opens it for its first open time, as any other."""
    talk = Talk(parties="a")
    talk.breaker.command(Verb.FORCE_OPEN, talk.now + 10.0, "0:root", "", talk.now)
    assert unpack_row(talk.breaker.word("a"))[2] == talk.now + 10.0
    talk.later(10.0)
    talk.trial("a", FAILURE)
    assert talk.breaker.state_of() is OPEN


def test_metrics_only_tells_what_would_have_been() -> None:
    """An event and a counter for each opening that could have happened; the state stays."""
    talk = Talk(parties="ab")
    talk.breaker.command(Verb.METRICS_ONLY, FOREVER, "0:root", "", talk.now)
    talk.breaker.take_transitions()
    talk.fail("a", 50)
    (would,) = talk.breaker.take_transitions()
    assert (would.old, would.new, would.generation) == (METRICS_ONLY, METRICS_ONLY, 1)
    assert would.cause == "would have opened: 5 failures in a row"
    assert (talk.breaker.would_open_total, talk.breaker.opened_total) == (1, 0)
    talk.later(30.0)
    talk.fail("a", 50)
    assert talk.breaker.would_open_total == 2


def test_metrics_only_tells_whom_it_would_have_isolated() -> None:
    """A worker alone, with its name as the scope."""
    talk = Talk(parties="abc")
    talk.breaker.command(Verb.METRICS_ONLY, FOREVER, "0:root", "", talk.now)
    talk.breaker.take_transitions()
    for _ in range(20):
        talk.fail("a")
        talk.succeed("b")
        talk.succeed("c")
    (would,) = talk.breaker.take_transitions()
    assert would.scope == "a"
    assert would.cause.startswith("would have opened for this worker alone: 5 failures in a row")
    assert talk.breaker.state_of("a") is METRICS_ONLY


def test_metrics_only_keeps_the_windows() -> None:
    """On the way in from CLOSED, and on the way out: the next failure finds the run as it was."""
    talk = Talk(parties="a")
    talk.fail("a", 3)
    talk.breaker.command(Verb.METRICS_ONLY, talk.now + 1.0, "0:root", "", talk.now)
    talk.fail("a")
    talk.later(1.0)
    assert (talk.breaker.state_of(), talk.breaker.totals) == (CLOSED, Totals(4, 4, 0))
    talk.fail("a")
    assert talk.breaker.state_of() is OPEN


def test_a_reset_forgets_everything() -> None:
    """Closed, windows empty, growth back to none; calls in flight do not fill them again."""
    talk = Talk(BreakerSettings(successes_to_close=1), "a")
    talk.half_open()
    talk.trial("a", FAILURE)
    talk.breaker.command(Verb.RESET, FOREVER, "0:root", "fixed", talk.now)
    assert talk.breaker.take_transitions()[-1].cause == "reset by 0:root: fixed"
    talk.call("a", FAILURE, times=9, generation=talk.breaker.generation - 1)
    assert (talk.breaker.state_of(), talk.breaker.totals) == (CLOSED, Totals(0, 0, 0))
    talk.open()
    assert talk.breaker.until - talk.now == 30.0


def test_a_reset_of_a_closed_breaker_is_a_new_generation() -> None:
    """So that what was in flight is old."""
    talk = Talk(parties="a")
    talk.fail("a", 4)
    talk.breaker.command(Verb.RESET, FOREVER, "0:root", "", talk.now)
    assert (talk.breaker.generation, talk.breaker.host_run) == (1, 0)
    assert talk.moves() == [("", CLOSED, CLOSED)]
