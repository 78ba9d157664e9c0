"""One bad worker does not poison the host, and an outage is not mistaken for one bad worker."""

from __future__ import annotations

import pytest

from ipc.breaker import Totals
from ipc.layout import unpack_row
from ipc.vocabulary import FOREVER, BreakerSettings, BreakerState, OutcomeKind, TimeWindow, Verb
from tests.ipc.conversation import FAILURE, SUCCESS, Caller, Talk, traffic

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
RATE = BreakerSettings(failure_threshold=None, minimum_calls=20, window=TimeWindow(30.0))


def well(_: float) -> bool:
    """A worker whose calls succeed."""
    return False


def sick(_: float) -> bool:
    """A worker whose calls fail."""
    return True


def isolate(talk: Talk, party: str = "a", peer: str = "b", threshold: int = 5) -> None:
    """Let a worker fail while a peer succeeds, until it is isolated."""
    for _ in range(threshold):
        talk.succeed(peer)
        talk.fail(party)
    assert talk.breaker.state_of(party) is OPEN
    assert talk.breaker.state_of() is CLOSED


# --- whole stories ----------------------------------------------------------------------------------


def test_one_sick_worker_of_four_at_equal_rates() -> None:
    """It is isolated at its fifth failure; its peers are never refused."""
    talk = Talk(parties="abcd")
    callers = {name: Caller(0.1, sick if name == "a" else well) for name in "abcd"}
    moved = traffic(talk, callers, 300.0)
    assert (moved[0].scope, moved[0].new, moved[0].party) == ("a", OPEN, "a")
    assert {move.scope for move in moved} == {"a"}
    assert talk.breaker.opened_total == 0
    assert callers["a"].seen["CLOSED"] == 5
    assert all(set(callers[name].seen) == {"CLOSED"} for name in "bcd")


@pytest.mark.parametrize("quiet_s", [0.25, 1.0, 5.0])
@pytest.mark.parametrize("seconds_before", [0.0, 60.0])
def test_one_that_fails_a_hundred_times_faster_than_quiet_peers_call(
    quiet_s: float, seconds_before: float
) -> None:
    """The breaker opens wrongly once, heals in half-open, and only the bad worker stays out."""
    talk = Talk(parties="abcd")
    start = talk.now + seconds_before
    callers = {name: Caller(quiet_s, well) for name in "bcd"}
    callers["a"] = Caller(quiet_s / 100, lambda now: now >= start)
    moved = traffic(talk, callers, seconds_before + 400.0)
    assert [move.new for move in moved if not move.scope] == [OPEN, HALF_OPEN, CLOSED]
    assert talk.breaker.opened_total == 1
    assert list(talk.breaker.isolated) == ["a"]
    assert talk.breaker.state_of("b") is CLOSED


def test_three_of_four_sick() -> None:
    """Two are isolated; with the third it would be more than half: the breaker opens for all."""
    talk = Talk(parties="abcd")
    callers = {name: Caller(0.1, well if name == "d" else sick) for name in "abcd"}
    moved = traffic(talk, callers, 20.0)
    assert [(move.scope, move.new) for move in moved] == [("a", OPEN), ("b", OPEN), ("", OPEN)]
    assert moved[-1].cause.endswith("more than half of the workers would be isolated")
    assert talk.breaker.isolated == {}


def test_all_sick() -> None:
    """That is what an outage looks like: the fifth failure of anybody opens for all."""
    talk = Talk(parties="abcd")
    callers = {name: Caller(0.1, sick) for name in "abcd"}
    moved = traffic(talk, callers, 20.0)
    assert [(move.scope, move.new) for move in moved] == [("", OPEN)]
    assert sum(caller.seen["CLOSED"] for caller in callers.values()) == 5


def test_an_outage_and_its_end() -> None:
    """All are refused together and come back together; nobody is isolated by it."""
    talk = Talk(parties="abcd")
    callers = {name: Caller(0.1, lambda now: 110.0 < now < 150.0) for name in "abcd"}
    moved = traffic(talk, callers, 300.0)
    assert [move.new for move in moved] == [OPEN, HALF_OPEN, OPEN, HALF_OPEN, CLOSED]
    assert {move.scope for move in moved} == {""}


def test_an_isolated_worker_comes_back_when_it_is_well() -> None:
    """Its own trials close its own circuit, and then it follows the host again."""
    talk = Talk(parties="abcd")
    callers = {name: Caller(0.1, well) for name in "bcd"}
    callers["a"] = Caller(0.1, lambda now: now < 120.0)
    moved = traffic(talk, callers, 100.0)
    assert [(move.scope, move.new) for move in moved] == [("a", OPEN), ("a", HALF_OPEN), ("a", CLOSED)]
    assert talk.breaker.word("a") == talk.breaker.word("b")


# --- own runs ---------------------------------------------------------------------------------------


def test_a_peers_success_must_have_ended_between_the_failures() -> None:
    """One from before they began is no evidence: the breaker opens for all."""
    talk = Talk(parties="ab")
    talk.succeed("b", 10)
    talk.fail("a", 5)
    assert talk.moves() == [("", CLOSED, OPEN)]


def test_one_success_of_a_peer_between_them_is_enough() -> None:
    """The worker is isolated; its row shows its own circuit, the others' rows the host's."""
    talk = Talk(parties="ab")
    talk.fail("a", 4)
    talk.succeed("b")
    talk.fail("a")
    (moved,) = talk.breaker.take_transitions()
    assert (moved.scope, moved.old, moved.new, moved.party) == ("a", CLOSED, OPEN, "a")
    assert moved.cause == "5 failures in a row of one worker while others succeeded"
    assert unpack_row(talk.breaker.word("a"))[:2] == (OPEN, 1)
    assert unpack_row(talk.breaker.word("b"))[:2] == (CLOSED, 0)
    assert (talk.breaker.isolated_total, talk.breaker.opened_total) == (1, 0)


def test_a_success_that_arrives_between_but_ended_before_is_no_evidence() -> None:
    """Ends decide, not arrivals."""
    talk = Talk(parties="ab")
    talk.now += 10.0
    talk.fail("a", 2)
    talk.call("b", SUCCESS, ago=5.0)
    talk.fail("a", 3)
    assert talk.moves() == [("", CLOSED, OPEN)]


def test_a_success_in_the_same_instant_as_the_first_failure_is_no_evidence() -> None:
    """It did not end between the failures."""
    talk = Talk(BreakerSettings(failure_threshold=2), "abc")
    talk.call("a", FAILURE)
    talk.call("b", SUCCESS)
    talk.fail("a")
    assert talk.breaker.isolated == {}


def test_its_own_success_is_no_evidence_and_ends_the_run() -> None:
    """A worker that succeeds now and then is not failing in a row."""
    talk = Talk(BreakerSettings(failure_rate=None), "ab")
    for _ in range(20):
        talk.fail("a", 2)
        talk.succeed("b")
        talk.succeed("a")
    assert talk.moves() == []


def test_what_an_isolated_worker_did_leaves_the_shared_window() -> None:
    """And the host's run; what it still reports of calls in flight is only counted."""
    talk = Talk(parties="abc")
    talk.fail("a", 3)
    talk.succeed("b")
    talk.fail("a", 2)
    assert (talk.breaker.totals, talk.breaker.host_run) == (Totals(1, 0, 0), 0)
    talk.call("a", FAILURE, times=50, generation=0)
    assert (talk.breaker.totals, talk.breaker.host_run) == (Totals(1, 0, 0), 0)
    talk.fail("b", 4)
    assert talk.breaker.state_of() is CLOSED
    talk.fail("c")
    assert talk.breaker.state_of() is OPEN


def test_isolated_workers_count_as_workers_with_outcomes() -> None:
    """Of two workers one may be isolated, and not the other with it."""
    talk = Talk(parties="ab")
    isolate(talk)
    talk.fail("b", 5)
    assert talk.moves()[-1] == ("", CLOSED, OPEN)
    assert talk.breaker.isolated == {}


def test_workers_without_outcomes_do_not_count() -> None:
    """A hundred idle workers are no majority."""
    talk = Talk(parties="abcdefghijklmnopqrstuvwxyz")
    for _ in range(4):
        for party in "abcd":
            talk.fail(party)
        talk.succeed("d")
    for party in "abcd":
        talk.fail(party)
    assert talk.breaker.state_of() is OPEN


# --- rates ------------------------------------------------------------------------------------------


def test_a_rate_that_holds_without_its_worst_worker_opens_for_all() -> None:
    """Everybody fails half of the time."""
    talk = Talk(RATE, "abcd")
    for _ in range(3):
        for party in "abcd":
            talk.fail(party)
            talk.succeed(party)
    assert talk.moves() == [("", CLOSED, OPEN)]


def test_a_rate_that_one_worker_makes_isolates_it() -> None:
    """The others' part of the window stays."""
    talk = Talk(RATE, "abc")
    talk.succeed("b", 5)
    talk.succeed("c", 4)
    talk.succeed("a")
    talk.fail("a", 10)
    (moved,) = talk.breaker.take_transitions()
    cause = "10 of 20 calls failed (limit 0.5), too many of them of one worker"
    assert (moved.scope, moved.cause) == ("a", cause)
    assert talk.breaker.totals == Totals(9, 0, 0)


def test_the_worst_worker_may_be_another_than_the_one_that_just_called() -> None:
    """A peer's success that makes up the minimum may be what isolates it."""
    talk = Talk(RATE, "abc")
    talk.fail("a", 12)
    talk.succeed("c", 4)
    talk.succeed("b", 4)
    assert talk.moves() == [("a", CLOSED, OPEN)]


def test_a_rate_of_one_worker_alone_opens_for_all() -> None:
    """Nobody else can say that the dependency is well."""
    talk = Talk(RATE, "abc")
    talk.fail("a", 20)
    assert talk.moves() == [("", CLOSED, OPEN)]


def test_the_slow_rate_isolates_too() -> None:
    """A worker that alone is slow is alone refused."""
    slow = BreakerSettings(failure_rate=None, slow_call_s=1.0, slow_call_rate=0.5, minimum_calls=8)
    talk = Talk(slow, "abc")
    talk.succeed("b", 2)
    talk.succeed("c", 2)
    talk.call("a", OutcomeKind.SLOW_SUCCESS, times=4)
    assert talk.moves() == [("a", CLOSED, OPEN)]


def test_a_dead_worker_is_not_isolated() -> None:
    """What it did leaves the window instead, and the others go on."""
    talk = Talk(RATE, "abc")
    talk.fail("a", 12)
    talk.breaker.leave("a", talk.now)
    talk.succeed("b", 4)
    assert talk.breaker.totals == Totals(16, 12, 0)
    talk.succeed("c", 4)
    assert (talk.moves(), talk.breaker.totals) == ([], Totals(8, 0, 0))


# --- how isolation ends -----------------------------------------------------------------------------


def test_an_isolated_circuit_has_its_own_open_time_and_growth() -> None:
    """By the same table as the host's."""
    talk = Talk(parties="ab")
    isolate(talk)
    until = talk.breaker.isolated["a"].until
    assert until - talk.now == 30.0
    assert talk.breaker.next_time() == until
    talk.later(30.0)
    talk.trial("a", FAILURE, chance=0.5)
    assert talk.breaker.isolated["a"].until - talk.now == 60.0 * 1.05
    assert talk.breaker.state_of("b") is CLOSED


def test_an_isolated_circuit_closes_after_its_own_trials() -> None:
    """It is dissolved, and the worker is judged with the others again."""
    talk = Talk(parties="ab")
    isolate(talk)
    talk.later(30.0)
    for _ in range(3):
        talk.trial("a", SUCCESS)
    assert talk.moves()[-1] == ("a", HALF_OPEN, CLOSED)
    assert talk.breaker.isolated == {}
    talk.fail("a", 4)
    assert talk.breaker.host_run == 4


@pytest.mark.parametrize("verb", [Verb.FORCE_OPEN, Verb.DISABLE, Verb.METRICS_ONLY, Verb.RESET])
def test_a_verb_is_for_everybody(verb: Verb) -> None:
    """Isolated circuits are dissolved by it."""
    talk = Talk(parties="ab")
    isolate(talk)
    talk.breaker.command(verb, FOREVER, "0:root", "", talk.now)
    assert talk.breaker.isolated == {}
    assert talk.breaker.word("a") == talk.breaker.word("b")


def test_an_opening_is_for_everybody() -> None:
    """The isolated worker follows the host again, and its next trial is a host's trial."""
    talk = Talk(parties="abc")
    isolate(talk)
    talk.fail("b", 3)
    talk.fail("c", 2)
    assert (talk.breaker.isolated, talk.breaker.state_of("a")) == ({}, OPEN)
    assert talk.breaker.word("a") == talk.breaker.word("b")


def test_an_isolated_worker_stays_a_suspect_when_all_open() -> None:
    """In the host's trials it lets the others go first, and its next failure isolates it again."""
    talk = Talk(parties="abcd")
    isolate(talk)
    talk.fail("c", 5)
    assert talk.breaker.state_of() is OPEN
    talk.later(30.0)
    assert [talk.permits(party) for party in "abcd"] == [False, True, False, True]
    talk.trial("b", SUCCESS)
    talk.trial("d", SUCCESS)
    talk.trial("c", SUCCESS)
    talk.moves()
    talk.fail("a")
    assert talk.moves() == [("a", CLOSED, OPEN)]


def test_a_dead_worker_takes_its_isolation_along() -> None:
    """And its own run, so that nothing is kept of whoever is gone."""
    talk = Talk(parties="ab")
    isolate(talk)
    talk.breaker.leave("a", talk.now)
    assert (talk.breaker.isolated, talk.breaker.evidence.runs) == ({}, {})
