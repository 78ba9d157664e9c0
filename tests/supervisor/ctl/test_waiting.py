"""`wait`, with time that passes only when somebody sleeps."""

from __future__ import annotations

from tests.schemas import problems
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Ctl, No, Stage, Ticks


def test_wait_ready_ends_when_it_is_so(stage: Stage, ctl: Ctl) -> None:
    """Fail, fail, warn: ready after two pauses."""
    stage.script["health"] = [answers.health("fail"), answers.health("fail"), answers.health("warn")]
    ran = ctl("wait", "ready", ticks=Ticks())
    assert ran.code == 0
    assert ran.lines == ["ready after 0.2s"]
    assert [asked["level"] for asked in stage.asked] == ["ready"] * 3


def test_wait_in_vain_says_what_was_seen(stage: Stage, ctl: Ctl) -> None:
    """Exit code 3 after the time limit, and the last thing seen."""
    stage.script["health"] = answers.health("fail", output="the checkpoint cannot be written: disk full")
    ran = ctl("wait", "ready", "--timeout", "1", ticks=Ticks())
    assert ran.code == 3
    assert ran.lines[0].startswith("not ready after")
    assert "disk full" in ran.lines[0]


def test_wait_for_a_supervisor_that_never_comes_says_how_to_start_it(ctl: Ctl) -> None:
    """Exit code 4, as any verb, but only when the time is over."""
    ticks = Ticks()
    ran = ctl("wait", "live", "--timeout", "1", ticks=ticks)
    assert ran.code == 4
    assert "start it" in ran.err
    assert 0.8 <= ticks.now_s - 1000.0 <= 1.0


def test_wait_for_a_state_of_a_breaker(stage: Stage, ctl: Ctl) -> None:
    """A breaker that nobody has declared yet may still come."""
    stage.script["breaker"] = [
        No("unknown", "there is no breaker database"),
        {"schema": 1, "breaker": answers.breaker(state="OPEN")},
        {"schema": 1, "breaker": answers.breaker(state="HALF_OPEN")},
    ]
    ran = ctl("wait", "breaker", "database", "half-open", ticks=Ticks())
    assert ran.code == 0
    assert ran.lines == ["breaker database half-open after 0.2s"]


def test_waiting_does_not_help_an_ambiguous_name(stage: Stage, ctl: Ctl) -> None:
    """Said at once."""
    stage.script["breaker"] = No("ambiguous", "database names more than one breaker: a/database, b/database")
    ticks = Ticks()
    ran = ctl("wait", "breaker", "database", "closed", ticks=ticks)
    assert ran.code == 1
    assert ticks.slept == []


def test_json_of_wait_is_true_to_its_schema(stage: Stage, ctl: Ctl) -> None:
    """Reached or not."""
    stage.script["health"] = [answers.health("fail", output="x"), answers.health("pass")]
    ran = ctl("wait", "ready", "--json", "--timeout", "50ms", ticks=Ticks())
    assert problems("wait", ran.json) == []
    assert ran.json["reached"] is False
    assert ctl("wait", "ready", "--json", ticks=Ticks()).json["reached"] is True
