"""--watch, ended by the keyboard."""

from __future__ import annotations

import json

from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Ctl, No, Stage, Ticks


def test_watch_looks_again_until_interrupted(stage: Stage, ctl: Ctl) -> None:
    """A page a period; the exit code is the last page's."""
    stage.script["health"] = [answers.health(), answers.health(), answers.health("fail", output="x")]
    ticks = Ticks(last_s=25.0)
    ran = ctl("health", "--watch=10", ticks=ticks)
    assert ticks.slept == [10.0, 10.0, 10.0]
    assert [line for line in ran.lines if ":" in line and "supervisor:" not in line] == [
        "pass: everything is well",
        "pass: everything is well",
        "fail: x",
    ]
    assert ran.code == 3


def test_watch_goes_on_when_the_supervisor_is_away(stage: Stage, ctl: Ctl) -> None:
    """Trouble is said in its place, and the next look is made all the same."""
    stage.script["breaker"] = [
        No("unknown", "there is no breaker x"),
        {"schema": 1, "breaker": answers.breaker()},
    ]
    ran = ctl("breaker", "show", "x", "--watch", ticks=Ticks(last_s=3.0))
    assert "there is no breaker x" in ran.err
    assert "shop/database" in ran.out
    assert ran.code == 0


def test_watched_json_is_one_document_a_line(stage: Stage, ctl: Ctl) -> None:
    """So that a program can read it as it comes."""
    stage.script["health"] = answers.health()
    ran = ctl("health", "--watch", "--json", ticks=Ticks(last_s=3.0))
    assert [json.loads(line)["status"] for line in ran.lines] == ["pass", "pass"]


def test_events_are_followed_each_once(stage: Stage, ctl: Ctl) -> None:
    """The last ones first, then what is new; nothing where nothing is."""
    stage.script["events"] = [
        answers.events(1, 2, 3),
        answers.events(following=3),
        answers.events(4),
        answers.events(following=4),
    ]
    ran = ctl("events", "2", "--watch", "--json", ticks=Ticks(last_s=1.0))
    numbers = [[event["number"] for event in json.loads(line)["events"]] for line in ran.lines]
    assert numbers == [[2, 3], [4]]
    assert [asked["after"] for asked in stage.asked][:4] == [0, 3, 3, 4]


def test_an_absence_is_said_once_and_a_new_count_is_followed(stage: Stage, ctl: Ctl) -> None:
    """A busy supervisor is one line of trouble; one that forgot its journal is read from its beginning."""
    busy = No("busy", "no room")
    stage.script["events"] = [
        answers.events(7),
        busy,
        busy,
        busy,
        answers.events(following=0),
        answers.events(1),
    ]
    ran = ctl("events", "--watch", "--json", "--timeout", "60ms", ticks=Ticks(last_s=2.0))
    assert ran.err.count("what to do") == 1
    numbers = [
        [event["number"] for event in json.loads(line)["events"]] for line in ran.lines if '"events"' in line
    ]
    assert numbers[:2] == [[7], [1]]
