"""Asking within a time limit."""

from __future__ import annotations

import pytest

from ipc.errors import ControlRefused, ProtocolError, SupervisorUnavailable
from supervisor.ctl.ask import Asker, find
from tests.supervisor.ctl.conftest import HANG_UP, No, Stage, Ticks


def asker(stage: Stage, timeout_s: float = 1.0) -> tuple[Asker, Ticks]:
    """An asker whose pauses take no time."""
    ticks = Ticks()
    return Asker(stage.path, timeout_s, ticks.clock()), ticks


def test_a_look_outlives_the_daemon_that_died_over_it(stage: Stage) -> None:
    """A closed connection and a busy answer are asked again; the answer is the third one's."""
    stage.script["stats"] = [HANG_UP, No("busy", "no room"), {"schema": 1, "x": 2}]
    made, ticks = asker(stage)
    assert made.look("stats", breaker="b") == {"schema": 1, "x": 2}
    assert stage.asked == [{"verb": "stats", "breaker": "b"}] * 3
    assert len(ticks.slept) == 2


def test_a_look_is_not_asked_again_for_ever(stage: Stage) -> None:
    """When the time is over, the last error is raised."""
    stage.script["stats"] = HANG_UP
    made, ticks = asker(stage, 0.3)
    with pytest.raises(SupervisorUnavailable, match="closed"):
        made.look("stats")
    assert ticks.now_s <= 1000.3


def test_a_command_is_never_repeated(stage: Stage) -> None:
    """Whether it was carried out is not known, so it is the operator's to decide."""
    stage.script["command"] = HANG_UP
    made, _ = asker(stage)
    with pytest.raises(SupervisorUnavailable):
        made.command("command", action="reset")
    assert len(stage.asked) == 1


def test_a_refusal_is_not_asked_again(stage: Stage) -> None:
    """What the supervisor has said no to, it says no to again."""
    stage.script["breaker"] = No("unknown", "there is no breaker x")
    made, _ = asker(stage)
    with pytest.raises(ControlRefused):
        made.look("breaker", name="x")
    assert len(stage.asked) == 1


@pytest.mark.parametrize("answer", [{"schema": 2}, {}, [[]], "x", None])
def test_an_answer_of_another_schema_is_not_shown(stage: Stage, answer: object) -> None:
    """A newer supervisor's answer may mean something else."""
    stage.script["stats"] = answer
    made, _ = asker(stage)
    with pytest.raises(ProtocolError):
        made.look("stats")


def test_off_means_that_there_is_nobody_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """BREAKERD_SOCKET=off is said, not looked up; --socket wins over it."""
    monkeypatch.setenv("BREAKERD_SOCKET", "off")
    with pytest.raises(SupervisorUnavailable, match="off"):
        find(None)
    assert find("/x/y.sock") == "/x/y.sock"
