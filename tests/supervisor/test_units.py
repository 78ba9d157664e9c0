"""`breakerd install-units`: the shipped files, made true for one environment, and taken away again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor import units
from supervisor.errors import ConfigurationError
from supervisor.main import main
from supervisor.units import Home

CONTROL = "/srv/venv/bin/supervisorctl"
SYSTEM = Home("/srv/venv/bin/breakerd run", CONTROL, ("/srv/venv/bin/breakerd",))
SERVICE = units.PLACES["breakerd.service"]


def written(prefix: Path) -> list[str]:
    """Every file below the prefix."""
    return sorted(str(path.relative_to(prefix)) for path in prefix.rglob("*") if path.is_file())


def test_every_shipped_file_has_its_place() -> None:
    """Nothing in the folder is forgotten."""
    assert sorted(os.listdir(units.folder())) == sorted(units.PLACES)


def test_they_are_written_for_the_environment(tmp_path: Path) -> None:
    """The commands are those of the environment; all else is as it was shipped, but for one line."""
    lines = units.install(str(tmp_path), SYSTEM)
    assert written(tmp_path) == sorted(units.PLACES.values())
    text = (tmp_path / SERVICE).read_text()
    shipped = (Path(units.folder()) / "breakerd.service").read_text()
    shipped = shipped.replace("/usr/bin/breakerd run", SYSTEM.command)
    assert text == units.MARK + shipped.replace("/usr/bin/supervisorctl", CONTROL)
    assert "\nExecStart=/srv/venv/bin/breakerd run\n" in text
    assert "\nExecReload=/srv/venv/bin/supervisorctl reload\n" in text
    assert (tmp_path / SERVICE).stat().st_mode & 0o777 == 0o644
    assert lines[0] == f"wrote {tmp_path / SERVICE}"
    assert any("daemon-reload" in line for line in lines)
    assert units.install(str(tmp_path), SYSTEM) == lines


def test_they_are_taken_away_with_the_directories_that_are_empty_then(tmp_path: Path) -> None:
    """What others have there stays."""
    units.install(str(tmp_path), SYSTEM)
    other = tmp_path / "lib/sysusers.d/other.conf"
    other.write_text("")
    assert len(units.remove(str(tmp_path))) == len(units.PLACES)
    assert written(tmp_path) == ["lib/sysusers.d/other.conf"]
    assert not (tmp_path / "lib/systemd").exists()
    assert units.remove(str(tmp_path)) == [f"nothing of breakerd is below {tmp_path}"]


def test_what_somebody_else_wrote_is_left_alone(tmp_path: Path) -> None:
    """Neither overwritten nor removed, and nothing else is written either."""
    path = tmp_path / SERVICE
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="was not written by install-units"):
        units.install(str(tmp_path), SYSTEM)
    assert written(tmp_path) == [SERVICE]
    assert units.remove(str(tmp_path)) == [f"left {path}: it was not written by install-units"]
    assert path.read_text() == "mine"


def test_an_environment_in_a_home_is_not_hidden_from_the_service(tmp_path: Path) -> None:
    """ProtectHome= would take its interpreter away."""
    script = f"{units.HOMES[0]}/me/venv/bin/breakerd"
    home = Home(f"{script} run", CONTROL, (script,))
    units.install(str(tmp_path), home)
    assert "\nProtectHome=read-only\n" in (tmp_path / SERVICE).read_text()


def test_what_the_services_user_cannot_reach_is_told(tmp_path: Path) -> None:
    """A closed directory on the way, and a temporary one."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    told = units.warnings(Home("", "", (str(closed / "python"),)))
    assert any(f"cannot reach {closed / 'python'}" in line and "closed to others" in line for line in told)
    assert "PrivateTmp" in units.warnings(Home("", "", (f"{units.TEMPORARY[0]}/somebody/bin/python",)))[0]
    assert units.warnings(Home("", "", ("/usr/bin/env",))) == []


def test_paths_are_quoted_as_systemd_wants_it(tmp_path: Path) -> None:
    """A blank, a percent sign and a dollar are not what they look like in a unit."""
    assert units._quoted("/a b/%x/$y") == '"/a b/%%x/$$y"'
    assert units._quoted("/srv/breakerd") == "/srv/breakerd"


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the shell, there and back; a prefix that cannot be written is a sentence and exit 78."""
    assert main(["install-units", "--prefix", str(tmp_path)]) == 0
    assert written(tmp_path) == sorted(units.PLACES.values())
    assert main(["install-units", "--prefix", str(tmp_path), "--remove"]) == 0
    assert written(tmp_path) == []
    capsys.readouterr()
    (tmp_path / "file").write_text("")
    assert main(["install-units", "--prefix", str(tmp_path / "file")]) == 78
    assert "cannot be written" in capsys.readouterr().err
