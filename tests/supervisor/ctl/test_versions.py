"""`version` and --version."""

from __future__ import annotations

from supervisor.ctl.versions import installed
from tests.schemas import problems
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Ctl, Stage


def test_both_versions_and_a_word_where_they_differ(stage: Stage, ctl: Ctl) -> None:
    """An upgrade without a restart is seen."""
    stage.script["version"] = answers.version(version="0.0.1")
    ran = ctl("version")
    assert ran.lines[0].split() == ["supervisorctl", installed()]
    assert ran.lines[1].split() == ["supervisor", "0.0.1"]
    assert "restart breakerd" in ran.lines[-1]
    stage.script["version"] = answers.version(version=installed())
    assert "restart" not in ctl("version").out


def test_json_is_true_to_its_schema(stage: Stage, ctl: Ctl) -> None:
    """With a supervisor and without one."""
    stage.script["version"] = answers.version()
    assert problems("version", ctl("version", "--json").json) == []
    assert problems("version-local", ctl("--version", "--json").json) == []


def test_the_flag_asks_nobody(ctl: Ctl) -> None:
    """It works where no supervisor is."""
    ran = ctl("--version")
    assert ran.code == 0
    assert ran.lines == [installed()]
