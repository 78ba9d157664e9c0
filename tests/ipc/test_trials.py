"""Trial permits: leases, turns, how trials end, and how a wrong opening heals."""

from __future__ import annotations

import pytest

from ipc.breaker import Grant
from ipc.layout import unpack_row
from ipc.vocabulary import FOREVER, BreakerSettings, BreakerState, OutcomeKind, Verb
from tests.ipc.conversation import FAILURE, SUCCESS, Talk

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


# --- permits are leases -----------------------------------------------------------------------------


def test_a_permit_is_for_one_trial_until_its_deadline() -> None:
    """trial_timeout and one second, in the generation of the half-open period."""
    talk = Talk(parties="abc")
    talk.half_open()
    grant = talk.granted("b")
    assert grant == Grant(1, 2, talk.now + 11.0)
    assert list(talk.breaker.leases) == [1]
    talk.end("b", grant, SUCCESS)
    assert (dict(talk.breaker.leases), talk.breaker.trials_passed) == ({}, 1)


@pytest.mark.parametrize("state", [s for s in BreakerState if s is not HALF_OPEN])
def test_permits_are_given_in_half_open_only(state: BreakerState) -> None:
    """A worker whose view is old is refused."""
    talk = Talk(parties="a")
    talk.breaker.adopt(state, talk.now + 100.0, talk.now)
    assert talk.ask("a") is None
    assert not talk.permits("a")


def test_a_question_after_the_open_time_begins_the_trials() -> None:
    """Though nobody has told the breaker the time before."""
    talk = Talk(parties="ab")
    talk.open("a")
    talk.now = talk.breaker.until
    assert talk.ask("b") is not None
    assert talk.breaker.state_of() is HALF_OPEN


def test_the_same_question_gets_the_same_permit() -> None:
    """A lost answer is asked for again, and no second permit is given out."""
    talk = Talk(parties="abc")
    talk.half_open()
    first = talk.ask("b", ask=7)
    talk.later(0.125)
    assert talk.ask("b", ask=7) == first
    assert len(talk.breaker.leases) == 1
    assert talk.ask("c", ask=7) != first


def test_a_question_whose_trial_is_over_is_not_answered_again() -> None:
    """One question, one effect."""
    talk = Talk(BreakerSettings(permitted_trials=1), "bc")
    talk.half_open("c")
    grant = talk.ask("b", ask=7)
    assert grant is not None
    talk.end("b", grant, SUCCESS)
    assert talk.ask("b", ask=7) is None


def test_a_permit_that_was_not_delivered_is_free_at_once() -> None:
    """As if it had not been given: the same question may get another, and the turn is not used up."""
    talk = Talk(BreakerSettings(permitted_trials=1), "abc")
    talk.half_open()
    grant = talk.ask("b", ask=7)
    assert grant is not None
    talk.breaker.give_back("c", grant.permit, talk.now)
    assert talk.ask("c") is None
    talk.breaker.give_back("b", grant.permit, talk.now)
    talk.breaker.give_back("b", grant.permit, talk.now)
    again = talk.ask("b", ask=7)
    assert again is not None
    assert again.permit != grant.permit
    assert talk.breaker.state_of() is HALF_OPEN


def test_no_more_trials_in_flight_than_permitted() -> None:
    """Over all circuits of the breaker together: an isolated worker's trial takes one of the host's."""
    talk = Talk(BreakerSettings(permitted_trials=2, recovery_timeout=5.0), "abcde")
    for _ in range(5):
        talk.succeed("b")
        talk.fail("a")
        talk.succeed("c")
        talk.fail("d")
    assert sorted(talk.breaker.isolated) == ["a", "d"]
    talk.later(5.0)
    first = talk.granted("a")
    assert talk.ask("d") is not None
    assert talk.ask("a") is None
    assert not talk.permits("d")
    talk.end("a", first, SUCCESS)
    assert talk.permits("a")


def test_an_old_trial_in_flight_takes_its_place_until_it_ends() -> None:
    """Also after its half-open period: the calls on the way are never more than permitted."""
    talk = Talk(BreakerSettings(permitted_trials=2, recovery_timeout=1.0, trial_timeout=60.0), "abc")
    talk.half_open()
    hung, failing = talk.granted("b"), talk.granted("c")
    talk.end("c", failing, FAILURE)
    talk.later(5.0)
    assert talk.breaker.state_of() is HALF_OPEN
    other = talk.granted("a")
    assert [talk.ask(party) for party in "abc"] == [None, None, None]
    talk.end("b", hung, FAILURE)
    assert talk.breaker.state_of() is HALF_OPEN
    assert talk.permits("b")
    talk.end("a", other, SUCCESS)
    assert talk.breaker.trials_passed == 1


def test_live_permits_never_share_their_six_bits() -> None:
    """However many were given in between."""
    talk = Talk(BreakerSettings(permitted_trials=3, successes_to_close=1000), "abc")
    talk.half_open("a")
    talk.later(10.0)
    kept = talk.granted("b")
    for _ in range(200):
        talk.later(0.03125)
        other = talk.ask("c")
        if other is not None:
            assert other.permit % 64 != kept.permit % 64
            talk.end("c", other, OutcomeKind.IGNORED)
    assert kept.permit in talk.breaker.leases


# --- how trials end ---------------------------------------------------------------------------------


def test_enough_passed_trials_close_it() -> None:
    """Whoever made them."""
    talk = Talk(parties="abc")
    talk.half_open()
    for party in "bc":
        talk.trial(party, SUCCESS)
    talk.trial("a", SUCCESS)
    (moved,) = talk.breaker.take_transitions()
    assert (moved.old, moved.new, moved.cause) == (HALF_OPEN, CLOSED, "3 trials succeeded")
    assert unpack_row(talk.breaker.word("a"))[:3] == (CLOSED, 3, 0.0)


@pytest.mark.parametrize("kind", [OutcomeKind.IGNORED, OutcomeKind.CANCELLED])
def test_a_trial_that_proves_nothing_gives_its_permit_back(kind: OutcomeKind) -> None:
    """It neither passed nor failed."""
    talk = Talk(BreakerSettings(permitted_trials=1), "abc")
    talk.half_open()
    talk.trial("b", kind)
    assert (talk.breaker.state_of(), talk.breaker.trials_passed) == (HALF_OPEN, 0)
    assert talk.ask("c") is not None


@pytest.mark.parametrize("kind", [OutcomeKind.FAILURE, OutcomeKind.SLOW_FAILURE, OutcomeKind.CANCELLED_LATE])
def test_every_kind_of_failure_fails_a_trial(kind: OutcomeKind) -> None:
    """A call that was cancelled late is how most programs meet a hung dependency."""
    talk = Talk(parties="ab")
    talk.half_open()
    talk.trial("b", kind)
    assert talk.breaker.state_of() is OPEN


def test_an_abandoned_trial_gives_its_permit_to_the_next() -> None:
    """Its holder is dead: that is neither a success nor a failure."""
    talk = Talk(BreakerSettings(permitted_trials=1), "abc")
    talk.half_open()
    talk.granted("b")
    assert talk.ask("c") is None
    talk.breaker.leave("b", talk.now)
    assert talk.breaker.state_of() is HALF_OPEN
    assert talk.ask("c") is not None


def test_an_expired_trial_has_failed() -> None:
    """Its holder hangs: the breaker opens for longer instead of staying half-open for ever."""
    talk = Talk(parties="ab")
    talk.half_open()
    grant = talk.granted("b")
    assert talk.breaker.next_time() <= grant.lease_until
    talk.breaker.advance(grant.lease_until - 1e-6, 0.0)
    assert talk.breaker.state_of() is HALF_OPEN
    talk.breaker.advance(grant.lease_until, 0.0)
    (moved,) = talk.breaker.take_transitions()
    assert (moved.new, moved.cause, moved.party) == (OPEN, "a trial did not end in time", "b")
    assert talk.breaker.until - grant.lease_until == 60.0


def test_a_late_result_moves_nothing() -> None:
    """After the expiry, in the next half-open period, or twice: an old permit decides nothing."""
    talk = Talk(parties="abc")
    talk.half_open()
    late, also = talk.granted("b"), talk.granted("c")
    talk.later(11.0)
    assert talk.breaker.state_of() is OPEN
    talk.end("b", late, SUCCESS)
    talk.later(60.0)
    talk.end("b", late, SUCCESS)
    talk.end("c", also, FAILURE)
    assert (talk.breaker.state_of(), talk.breaker.trials_passed) == (HALF_OPEN, 0)
    fresh = talk.granted("c")
    talk.end("c", fresh, SUCCESS)
    talk.end("c", fresh, SUCCESS)
    assert talk.breaker.trials_passed == 1


def test_a_permit_is_its_holders_alone() -> None:
    """An outcome of another worker with the same six bits ends nothing."""
    talk = Talk(parties="abc")
    talk.half_open()
    grant = talk.granted("b")
    talk.end("c", grant, FAILURE)
    assert (talk.breaker.state_of(), list(talk.breaker.leases)) == (HALF_OPEN, [grant.permit])


def test_a_verb_ends_the_half_open_period() -> None:
    """The trials on the way are counted and decide nothing more."""
    talk = Talk(parties="ab")
    talk.half_open()
    grant = talk.granted("b")
    talk.breaker.command(Verb.RESET, FOREVER, "0:root", "", talk.now)
    talk.end("b", grant, FAILURE)
    assert talk.breaker.state_of() is CLOSED
    assert dict(talk.breaker.leases) == {}


def test_fewer_permitted_trials_wait_for_those_in_flight() -> None:
    """A smaller number takes nothing away that was given."""
    talk = Talk(parties="abcd")
    talk.half_open()
    first, _ = talk.granted("b"), talk.granted("c")
    talk.breaker.configure(BreakerSettings(permitted_trials=1), talk.now)
    assert len(talk.breaker.leases) == 2
    talk.end("b", first, SUCCESS)
    assert talk.ask("d") is None


# --- turns ------------------------------------------------------------------------------------------


def test_permits_go_to_different_workers_first() -> None:
    """A second one waits until everybody had one, or nobody asked for a quarter of a second."""
    talk = Talk(BreakerSettings(successes_to_close=10), "abc")
    talk.half_open("a")
    talk.later(10.0)
    talk.trial("b", SUCCESS)
    assert [talk.permits(party) for party in "abc"] == [True, False, True]
    assert talk.breaker.next_time() == talk.now + 0.25
    talk.trial("c", SUCCESS)
    talk.trial("a", SUCCESS)
    assert [talk.permits(party) for party in "abc"] == [True, True, True]
    talk.breaker.join("d", talk.now)
    assert [talk.permits(party) for party in "abcd"] == [False, False, False, True]
    talk.later(0.25)
    assert [talk.permits(party) for party in "abcd"] == [True, True, True, True]


def test_nobody_waits_for_the_dead() -> None:
    """A worker that left had its turn."""
    talk = Talk(BreakerSettings(successes_to_close=10), "ab")
    talk.half_open("a")
    talk.trial("b", SUCCESS)
    assert not talk.permits("b")
    talk.breaker.leave("a", talk.now)
    assert talk.permits("b")


def test_a_worker_that_asks_or_reports_has_joined() -> None:
    """Others wait for its turn as for any other's, also if it was refused, until it leaves."""
    talk = Talk(BreakerSettings(permitted_trials=1))
    talk.half_open("a")
    talk.later(10.0)
    grant = talk.granted("a")
    assert talk.ask("b") is None
    talk.end("a", grant, OutcomeKind.IGNORED)
    assert not talk.permits("a")
    talk.breaker.leave("b", talk.now)
    assert talk.permits("a")


# --- a wrong opening heals --------------------------------------------------------------------------


def test_a_failed_trial_reopens_for_all() -> None:
    """As long as too few trials of others have passed: with three to close, one is too few."""
    talk = Talk(parties="abc")
    talk.half_open()
    talk.trial("b", SUCCESS)
    talk.trial("c", FAILURE)
    assert talk.moves() == [("", HALF_OPEN, OPEN)]
    assert talk.breaker.until - talk.now == 60.0


def test_a_failed_trial_among_passed_ones_isolates_its_worker() -> None:
    """Two others passed: the breaker closes, the failing worker is out."""
    talk = Talk(parties="abc")
    talk.half_open()
    talk.trial("b", SUCCESS)
    talk.trial("c", SUCCESS)
    talk.trial("a", FAILURE)
    assert talk.moves() == [("", HALF_OPEN, CLOSED), ("a", CLOSED, OPEN)]


def test_its_own_passed_trials_do_not_excuse_a_worker() -> None:
    """Only trials of others vouch for the dependency."""
    talk = Talk(parties="ab")
    talk.half_open("b")
    talk.trial("a", SUCCESS)
    talk.later(0.25)
    talk.trial("a", SUCCESS)
    talk.later(0.25)
    talk.trial("a", FAILURE)
    assert talk.moves() == [("", HALF_OPEN, OPEN)]


def test_who_was_failing_lets_the_others_go_first() -> None:
    """Its row offers no permit until enough of them passed, for a quarter of the open time at most."""
    talk = Talk(parties="abcd")
    talk.half_open("a")
    assert [talk.permits(party) for party in "abcd"] == [False, True, True, True]
    assert talk.ask("a") is None
    talk.trial("b", SUCCESS)
    assert not talk.permits("a")
    talk.trial("c", SUCCESS)
    assert talk.permits("a")


def test_its_patience_ends() -> None:
    """If nobody else has a call to try, it tries itself; the breaker says when."""
    talk = Talk(parties="ab")
    talk.half_open("a")
    talk.later(7.25)
    assert not talk.permits("a")
    assert talk.breaker.next_time() == talk.breaker.since + 7.5
    talk.later(0.25)
    assert talk.permits("a")
    talk.trial("a", SUCCESS)


def test_alone_it_need_not_wait() -> None:
    """Where there is nobody else, or everybody was failing."""
    talk = Talk(parties="a")
    talk.half_open("a")
    assert talk.permits("a")
    talk = Talk(parties="ab")
    for party in "abab":
        talk.fail(party)
    talk.fail("a")
    talk.later(30.0)
    assert talk.permits("a")


def test_a_healed_breaker_remembers_who_was_failing() -> None:
    """Closed by others' trials, it isolates that worker at its next failure instead of opening again."""
    talk = Talk(parties="abcd")
    talk.half_open("a")
    for party in "bcd":
        talk.trial(party, SUCCESS)
    assert talk.moves() == [("", HALF_OPEN, CLOSED)]
    talk.fail("a")
    assert talk.moves() == [("a", CLOSED, OPEN)]


def test_a_success_clears_it() -> None:
    """One that succeeds after the recovery is a worker like the others."""
    talk = Talk(parties="abcd")
    talk.half_open("a")
    for party in "bcd":
        talk.trial(party, SUCCESS)
    talk.succeed("a")
    talk.fail("a", 4)
    assert talk.breaker.state_of("a") is CLOSED
