"""One breaker in full: its probe and its ramp; the rest is checked with the other answers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ipc.vocabulary import BreakerSettings, Tally
from supervisor import views
from supervisor.facts import ProbeWait
from supervisor.messages import OutcomeBatch, ProbeRule
from tests.schemas import problems
from tests.supervisor.conversation import FACTS, FAILURE, SUCCESS, Host, taken

SETTINGS = BreakerSettings(recovery_timeout=10.0, recovery_jitter=0.0, successes_to_close=1, ramp_s=30.0)

WAITED = replace(FACTS, probe_waits={"database": ProbeWait(0.5, 4.0)})


def shown(host: Host) -> dict[str, Any]:
    """The answer, as it arrives."""
    answer = views.answer(
        host.engine, {"verb": "breaker", "name": "database"}, WAITED, host.now, 1_700_000_000.0
    )
    arrived: dict[str, Any] = json.loads(json.dumps(answer, allow_nan=False))
    assert problems("breaker", arrived) == []
    breaker: dict[str, Any] = arrived["breaker"]
    return breaker


def opened(*rules: ProbeRule) -> Host:
    """A host whose breaker is OPEN."""
    host = Host()
    host.probes(*rules)
    host.settle_in("a", settings=SETTINGS)
    host.outcomes(*[("a", FAILURE)] * 5)
    return host


def test_without_probe_and_ramp_both_are_nothing() -> None:
    """Null, so that a script can tell it from a probe that was never asked."""
    host = opened()
    assert (shown(host)["probe"], shown(host)["ramp"], shown(host)["ramped_total"]) == (None, None, 0)


def test_a_probe_is_shown_with_its_last_words() -> None:
    """Before the first one there are none."""
    host = opened(ProbeRule("database", 2, 3, preventive=True, patience_s=20.0))
    rule = {"table": "database", "rise": 2, "fall": 3, "preventive": True}
    rule |= {"wait_last_s": 0.5, "wait_max_s": 4.0}
    nothing = {"verdict": None, "text": "", "took_s": None, "age_s": None, "run": 0, "holds": False}
    assert shown(host)["probe"] == {**rule, **nothing}
    host.probed("failed", 0.5)
    host.now += 2.0
    host.probed("failed", 0.25)
    host.now += 3.0
    said = {"verdict": "failed", "text": "connection refused", "took_s": 0.25, "age_s": 3.0, "run": 2}
    assert shown(host)["probe"] == {**rule, **said, "holds": True}
    assert shown(host)["retry_after_s"] == 17.0


def test_a_ramp_is_shown_until_it_is_over() -> None:
    """What is left of it, its length, and how many calls ramps have refused."""
    host = opened()
    host.now += 10.0
    host.outcomes(("a", SUCCESS), permit=host.ask("a")["permit"] & 63)
    host.say(OutcomeBatch((taken("a", tallies=((0, Tally.RAMPED, 7),)),), ()))
    host.now += 12.0
    assert shown(host)["state"] == "CLOSED"
    assert (shown(host)["ramp"], shown(host)["ramped_total"]) == ({"ends_in_s": 18.0, "length_s": 30.0}, 7)
    host.now += 18.0
    assert shown(host)["ramp"] is None
