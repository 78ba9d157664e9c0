"""Whoever is turned away is seen: once a minute in the log, with a count, and never without bound."""

from __future__ import annotations

from supervisor.messages import Noted
from supervisor.refusals import LASTS_S, LINES_MAX, ROWS_MAX, SUBJECTS_MAX, TELL_S, TEXT_MAX, Refusals


class Desk:
    """Refusals, the time on their clock, and what was noted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.noted: list[Noted] = []
        self.refusals = Refusals(lambda: self.now, self.noted.append)

    def hello(self, uid: int = 1002, namespace: str = "billing", code: str = "denied") -> None:
        """A hello of this user for this namespace is refused."""
        self.refusals.hello(uid, f"u{uid}", 77, (code, f"may not join {namespace}"), namespace)


def test_the_first_is_told_at_once_and_the_rest_of_the_minute_together() -> None:
    """Three refused hellos are one line, and after a minute another with what was held back."""
    desk = Desk()
    for _ in range(3):
        desk.hello()
    assert [one.text for one in desk.noted] == [
        "refused: may not join billing (uid 1002, user u1002, pid 77)"
    ]
    desk.now += TELL_S / 2
    desk.refusals.look()
    assert len(desk.noted) == 1
    desk.now += TELL_S / 2
    desk.refusals.look()
    assert "2 times since it was last told" in desk.noted[1].text
    assert dict(desk.noted[1].facts)["count"] == "2"
    assert desk.refusals.totals["refused"] == 3


def test_it_goes_on_until_nobody_is_refused_any_more() -> None:
    """A worker asks every 30 s: one spell, whose count grows; then it is over, and later a new one."""
    desk = Desk()
    for _ in range(10):
        desk.hello()
        desk.now += 30.0
    (one,) = desk.refusals.going_on()
    assert (one.count, one.first, one.uid) == (10, 1000.0, 1002)
    desk.now += LASTS_S
    assert desk.refusals.going_on() == ()
    desk.hello()
    assert desk.refusals.going_on()[0].count == 1


def test_what_need_only_be_said_again_is_no_refusal() -> None:
    """`busy` comes of a busy host, not of a right that is missing."""
    desk = Desk()
    desk.hello(code="busy")
    assert (desk.noted, desk.refusals.going_on(), desk.refusals.totals["refused"]) == ([], (), 0)


def test_other_reasons_and_namespaces_are_told_by_themselves() -> None:
    """Another namespace or reason of the same user is news."""
    desk = Desk()
    desk.hello(namespace="billing")
    desk.hello(namespace="mail")
    desk.hello(namespace="mail", code="version")
    assert len(desk.noted) == len(desk.refusals.going_on()) == 3


def test_one_user_cannot_fill_the_log_with_names() -> None:
    """Thousands of names of one user are a few lines and a few rows; every one is counted."""
    desk = Desk()
    for number in range(5000):
        desk.hello(namespace=f"n{number}")
        desk.refusals.command(7, "eve", 8, f"v{number}", "x" * 5000)
    assert len(desk.noted) == 2 * (SUBJECTS_MAX + 1)
    assert desk.refusals.totals == {"refused": 5000, "denied": 5000}
    assert sum(one.count for one in desk.refusals.going_on() if one.kind == "denied") == 5000
    assert max(len(one.text) for one in desk.refusals.going_on()) == TEXT_MAX


def test_many_users_cannot_either() -> None:
    """A namespace of users has 65,536 of them."""
    desk = Desk()
    for uid in range(3000):
        desk.hello(uid=100_000 + uid)
    assert len(desk.noted) == LINES_MAX
    assert len(desk.refusals.going_on()) == ROWS_MAX
    desk.now += TELL_S
    desk.refusals.look()
    assert len(desk.noted) == 2 * LINES_MAX
