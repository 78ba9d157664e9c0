"""start, stop, restart: ordered once, then looked at until all is where it should be, or will not be."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.ctl.managing import Fate, fate
from tests.schemas import problems
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.answers import managed, status_of
from tests.supervisor.ctl.conftest import HANG_UP, Ctl, No, Stage, Ticks


def accepted(verb: str, *titles: str, takes_s: float = 1.0) -> dict[str, Any]:
    """The supervisor has accepted it."""
    return {"schema": 1, "verb": verb, "accepted": list(titles), "takes_s": takes_s}


OLD, NEW = managed("web", "RUNNING", 77, 10.0), managed("web", "RUNNING", 99, 20.0)
STOPPED = managed("web", "STOPPED", since=30.0)
FATAL = managed("web", "FATAL", since=10.0, description="exit code 1")
AGAIN = managed("web", "FATAL", since=20.0, description="exit code 1")
ENDED = managed("web", "EXITED", since=20.0, last_exit="exit code 0", description="exit code 0")
FAILED = managed("web", "EXITED", since=20.0, last_exit="exit code 3", description="exit code 3")
PENDING = (False, False)
DONE = (True, True)
LOST = (True, False)


@pytest.mark.parametrize(
    ("verb", "before", "item", "settled_done", "text"),
    [
        ("start", STOPPED, STOPPED, PENDING, ""),
        ("start", STOPPED, managed("web", "STARTING", 99, 20.0), PENDING, ""),
        ("start", STOPPED, NEW, DONE, "started (pid 99)"),
        ("start", OLD, OLD, DONE, "ran already (pid 77)"),
        ("start", FATAL, FATAL, PENDING, "exit code 1"),
        ("start", FATAL, AGAIN, LOST, "exit code 1"),
        ("start", STOPPED, managed("web", "BACKOFF", since=20.0), PENDING, ""),
        ("start", STOPPED, ENDED, DONE, "started, and has ended: exit code 0"),
        ("start", STOPPED, FAILED, LOST, "exit code 3"),
        ("start", FATAL, managed("web", "STOPPED", since=20.0), LOST, ""),
        ("start", None, None, PENDING, "not to be seen"),
        ("stop", OLD, OLD, PENDING, ""),
        ("stop", OLD, managed("web", "STOPPING", 77, 20.0), PENDING, ""),
        ("stop", OLD, STOPPED, DONE, "stopped"),
        ("stop", STOPPED, STOPPED, DONE, "stopped"),
        ("stop", FATAL, FATAL, PENDING, "exit code 1"),
        ("stop", OLD, None, DONE, "stopped, and not configured any more"),
        ("restart", OLD, OLD, PENDING, ""),
        ("restart", OLD, managed("web", "RUNNING", 77, 15.0), PENDING, ""),
        ("restart", OLD, managed("web", "STOPPING", 77, 20.0), PENDING, ""),
        ("restart", OLD, NEW, DONE, "restarted (pid 99)"),
        ("restart", STOPPED, NEW, DONE, "restarted (pid 99)"),
        ("restart", None, NEW, DONE, "restarted (pid 99)"),
        ("restart", OLD, AGAIN, LOST, "exit code 1"),
    ],
)
def test_what_became_of_one(
    verb: str, before: Any, item: Any, settled_done: tuple[bool, bool], text: str
) -> None:
    """What stood there before is told from what the order has made of it."""
    key = None if before is None else (before["state"], before["pid"], before["managed"]["since"])
    found = fate(verb, "web", item, key)
    assert (found.settled, found.done, found.text) == (*settled_done, text)
    assert isinstance(found, Fate)


def test_it_waits_until_all_are_there(stage: Stage, ctl: Ctl) -> None:
    """One order, as many looks as it takes, one line a process."""
    first, second = managed("web:1", "STOPPED"), managed("web:2", "STOPPED")
    stage.script["status"] = [
        status_of(first, second),
        status_of(managed("web:1", "STARTING", 5, 20.0), second),
        status_of(managed("web:1", "RUNNING", 5, 21.0), managed("web:2", "STARTING", 6, 20.0)),
        status_of(managed("web:1", "RUNNING", 5, 21.0), managed("web:2", "RUNNING", 6, 21.0)),
    ]
    stage.script["start"] = accepted("start", "web:1", "web:2")
    ran = ctl("start", "web", ticks=Ticks())
    assert (ran.code, ran.lines) == (0, ["web:1: started (pid 5)", "web:2: started (pid 6)"])
    assert [asked for asked in stage.asked if asked["verb"] != "status"] == [{"verb": "start", "name": "web"}]
    assert len(stage.asked) == 5


def test_who_does_not_get_there_is_told_with_the_reason(stage: Stage, ctl: Ctl) -> None:
    """One given up, one too slow: 3, at the end of --timeout."""
    before = status_of(managed("a", "STOPPED"), managed("b", "STOPPED"), managed("c", "STOPPED"))
    after = status_of(
        managed("a", "RUNNING", 5, 20.0),
        managed("b", "FATAL", since=20.0, description="exit code 1, restarted 5 times"),
        managed("c", "BACKOFF", since=20.0, description="exit code 1"),
    )
    stage.script["status"] = [before, after]
    stage.script["restart"] = accepted("restart", "a", "b", "c")
    ticks = Ticks()
    ran = ctl("restart", "all", "--timeout", "3s", ticks=ticks)
    assert ran.code == 3
    assert ran.lines == [
        "a: restarted (pid 5)",
        "b: FATAL: exit code 1, restarted 5 times",
        "c: BACKOFF still after 2.9s: exit code 1",
    ]
    assert 2.5 < sum(ticks.slept) < 3.0


@pytest.mark.parametrize(("takes_s", "least", "most"), [(1.0, 29.0, 31.0), (95.0, 104.0, 106.0)])
def test_patience_is_what_the_tables_allow(
    stage: Stage, ctl: Ctl, takes_s: float, least: float, most: float
) -> None:
    """A worker that may take a minute to end is waited for that long without being asked to."""
    stage.script["status"] = status_of(OLD)
    stage.script["stop"] = accepted("stop", "web", takes_s=takes_s)
    ticks = Ticks()
    assert ctl("stop", "web", ticks=ticks).code == 3
    assert least < sum(ticks.slept) < most


def test_a_new_daemon_is_waited_for(stage: Stage, ctl: Ctl) -> None:
    """The order was accepted; the daemon dies, the next one is told the states a moment after it serves."""
    stage.script["status"] = [status_of(OLD), HANG_UP, answers.status(), status_of(STOPPED)]
    stage.script["stop"] = accepted("stop", "old")
    stage.script["stop"] = accepted("stop", "web")
    ran = ctl("stop", "web", ticks=Ticks())
    assert ran.code == 0


def test_json_is_true_to_its_schema(stage: Stage, ctl: Ctl) -> None:
    """The same, as values."""
    stage.script["status"] = [status_of(OLD), status_of(STOPPED)]
    stage.script["stop"] = accepted("stop", "web")
    ran = ctl("stop", "web", "--json", ticks=Ticks())
    assert problems("manage", ran.json) == []
    assert ran.json["processes"] == [
        {"name": "web", "state": "STOPPED", "done": True, "pid": 0, "text": "stopped"}
    ]


def test_nobody_to_order_is_no_failure(stage: Stage, ctl: Ctl) -> None:
    """`all` of none."""
    stage.script["status"] = answers.status()
    stage.script["stop"] = accepted("stop")
    ran = ctl("stop", "all")
    assert (ran.code, ran.lines) == (0, ["there is no managed worker"])


def test_a_refusal_says_what_there_is(stage: Stage, ctl: Ctl) -> None:
    """An unknown name, and somebody who may not command."""
    stage.script["status"] = answers.status()
    stage.script["stop"] = No("unknown", "there is no managed worker wbe; there are web:1, web:2")
    ran = ctl("stop", "wbe")
    assert ran.code == 1
    assert "there are web:1, web:2" in ran.err
    stage.script["stop"] = No("denied", "user www may not command")
    assert ctl("stop", "web").code == 4


def test_an_order_whose_answer_was_lost_may_have_been_carried_out(stage: Stage, ctl: Ctl) -> None:
    """It is not given again; where to look is said."""
    stage.script["status"] = answers.status()
    stage.script["stop"] = HANG_UP
    ran = ctl("stop", "web")
    assert ran.code == 4
    assert "of workers: status" in ran.err
    assert [asked["verb"] for asked in stage.asked] == ["status", "stop"]


@pytest.mark.parametrize("wrong", [{"schema": 1}, {"schema": 1, "accepted": 5, "takes_s": 1}])
def test_an_answer_of_another_version_is_said(stage: Stage, ctl: Ctl, wrong: dict[str, Any]) -> None:
    """No traceback."""
    stage.script["status"] = answers.status()
    stage.script["stop"] = wrong
    ran = ctl("stop", "web")
    assert ran.code == 4
    assert "cannot be read" in ran.err
