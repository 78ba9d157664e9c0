"""`config`: check, example and show."""

from __future__ import annotations

from pathlib import Path

from supervisor.example import example
from supervisor.settings import SupervisorSettings
from tests.schemas import problems
from tests.supervisor.ctl.conftest import Ctl, Stage

BAD = """
[breakers.database]
failure_threshold = -3
minimum_calls = 0
"""


def test_check_needs_no_supervisor_and_names_every_mistake(folder: Path, ctl: Ctl) -> None:
    """One mistake a line, exit code 3."""
    file = folder / "breakerd.toml"
    file.write_text(BAD)
    ran = ctl("config", "check", str(file))
    assert ran.code == 3
    assert ran.lines == [
        f"{file}: breakers.database.failure_threshold: must be >= 1, got -3",
        f"{file}: breakers.database.minimum_calls: must be >= 1, got 0",
    ]
    checked = ctl("config", "check", str(file), "--json")
    assert problems("config-check", checked.json) == []
    assert checked.json["errors"] == ran.lines


def test_check_of_a_good_file(folder: Path, ctl: Ctl) -> None:
    """Exit code 0 and what is in it."""
    file = folder / "breakerd.toml"
    file.write_text("[breakers.database]\n[namespaces.shop]\nusers = ['deploy']\n")
    ran = ctl("config", "check", str(file))
    assert ran.code == 0
    assert ran.lines == [f"{file}: good: 1 breakers, 1 namespaces, 0 workers"]


def test_check_of_a_file_that_is_not_there(folder: Path, ctl: Ctl) -> None:
    """A mistake like any other."""
    ran = ctl("config", "check", str(folder / "none.toml"))
    assert ran.code == 3
    assert "No such file" in ran.out


def test_example_is_printed_as_it_is(ctl: Ctl) -> None:
    """To be redirected into a file."""
    assert ctl("config", "example").out == example()
    ran = ctl("config", "example", "--json")
    assert problems("config-example", ran.json) == []


def test_show_is_one_setting_a_line(stage: Stage, ctl: Ctl) -> None:
    """Path and value, and where it was read."""
    stage.script["config"] = {"schema": 1, "file": None, "config": SupervisorSettings().to_json()}
    ran = ctl("config", "show")
    assert ran.lines[0] == "no configuration file: everything stands at its default"
    assert "supervisor.tick_s           0.02" in ran.lines
    shown = ctl("config", "show", "--json")
    assert problems("config-show", shown.json) == []
