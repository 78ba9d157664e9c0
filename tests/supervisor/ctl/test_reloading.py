"""`reload`: what is different, or what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

from tests.schemas import problems
from tests.supervisor.ctl.conftest import SILENCE, Ctl, No, Stage

FILE = "/etc/breakerd/breakerd.toml"


def answer(**given: Any) -> dict[str, Any]:
    """A reload without a difference but the given."""
    nothing: dict[str, list[str]] = {"added": [], "changed": [], "removed": []}
    changed: dict[str, Any] = {"control": [], "supervisor": []}
    changed |= {section: dict(nothing) for section in ("breakers", "namespaces", "workers")}
    said = {"schema": 1, "file": FILE, "ok": True, "errors": [], "changed": changed}
    said |= {"restarted": [], "kept": [], **given}
    assert problems("reload", said) == []
    return said


def test_what_changed_is_shown_section_by_section(stage: Stage, ctl: Ctl) -> None:
    """With what restarts for it, and what does not follow yet."""
    said = answer(restarted=["web"], kept=["supervisor.ring_slots: new ones only"])
    said["changed"]["supervisor"] = ["tick_s", "ring_slots"]
    said["changed"]["breakers"]["added"] = ["cache", "shop/database"]
    said["changed"]["workers"]["changed"] = ["web"]
    stage.script["reload"] = said
    ran = ctl("reload")
    assert stage.asked == [{"verb": "reload"}]
    assert (ran.code, ran.lines) == (
        0,
        [
            f"{FILE} is in force",
            "supervisor changed: tick_s, ring_slots",
            "breakers added: cache, shop/database",
            "workers changed: web",
            "restarted: web",
            "not yet: supervisor.ring_slots: new ones only",
        ],
    )
    assert ctl("reload", "--json").json == said


def test_nothing_different_is_said(stage: Stage, ctl: Ctl) -> None:
    """It is no failure."""
    stage.script["reload"] = answer()
    ran = ctl("reload")
    assert (ran.code, ran.lines) == (0, [f"{FILE} is in force", "nothing is different"])


@pytest.mark.parametrize(("style", "code"), [("lsb", 1), ("nagios", 3), ("probe", 1)])
def test_every_mistake_is_a_line_as_the_check_prints_it(
    stage: Stage, ctl: Ctl, style: str, code: int
) -> None:
    """Refused: the code of a refusal."""
    errors = [f"{FILE}: breakers.x.failure_threshold: wrong, got {number}" for number in range(-200, 0)]
    stage.script["reload"] = answer(ok=False, errors=errors)
    ran = ctl("reload", "--exit-code", style)
    assert ran.code == code
    assert ran.lines == ["not reloaded, the configuration of before stays in force:", *errors]
    assert ctl("reload", "--json").json["errors"] == errors


def test_refusals_say_what_to_do(stage: Stage, ctl: Ctl) -> None:
    """No file, and one that takes longer: 1; not allowed: 4."""
    stage.script["reload"] = No("unconfigured", "there is no configuration file")
    ran = ctl("reload")
    assert ran.code == 1
    assert "--config FILE" in ran.err
    stage.script["reload"] = No("late", "not yet")
    ran = ctl("reload")
    assert ran.code == 1
    assert "config show" in ran.err
    stage.script["reload"] = No("denied", "user web may not command")
    assert ctl("reload").code == 4
    assert problems("error", ctl("reload", "--json").json) == []


def test_no_answer_is_no_verdict(stage: Stage, ctl: Ctl) -> None:
    """It is asked once, and whether it was done is not known."""
    stage.script["reload"] = SILENCE
    ran = ctl("reload", "--timeout", "50ms")
    assert ran.code == 4
    assert "whether it was done is not known" in ran.err
    assert len(stage.asked) == 1


def test_an_answer_of_another_version_is_told(stage: Stage, ctl: Ctl) -> None:
    """Not a traceback."""
    stage.script["reload"] = {"schema": 1}
    ran = ctl("reload")
    assert ran.code == 4
    assert "cannot be read" in ran.err
