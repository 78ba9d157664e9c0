"""Commands as they come over the socket: hostile, short of names, and ambiguous."""

from __future__ import annotations

import math
from typing import Any

import pytest

from supervisor.commands import full_name, read_command, read_forget
from supervisor.errors import BadRequest, BreakerNotFound
from tests.supervisor.conversation import Host


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"action": "explode", "breaker": "x"},
        {"action": ["reset"], "breaker": "x"},
        {"action": "reset"},
        {"action": "reset", "breaker": 7},
        {"action": "reset", "breaker": "x", "reason": 7},
        {"action": "disable", "breaker": "x", "for_s": 0},
        {"action": "disable", "breaker": "x", "for_s": math.inf},
        {"action": "disable", "breaker": "x", "for_s": "1h"},
    ],
)
def test_what_is_no_command_is_refused(body: dict[str, Any]) -> None:
    """Whatever stands there."""
    with pytest.raises(BadRequest):
        read_command(body)


def test_a_command_is_read_and_shown_short() -> None:
    """A reason and a name of any length are cut where they are kept or logged."""
    wanted = read_command(
        {"action": "force-open", "breaker": "b" * 3000, "reason": "r" * 3000, "for_s": None}
    )
    assert (len(wanted.reason), len(wanted.shown), wanted.for_s) == (500, len("force-open ") + 128, None)
    assert read_forget({"unused": True}).breaker == ""


def test_an_ambiguous_name_is_answered_with_whole_commands() -> None:
    """They can be typed as they stand."""
    host = Host()
    for letter, namespace in (("a", "billing"), ("b", "mail")):
        host.join(letter, namespace=namespace)
        host.declare(letter, "smtp")
    with pytest.raises(BreakerNotFound) as ambiguous:
        full_name(host.engine, read_command({"action": "enable", "breaker": "smtp"}))
    assert str(ambiguous.value) == (
        "smtp names more than one breaker: breaker enable billing/smtp, breaker enable mail/smtp"
    )
    assert ambiguous.value.code == "ambiguous"
