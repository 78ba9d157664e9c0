"""Events: numbered, bounded, and safe to print."""

from __future__ import annotations

import json

import pytest

from supervisor.chronicle import BREAKERS_EVENTS_MAX, Chronicle
from supervisor.engine import Engine
from supervisor.messages import Command, Happened, Noted
from tests.supervisor.conversation import Host


def test_events_are_numbered_without_a_gap_and_the_oldest_forgotten() -> None:
    """A thousand of each kind are remembered; who asks for the ones after a number gets the next of them."""
    host = Host()
    host.settle_in("a")
    numbers: list[int] = []
    for _ in range(600):
        for verb in ("disable", "enable"):
            numbers += [one.number for one in host.command(verb) if isinstance(one, Happened)]
    assert numbers == list(range(numbers[0], numbers[0] + 2400))
    last = numbers[-1]
    chronicle = host.engine.chronicle
    assert [event.number for _, event in chronicle.after(last - 2, 10)] == [last - 1, last]
    assert [event.number for _, event in chronicle.after(last - 1500, 2)] == [last - 1499, last - 1498]
    assert [event.number for _, event in chronicle.last(3)] == [last - 2, last - 1, last]
    assert (
        len(chronicle.after(0, 9000, kind="breaker")) == len(chronicle.after(0, 9000, kind="command")) == 1000
    )
    assert chronicle.after(last, 5) == []


def test_no_flood_of_one_kind_washes_away_another() -> None:
    """Who forced what open is still told after thousands of hellos, and after a restart."""
    host = Host()
    host.settle_in("a")
    host.command("force-open")
    for number in range(1500):
        host.join(chr(0x4E00 + number % 700))
        host.leave(chr(0x4E00 + number % 700))
    for engine in (host.engine, Engine.from_plain(json.loads(json.dumps(host.engine.to_plain())))):
        (command,) = [event for _, event in engine.chronicle.after(0, 1000, kind="command")]
        assert command.fields[2] == ("verb", "force-open")
        assert len(engine.chronicle.after(0, 9000, kind="worker")) == 1000


def test_a_quiet_breaker_keeps_its_last_changes_beside_a_flapping_one() -> None:
    """Each breaker has a ring of twenty, however many changes the others had."""
    host = Host()
    host.settle_in("a")
    host.declare("a", "cache", row=1)
    host.command("disable", breaker="app/cache")
    for _ in range(700):
        for verb in ("force-open", "enable"):
            host.command(verb)
    chronicle = host.engine.chronicle
    quiet = [event.text for _, event in chronicle.of("app/cache")]
    assert len(chronicle.of("app/database")) == 20
    assert any("DISABLED" in text for text in quiet)
    assert [event.text for _, event in chronicle.after(0, 99, "app/cache")] == quiet
    assert len(chronicle.after(0, 99999)) <= 2 * 1000 + 20 + len(quiet) + 9


def test_the_rings_of_all_breakers_together_are_bounded() -> None:
    """Thousands of breakers keep so many events; those that were quiet for longest lose theirs."""
    chronicle = Chronicle()
    for number in range(5000):
        chronicle.add(1.0, "breaker", "changed", f"app/b{number}")
    chronicle.add(1.0, "breaker", "changed", "app/b4999")
    again = Chronicle.from_plain(json.loads(json.dumps(chronicle.to_plain())))
    for one in (chronicle, again):
        assert (len(one.of("app/b0")), len(one.of("app/b4999"))) == (0, 2)
        assert len(one.after(0, 99999)) == BREAKERS_EVENTS_MAX
    chronicle.shift(2.0)
    assert {at for at, _ in chronicle.after(0, 99999)} == {3.0}
    assert again == again.from_plain(again.to_plain())


def test_events_of_before_breakers_had_rings_are_read() -> None:
    """An older checkpoint has one list; its events go into the rings that they belong to."""
    old = [
        3,
        [[1.0, 1, "worker", "joined", "", "w", []], [2.0, 2, "breaker", "opened", "app/x", "", [["a", "b"]]]],
    ]
    chronicle = Chronicle.from_plain(old)
    assert [event.text for _, event in chronicle.of("app/x")] == ["opened"]
    assert [event.number for _, event in chronicle.after(0, 10)] == [1, 2]


@pytest.mark.parametrize("kind", ["managed", "denied", "refused"])
def test_what_others_note_is_an_event_of_its_kind(kind: str) -> None:
    """It has a number, its facts and its ring, and comes back from the journal."""
    host = Host()
    host.say(Noted(kind, "web ended\nwith 3", (("code", "3"),)))
    ((_, event),) = host.engine.chronicle.after(0, 10, kind=kind)
    assert (event.number, event.text, event.fields) == (1, "web ended?with 3", (("code", "3"),))


def test_nobody_forges_a_line_of_the_log() -> None:
    """What a person or a program wrote is cut, and shown on one line."""
    host = Host()
    host.settle_in("a")
    host.say(
        Command("app/database", "disable", None, "why\nERROR root: all lost\x1b[2J" + "x" * 900, 0, "root")
    )
    (text,) = host.events("command")
    assert text.startswith(
        "root (uid 0): disable app/database until it is changed: why?ERROR root: all lost?[2J"
    )
    assert len(text) == 500
