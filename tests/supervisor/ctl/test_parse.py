"""What was typed, as a value."""

from __future__ import annotations

import math

import pytest

from supervisor.ctl.parse import VERBS, Request, UsageError, exit_style, parse


def test_flags_may_stand_anywhere_and_be_written_in_both_ways() -> None:
    """The place of a flag and its equals sign make no difference."""
    expected = Request("breaker", ("open", "database"), socket="/s", for_s=600.0, reason="a b")
    for line in (
        ["breaker", "open", "database", "--socket", "/s", "--for", "10m", "--reason", "a b"],
        ["--socket=/s", "breaker", "--for=10m", "open", "--reason=a b", "database"],
    ):
        assert parse(line) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("30s", 30.0),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("1d", 86400.0),
    ],
)
def test_a_duration_has_a_unit_or_is_seconds(text: str, seconds: float) -> None:
    """Every unit that the help names is understood."""
    assert parse(["breaker", "open", "x", "--for", text]).for_s == seconds


def test_forever_is_infinite_and_an_hour_is_the_default() -> None:
    """A manual state lasts an hour unless told otherwise."""
    assert math.isinf(parse(["breaker", "disable", "x", "--for", "forever"]).for_s)
    assert parse(["breaker", "disable", "x"]).for_s == 3600.0


def test_watch_takes_a_period_only_behind_an_equals_sign() -> None:
    """`--watch health` does not swallow the verb."""
    assert parse(["--watch", "health"]).watch_s == 2.0
    assert parse(["health", "--watch=0.5"]).watch_s == 0.5


def test_wait_has_a_longer_time_limit_than_a_look() -> None:
    """A look is over before two seconds are; waiting takes half a minute."""
    assert parse(["health"]).timeout_s < 2.0
    assert parse(["wait", "ready"]).timeout_s == 30.0
    assert parse(["wait", "ready", "--timeout", "5"]).timeout_s == 5.0


@pytest.mark.parametrize(
    "line",
    [
        "",
        "helth",
        "health sick",
        "health live ready",
        "health --bla",
        "health --for 10m",
        "health --timeout",
        "health --timeout soon",
        "health --timeout 0",
        "health --timeout nan",
        "health --json=yes",
        "health --fail-on pass",
        "health --exit-code bsd",
        "status all",
        "breaker",
        "breaker show",
        "breaker database",
        "breaker database open",
        "breaker explode database",
        "breaker show a b",
        "breaker enable x --for 10m",
        "breaker show x --reason y",
        "breaker open x --watch",
        "breaker open x --for -1m",
        "events all",
        "events 5 6",
        "errors a b",
        "wait",
        "wait full",
        "wait ready now",
        "wait breaker x",
        "wait breaker x ajar",
        "wait breaker x closed now",
        "config",
        "config edit",
        "config show FILE",
        "config check a b",
        "help me",
        "start",
        "stop a b",
        "restart --watch web",
        "tail",
        "tail web many",
        "tail web 5 6",
        "tail --watch web",
        "status --wide",
    ],
)
def test_what_cannot_be_meant_is_refused(line: str) -> None:
    """Every line that has no meaning raises, and none is carried out in part."""
    with pytest.raises(UsageError):
        parse(line.split())


def test_managing_has_its_own_patience() -> None:
    """What was said is kept to; what was not said is found out."""
    assert parse(["stop", "web:2"]) == Request("stop", ("web:2",), timeout_s=30.0)
    told = parse(["restart", "all", "--timeout", "5m"])
    assert (told.timeout_s, told.patience_said) == (300.0, True)


def test_following_is_looking_again_and_again() -> None:
    """In one letter, too, wherever it stands."""
    for line in ("tail -f web 5", "tail web 5 --follow", "-f tail web 5"):
        assert parse(line.split()) == Request("tail", ("web", "5"), watch_s=0.5)
    assert parse(["workers", "--wide", "--json"]) == Request("workers", json=True, wide=True)


def test_the_wrong_order_is_told_the_right_one() -> None:
    """`breaker database open` names the line that was meant."""
    with pytest.raises(UsageError, match="breaker open database"):
        parse(["breaker", "database", "open"])


def test_help_of_every_verb_is_asked_for_with_a_flag() -> None:
    """--help wins over everything else behind a verb."""
    for verb in VERBS:
        assert parse([verb, "nonsense", "--help"]) == Request("help", (verb,))
    assert parse(["-h"]) == Request("help")


def test_words_behind_two_dashes_are_no_flags() -> None:
    """A breaker may be called --json where nobody stops it."""
    assert parse(["breaker", "show", "--", "--json"]).words == ("show", "--json")


def test_the_exit_style_is_found_in_a_line_that_cannot_be_read() -> None:
    """Bad arguments exit as the style says that they were given with."""
    assert exit_style(["helth", "--exit-code", "nagios"]) == "nagios"
    assert exit_style(["helth", "--exit-code=probe"]) == "probe"
    assert exit_style(["nagios"]) == "lsb"
