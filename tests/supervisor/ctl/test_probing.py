"""`probe`: what came back, as an exit code and as lines; and the same for every probe in `doctor`."""

from __future__ import annotations

from typing import Any

import pytest

from supervisor.ctl.doctor_probes import PROBES_MAX, pools
from supervisor.ctl.finding import Finding
from supervisor.settings import parse
from tests.schemas import problems
from tests.supervisor.ctl.conftest import SILENCE, Ctl, No, Stage
from tests.supervisor.ctl.test_doctor import consult, findings


def answer(**given: Any) -> dict[str, Any]:
    """A probe that passed, but for the given."""
    said = {"schema": 1, "probe": "database", "kind": "sqlalchemy", "verdict": "passed"}
    said |= {"text": "the statement was carried out", "took_s": 0.0123, "waited_s": 0.0}
    said |= {"details": {}, "prober": "prober:1", **given}
    assert problems("probe", said) == []
    return said


def test_a_probe_that_passed(stage: Stage, ctl: Ctl) -> None:
    """Exit 0, with the figures of the dependency and who asked."""
    stage.script["probe"] = said = answer(waited_s=1.5, details={"max_connections": 97, "connections": 5})
    ran = ctl("probe", "shop/database")
    assert stage.asked == [{"verb": "probe", "name": "shop/database"}]
    assert (ran.code, ran.lines) == (
        0,
        [
            "probe            database (sqlalchemy)",
            "verdict          passed",
            "said             the statement was carried out",
            "took             0.0123 s",
            "waited           1.5s",
            "max connections  97",
            "connections      5",
            "asked by         prober:1",
        ],
    )
    assert ctl("probe", "database", "--json").json == said


@pytest.mark.parametrize(
    ("verdict", "codes"), [("passed", (0, 0, 0)), ("failed", (3, 2, 1)), ("error", (4, 2, 1))]
)
def test_the_verdict_is_the_exit_code(
    stage: Stage, ctl: Ctl, verdict: str, codes: tuple[int, int, int]
) -> None:
    """A probe that could not be asked has not failed."""
    stage.script["probe"] = answer(verdict=verdict, text="why")
    styles = ("lsb", "nagios", "probe")
    assert tuple(ctl("probe", "database", "--exit-code", style).code for style in styles) == codes


def test_no_answer_and_no_probe(stage: Stage, ctl: Ctl) -> None:
    """What to do is said."""
    stage.script["probe"] = No("unprobed", "cache has no probe in the configuration")
    ran = ctl("probe", "cache")
    assert ran.code == 1
    assert "[breakers.NAME.probe]" in ran.err
    stage.script["probe"] = SILENCE
    assert ctl("probe", "cache", "--timeout", "0.1").code == 4
    stage.script["probe"] = {"schema": 1, "probe": "database"}
    assert ctl("probe", "cache").code == 4


@pytest.mark.parametrize("words", [(), ("a", "b")])
def test_it_takes_one_name(ctl: Ctl, words: tuple[str, ...]) -> None:
    """And no flag that means nothing for it."""
    assert ctl("probe", *words).code == 2
    assert ctl("probe", "a", "--watch").code == 2


# --- doctor -------------------------------------------------------------------------------------------

CONFIGURATION = """
[workers.web]
target = "shop:web"
count = 10
pool_max = 5
[workers.mail]
target = "shop:mail"
[breakers.database.probe]
kind = "sqlalchemy"
url = "env:DATABASE_URL"
"""


def configuration(more: str = "") -> dict[str, Any]:
    """The answer to `config` of a daemon with managed workers and probes."""
    return {"schema": 1, "file": "f", "config": parse(CONFIGURATION + more, "f").to_json()}


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (answer(), "pass"),
        (answer(verdict="failed", text="connection refused"), "warn"),
        (answer(verdict="error", text="password authentication failed"), "warn"),
        (No("busy", "all probers are taken"), "warn"),
        (No("denied", "user bob may not command"), "warn"),
    ],
)
def test_doctor_asks_every_probe_once(stage: Stage, ctl: Ctl, said: Any, status: str) -> None:
    """Each finding that is not well says what to do."""
    stage.script["config"] = configuration()
    stage.script["probe"] = said
    ran = consult(stage, ctl)
    assert findings(ran)["probe"] == status
    assert [one for one in stage.asked if one["verb"] == "probe"] == [{"verb": "probe", "name": "database"}]
    (found,) = (one for one in ran.json["findings"] if one["check"] == "probe")
    assert bool(found["action"]) is (status != "pass")


def test_doctor_without_a_probe_asks_nothing(stage: Stage, ctl: Ctl) -> None:
    """Nor of a daemon that cannot say what is configured."""
    for told in (No("verb", "unknown verb"), {"schema": 1, "file": None, "config": parse("", "f").to_json()}):
        stage.script["config"] = told
        ran = consult(stage, ctl)
        assert "probe" not in findings(ran)
        assert not [one for one in stage.asked if one["verb"] == "probe"]


def test_doctor_names_what_it_did_not_ask(stage: Stage, ctl: Ctl) -> None:
    """So that nobody takes silence for health."""
    tables = "".join(
        f"[breakers.t{number:02}.probe]\nkind = 'tcp'\naddress = 'h:1'\n" for number in range(PROBES_MAX)
    )
    stage.script["config"] = configuration(tables)
    stage.script["probe"] = answer()
    ran = consult(stage, ctl)
    assert "not asked, too many: t19" in [one["text"] for one in ran.json["findings"]]
    assert len([one for one in stage.asked if one["verb"] == "probe"]) == PROBES_MAX


def found(most: int | None, more: str = "") -> list[Finding]:
    """What is said of pools where the server lets so many in."""
    details = {} if most is None else {"max_connections": most, "connections": 7}
    return list(pools("database", configuration(more)["config"], details))


def test_pools_times_processes_are_held_against_the_server_s_limit() -> None:
    """Ten workers of five, two probers: 52."""
    says = "database: managed processes may open 52 connections (web 50, probers 2), the server lets"
    (well,) = found(52)
    assert (well.check, well.status) == ("pools", "pass")
    assert well.text == f"{says} 52 in and has 7; not told: mail"
    assert "pool_max in [workers.mail]" in well.action
    (bad,) = found(51)
    assert (bad.status, bad.text) == ("warn", f"{says} 51 in and has 7")
    assert "max_connections" in bad.action
    assert found(None) == []
    (third,) = found(52, "[supervisor]\nprobe_processes = 3\n")
    assert third.status == "warn"
