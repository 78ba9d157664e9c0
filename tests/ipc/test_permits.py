"""Leases by themselves: ids, questions, deadlines, and what is kept."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from ipc.permits import PERMIT_CODES, Lease, Leases
from ipc.vocabulary import FOREVER


def test_ids_go_up_and_differ() -> None:
    """Each grant has the next id; the lease says all that it was given."""
    leases = Leases()
    assert leases.grant("a", 1, 5, 20.0) == Lease(1, "a", 1, 5, 20.0)
    assert leases.grant("b", 1, 5, 21.0).permit == 2
    assert len(leases) == 2


@given(st.lists(st.integers(0, 31), max_size=200))
def test_live_leases_never_share_six_bits(ends: list[int]) -> None:
    """With up to 32 of them alive, whichever ended in between."""
    leases = Leases()
    for ask, which in enumerate(ends):
        leases.grant("a", ask, 1, FOREVER)
        codes = [permit % PERMIT_CODES for permit in leases.live]
        assert len(set(codes)) == len(codes)
        if len(leases) == 32:
            leases.end(list(leases.live.values())[which])


def test_an_outcome_finds_its_lease() -> None:
    """By the party and the six bits; ended, it is not found again."""
    leases = Leases()
    for ask in range(70):
        lease = leases.grant("a", ask, 1, FOREVER)
        if ask < 69:
            leases.end(lease)
    assert lease.permit == 70
    assert leases.find("a", 70 % PERMIT_CODES) == lease
    assert leases.find("b", 70 % PERMIT_CODES) is None
    assert leases.find("a", 7) is None
    leases.end(lease)
    leases.end(lease)
    assert leases.find("a", 6) is None


def test_a_question_is_remembered_until_the_next() -> None:
    """Answered and alive; answered and over; never asked."""
    leases = Leases()
    assert (leases.answered("a", 1), leases.given("a")) == (False, None)
    lease = leases.grant("a", 1, 1, FOREVER)
    assert (leases.answered("a", 1), leases.given("a")) == (True, lease)
    leases.end(lease)
    assert (leases.answered("a", 1), leases.given("a")) == (True, None)
    leases.grant("a", 2, 1, FOREVER)
    assert not leases.answered("a", 1)


def test_an_undone_grant_is_forgotten() -> None:
    """Of the right party only; an older one leaves the newer question alone."""
    leases = Leases()
    older = leases.grant("a", 1, 1, FOREVER)
    newer = leases.grant("a", 2, 1, FOREVER)
    assert leases.undo("b", newer.permit) is None
    assert leases.undo("a", older.permit) == older
    assert leases.answered("a", 2)
    assert leases.undo("a", newer.permit) == newer
    assert not leases.answered("a", 2)
    assert leases.undo("a", newer.permit) is None


def test_the_dead_abandon_everything() -> None:
    """Their leases and questions; nobody else's."""
    leases = Leases()
    leases.grant("a", 1, 1, FOREVER)
    kept = leases.grant("b", 1, 1, FOREVER)
    leases.grant("a", 2, 1, FOREVER)
    leases.abandon("a")
    assert list(leases.live.values()) == [kept]
    assert not leases.answered("a", 2)


def test_leases_expire_in_the_order_of_their_deadlines() -> None:
    """At the deadline, not before; the next one says when."""
    leases = Leases()
    for party, until in (("a", 30.0), ("b", 20.0), ("c", 40.0), ("d", 20.0)):
        leases.grant(party, 1, 1, until)
    assert leases.next_expiry() == 20.0
    assert leases.expired(19.999) == []
    assert [lease.party for lease in leases.expired(30.0)] == ["b", "d", "a"]
    assert Leases().next_expiry() == FOREVER


def test_leases_are_kept_and_shift() -> None:
    """Questions and ids too, so that a new daemon gives nothing out twice."""
    leases = Leases()
    leases.end(leases.grant("a", 1, 1, 20.0))
    leases.grant("b", 3, 1, 20.0)
    again = Leases.from_plain(json.loads(json.dumps(leases.to_plain())))
    assert again.live == leases.live
    assert (again.answered("a", 1), again.answered("b", 3)) == (True, True)
    again.shift(-15.0)
    assert again.next_expiry() == 5.0
    assert again.grant("c", 1, 1, 9.0).permit == 3
