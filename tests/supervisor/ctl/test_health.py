"""`health`, in words and exit codes."""

from __future__ import annotations

import pytest

from tests.schemas import problems
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Ctl, Stage

OPEN = {
    "breaker:shop/database": [
        {"status": "warn", "output": "it is OPEN since 3.0 s", "observedValue": "OPEN"}
    ],
    "supervisor:workers": [{"status": "pass", "output": "", "observedValue": 4}],
}


def test_full_is_asked_when_no_level_is_said(stage: Stage, ctl: Ctl) -> None:
    """Well: exit code 0; the level goes to the supervisor, and only the full one shows each check."""
    stage.script["health"] = answers.health()
    assert ctl("health").lines == [
        "pass: everything is well",
        "CHECK                  STATUS  OBSERVED  OUTPUT",
        "supervisor:checkpoint  pass    written   -",
    ]
    assert ctl("health", "live").lines == ["pass: the supervisor is at work"]
    assert ctl("health", "ready").code == 0
    assert [asked["level"] for asked in stage.asked] == ["full", "live", "ready"]


def test_a_warning_lists_the_checks_with_the_worst_first(stage: Stage, ctl: Ctl) -> None:
    """One line that says it all, then one check a line."""
    stage.script["health"] = answers.health("warn", output="it is OPEN since 3.0 s", checks=OPEN)
    ran = ctl("health")
    assert ran.code == 0
    assert ran.lines == [
        "warn: it is OPEN since 3.0 s",
        "CHECK                  STATUS  OBSERVED  OUTPUT",
        "breaker:shop/database  warn    OPEN      it is OPEN since 3.0 s",
        "supervisor:workers     pass    4         -",
    ]


@pytest.mark.parametrize(
    ("status", "flags", "code"),
    [
        ("pass", "", 0),
        ("warn", "", 0),
        ("fail", "", 3),
        ("strange", "", 3),
        ("warn", "--fail-on warn", 3),
        ("warn", "--fail-on fail", 0),
        ("pass", "--fail-on warn", 0),
        ("warn", "--exit-code nagios", 1),
        ("fail", "--exit-code nagios", 2),
        ("warn", "--exit-code probe", 0),
        ("fail", "--exit-code probe", 1),
    ],
)
def test_the_exit_code_is_the_status(stage: Stage, ctl: Ctl, status: str, flags: str, code: int) -> None:
    """Every style and --fail-on."""
    stage.script["health"] = answers.health(status, output="x")
    assert ctl("health", *flags.split()).code == code


def test_a_summary_is_made_where_the_supervisor_gave_none(stage: Stage, ctl: Ctl) -> None:
    """The checks that are not well, in the first line."""
    stage.script["health"] = answers.health("warn", checks=OPEN)
    assert ctl("health").lines[0] == "warn: breaker:shop/database it is OPEN since 3.0 s"


def test_json_is_the_supervisors_answer(stage: Stage, ctl: Ctl) -> None:
    """Unchanged, and true to the schema."""
    stage.script["health"] = answers.health("warn", output="x", checks=OPEN)
    ran = ctl("health", "--json")
    assert ran.json == stage.script["health"]
    assert problems("health", ran.json) == []
