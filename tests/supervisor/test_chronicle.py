"""Events: numbered, bounded, and safe to print."""

from __future__ import annotations

from supervisor.messages import (
    Command,
    Happened,
)
from tests.supervisor.conversation import Host


def test_events_are_numbered_without_a_gap_and_the_oldest_forgotten() -> None:
    """A thousand are remembered; who asks for the ones after a number gets the next of them."""
    host = Host()
    host.settle_in("a")
    numbers: list[int] = []
    for _ in range(600):
        for verb in ("disable", "enable"):
            numbers += [one.number for one in host.command(verb) if isinstance(one, Happened)]
    assert numbers == list(range(numbers[0], numbers[0] + 2400))
    last = numbers[-1]
    assert [event.number for _, event in host.engine.chronicle.after(last - 2, 10)] == [last - 1, last]
    assert [event.number for _, event in host.engine.chronicle.after(0, 3)] == [
        last - 999,
        last - 998,
        last - 997,
    ]
    assert host.engine.chronicle.after(last, 5) == []


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
