"""One breaker in full, and commands to it."""

from __future__ import annotations

from typing import Any

import pytest

from ipc.vocabulary import BreakerSettings, CountWindow
from tests.schemas import problems
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Ctl, Stage

DONE = {"schema": 1, "breaker": "shop/database", "state": "FORCED_OPEN", "expires_in_s": 600.0}


def test_show_has_facts_isolated_workers_settings_and_conflicts(stage: Stage, ctl: Ctl) -> None:
    """Everything that decides about the breaker, on one page."""
    other = BreakerSettings(failure_threshold=9, window=CountWindow(50)).to_json()
    conflicts = [{"settings": other, "workers": ["web-2 (4712)"]}]
    stage.script["breaker"] = {
        "schema": 1,
        "breaker": answers.breaker(conflicts=conflicts, manual=answers.MANUAL),
    }
    ran = ctl("breaker", "show", "database")
    assert stage.asked == [{"verb": "breaker", "name": "database"}]
    assert ran.lines[0].split() == ["breaker", "shop/database"]
    assert "set by hand        by deploy (uid 1000) for another 9m: migration" in ran.lines
    assert "window             40 calls, 31 failed, 2 slow" in ran.lines
    assert "trials             1 of 3 in flight, 2 passed" in ran.lines
    assert "abababab  4711  web-1  OPEN   3s" in ran.lines
    assert "  slow_call_s             off" in ran.lines
    assert "  window                  seconds = 30" in ran.lines
    assert ran.lines[-1] == "declared differently by web-2 (4712): failure_threshold = 9, window = calls = 50"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"text": "refused"},
            "database: failed, 3 in a row, 2s ago, after 0.0123 s: refused; the breaker waits for it",
        ),
        ({"run": 1, "holds": False}, "database: failed, 2s ago, after 0.0123 s: connection refused"),
        ({"verdict": "error", "text": "", "holds": False}, "database: error, 2s ago, after 0.0123 s"),
        ({"verdict": None}, "database: not asked yet"),
        (
            {"run": 1, "text": "", "holds": False, "wait_last_s": 0.7, "wait_max_s": 4.0},
            "database: failed, 2s ago, after 0.0123 s; waited 0.7s for a prober (4s at most)",
        ),
    ],
)
def test_show_says_what_the_probe_said(stage: Stage, ctl: Ctl, changes: dict[str, Any], line: str) -> None:
    """The last verdict, how often, when, and whether the breaker waits for the next."""
    stage.script["breaker"] = {"schema": 1, "breaker": answers.breaker(probe={**answers.PROBE, **changes})}
    assert f"probe              {line}" in ctl("breaker", "show", "database").lines


def test_show_says_how_long_a_ramp_lasts(stage: Stage, ctl: Ctl) -> None:
    """And how many calls ramps have refused; of a daemon that knows none, nothing."""
    item = answers.breaker(state="CLOSED", ramp={"ends_in_s": 12.0, "length_s": 30.0}, ramped_total=77)
    stage.script["breaker"] = {"schema": 1, "breaker": item}
    lines = ctl("breaker", "show", "database").lines
    assert "ramp               more and more calls are let in, for 12s still" in lines
    assert "refused by ramps   77" in lines
    for key in ("ramp", "probe", "ramped_total"):
        del item[key]
    assert not any(
        "ramp" in line for line in ctl("breaker", "show", "database").lines if "ramp_s" not in line
    )


def test_show_as_json_is_true_to_its_schema(stage: Stage, ctl: Ctl) -> None:
    """What the supervisor said, unchanged."""
    stage.script["breaker"] = {
        "schema": 1,
        "breaker": answers.breaker(manual=answers.MANUAL, probe=answers.PROBE),
    }
    ran = ctl("breaker", "show", "database", "--json")
    assert ran.json == stage.script["breaker"]
    assert problems("breaker", ran.json) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("open", {"action": "force-open", "for_s": 3600.0}),
        ("force-open --for 10m", {"action": "force-open", "for_s": 600.0}),
        ("disable --for forever", {"action": "disable", "for_s": None}),
        ("metrics-only", {"action": "metrics-only", "for_s": 3600.0}),
        ("close", {"action": "reset"}),
        ("reset", {"action": "reset"}),
        ("enable", {"action": "enable"}),
    ],
)
def test_a_command_goes_out_as_the_supervisor_calls_it(
    stage: Stage, ctl: Ctl, words: str, told: dict[str, Any]
) -> None:
    """Aliases, durations and the reason."""
    stage.script["command"] = DONE
    action, *flags = words.split()
    assert ctl("breaker", action, "database", *flags, "--reason", "drill").code == 0
    assert stage.asked == [{"verb": "command", "breaker": "database", "reason": "drill", **told}]


def test_a_command_says_what_it_did_and_how_to_end_it(stage: Stage, ctl: Ctl) -> None:
    """A manual state is shown with its end; a reset has none."""
    stage.script["command"] = DONE
    assert ctl("breaker", "open", "database").lines == [
        "shop/database is FORCED_OPEN for 10m; to end it: supervisorctl breaker enable shop/database"
    ]
    stage.script["command"] = {**DONE, "expires_in_s": None}
    assert "until it is changed" in ctl("breaker", "open", "database").out
    stage.script["command"] = {**DONE, "state": "CLOSED", "expires_in_s": None}
    assert ctl("breaker", "close", "database").lines == ["shop/database is CLOSED"]


def test_a_command_as_json_is_true_to_its_schema(stage: Stage, ctl: Ctl) -> None:
    """What the supervisor answered."""
    stage.script["command"] = DONE
    assert problems("command", ctl("breaker", "open", "x", "--json").json) == []


def test_show_tells_the_last_changes(stage: Stage, ctl: Ctl) -> None:
    """What happened to the breaker last stands below its settings."""
    change = answers.event(7)
    stage.script["breaker"] = {"schema": 1, "breaker": answers.breaker(), "changes": [change]}
    lines = ctl("breaker", "show", "database").lines
    assert lines[lines.index("last changes:") + 1].endswith(change["text"])


def test_forgetting_one_or_all_that_are_unused(stage: Stage, ctl: Ctl) -> None:
    """Each is named, as far as the answer has names."""
    stage.script["forget"] = {"schema": 1, "forgotten": 3, "names": ["app/x", "app/y"]}
    ran = ctl("breaker", "forget", "--unused")
    assert ran.lines == ["app/x is forgotten", "app/y is forgotten", "and 1 more"]
    assert problems("forget", ctl("breaker", "forget", "app/x", "--json").json) == []
    assert stage.asked == [{"verb": "forget", "unused": True}, {"verb": "forget", "breaker": "app/x"}]
    stage.script["forget"] = {"schema": 1, "forgotten": 0, "names": []}
    assert ctl("breaker", "forget", "--unused").lines == ["no breaker is unused"]
    assert ctl("breaker", "forget").code == ctl("breaker", "forget", "x", "--unused").code == 2
    assert ctl("breaker", "open", "--unused").code == 2
