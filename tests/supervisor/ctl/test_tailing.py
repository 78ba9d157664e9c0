"""tail: what a managed worker logged last, and with -f what it logs from now on."""

from __future__ import annotations

import pytest

from tests.schemas import problems
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import HANG_UP, Ctl, No, Stage, Ticks


def test_the_last_lines(stage: Stage, ctl: Ctl) -> None:
    """Twenty, or as many as are asked for, as they are; what moves a cursor does not get through."""
    stage.script["tail"] = answers.tail("one", "\x1b[31mtwo")
    assert ctl("tail", "web:1").out == "one\n [31mtwo\n"
    ctl("tail", "web:1", "5")
    assert stage.asked == [
        {"verb": "tail", "name": "web:1", "lines": 20},
        {"verb": "tail", "name": "web:1", "lines": 5},
    ]
    ran = ctl("tail", "web:1", "--json")
    assert ran.json == answers.tail("one", "\x1b[31mtwo")
    assert problems("tail", ran.json) == []


def test_nothing_yet_is_nothing(stage: Stage, ctl: Ctl) -> None:
    """A worker that said nothing."""
    stage.script["tail"] = answers.tail()
    ran = ctl("tail", "web:1")
    assert (ran.code, ran.out) == (0, "")


@pytest.mark.parametrize("flag", ["-f", "--follow"])
def test_following_asks_for_what_comes_after(stage: Stage, ctl: Ctl, flag: str) -> None:
    """Every half second, from where the last answer ended; ends well by ^C."""
    stage.script["tail"] = [
        answers.tail("one", position="7:1:4"),
        answers.tail(position="7:1:4"),
        answers.tail("two", "three", position="7:1:14"),
        answers.tail("nine", position="8:2:5", lost=True),
        answers.tail(position="8:2:5"),
    ]
    ticks = Ticks(last_s=3.2)
    ran = ctl("tail", flag, "web:1", "1", ticks=ticks)
    assert ran.code == 0
    lost = "... (lines were thrown away before they could be shown) ..."
    assert ran.lines == ["one", "two", "three", lost, "nine"]
    assert set(ticks.slept) == {0.5}
    first = {"verb": "tail", "name": "web:1"}
    assert stage.asked[:4] == [
        {**first, "lines": 1},
        {**first, "lines": 1000, "after": "7:1:4"},
        {**first, "lines": 1000, "after": "7:1:4"},
        {**first, "lines": 1000, "after": "7:1:14"},
    ]


def test_a_flood_is_not_waited_for(stage: Stage, ctl: Ctl) -> None:
    """A full answer has more behind it."""
    full = answers.tail(*(str(number) for number in range(1000)))
    stage.script["tail"] = [answers.tail("one"), full, full, answers.tail()]
    ticks = Ticks(last_s=1.1)
    assert len(ctl("tail", "-f", "web:1", ticks=ticks).lines) == 2001
    assert len(stage.asked) >= 4


def test_a_supervisor_that_goes_is_said_once_and_waited_for(stage: Stage, ctl: Ctl) -> None:
    """And no line is lost."""
    stage.script["tail"] = [answers.tail("one"), *[HANG_UP] * 40, answers.tail("two"), answers.tail()]
    ran = ctl("tail", "-f", "web:1", ticks=Ticks(last_s=60.0))
    assert ran.lines == ["one", "two"]
    assert ran.err.count("what to do") == 1


def test_a_name_that_is_not_there_ends_it(stage: Stage, ctl: Ctl) -> None:
    """Also with -f: waiting cannot help."""
    stage.script["tail"] = No("unknown", "there is no managed worker wbe; there are web:1, web:2")
    for words in (("tail", "wbe"), ("tail", "-f", "wbe")):
        ran = ctl(*words)
        assert ran.code == 1
        assert "there are web:1, web:2" in ran.err
        assert "supervisorctl status" in ran.err
