"""Who may command: by number, by name, by the groups that the process has; what is denied fills no log."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from supervisor.commanders import (
    LOG_PERIOD_S,
    Impersonations,
    check_commander,
    may_command,
    query_for,
)
from supervisor.connections import Peer
from supervisor.errors import CommandDenied, RequestRefused
from supervisor.user_database import Account, AccountQuery
from tests.supervisor.answering import request
from tests.supervisor.conversation import Host, nonce

STRANGER = Peer(77, 54_321, 54_321)
OPS = 2001


@pytest.mark.parametrize(
    ("peer", "account", "commanders", "may"),
    [
        (Peer(1, 0, 0), Account("root"), (), True),
        (Peer(1, os.getuid(), 5), Account("x"), (), True),
        (STRANGER, Account("deploy", known=True), (), False),
        (STRANGER, Account("deploy", known=True), ("user:deploy",), True),
        (STRANGER, Account("54321"), ("user:54321",), False),
        (STRANGER, Account("54321"), ("uid:54321",), True),
        (STRANGER, Account("54321"), ("uid:5432", "uid:543210"), False),
        (replace(STRANGER, groups=(4, OPS)), Account("x", True, frozenset({OPS})), ("group:ops",), True),
        (replace(STRANGER, gid=OPS), Account("x", True, frozenset({OPS})), ("group:ops",), True),
        (STRANGER, Account("x", True, frozenset({OPS}), frozenset({OPS})), ("group:ops",), True),
        (replace(STRANGER, groups=(4,)), Account("x", True, frozenset({OPS})), ("group:ops",), False),
        (STRANGER, Account("x", True, frozenset()), ("group:no-such-group",), False),
    ],
)
def test_who_may_command(peer: Peer, account: Account, commanders: tuple[str, ...], may: bool) -> None:
    """A name that the database does not confirm is no user's; the kernel's groups count without it."""
    assert may_command(peer, account, commanders) is may


def test_only_what_depends_on_the_user_asks_the_database() -> None:
    """Looking at figures never waits for it."""
    commanders = ("user:a", "group:ops", "uid:7")
    assert query_for(request(1, "stop", 7), commanders, lambda _: None) == AccountQuery(7, 7, ("ops",))
    assert query_for(request(1, "hello", 7, namespace="shop"), commanders, lambda _: 9) == AccountQuery(
        7, 7, (), "shop", 9
    )
    assert query_for(request(1, "hello", 7, namespace=["x"]), commanders, lambda _: None) == AccountQuery(
        7, 7
    )
    for verb in ("permit", "health", "breakers", "no such verb"):
        assert query_for(request(1, verb, 7), commanders, lambda _: None) is None


def test_who_is_denied_is_told_which_line_would_let_it_command() -> None:
    """By name where the database knows one, else by number."""
    asked = request(1, "stop", 54_321)
    with pytest.raises(CommandDenied, match=r'add "uid:54321" to \[control\] commanders'):
        check_commander(asked, (), 0.0)
    with pytest.raises(CommandDenied, match=r'add "user:deploy" to \[control\] commanders'):
        check_commander(replace(asked, account=Account("deploy", known=True)), (), 0.0)


def test_what_its_asker_gave_up_is_not_done() -> None:
    """A command that lay in the socket while the daemon hung."""
    assert check_commander(request(1, "command", until=50.1), (), 50.0) == "0"
    with pytest.raises(RequestRefused, match="nothing was done") as caught:
        check_commander(request(1, "command", until=49.9), (), 50.0)
    assert caught.value.code == "late"


def test_a_permit_in_anothers_name_is_one_event_per_user_and_period() -> None:
    """It names who asked, by what the kernel knows, and whose name was used; no nonce."""
    host = Host()
    host.join("a")
    worker = host.engine.workers[nonce("a")]
    times = [0.0]
    impersonations = Impersonations(lambda: times[0])
    first = impersonations.note(STRANGER, worker)
    assert first is not None
    assert first.text == "uid 54321, pid 77 asked for a permit in the name of web-a (pid 1000): refused"
    assert impersonations.note(STRANGER, worker) is None
    times[0] = LOG_PERIOD_S
    again = impersonations.note(STRANGER, worker)
    assert again is not None
    assert again.text.endswith("(1 more like it in between)")
