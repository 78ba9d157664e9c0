"""Managed processes for real: how they begin, with what code, and how all of them end together."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from supervisor.settings_workers import WorkerTable
from supervisor.ward import WardSpec
from tests.supervisor.ward_rig import Rig, rig, table

__all__ = ["rig"]


def test_all_are_restarted_but_the_supervisors_own(rig: Rig, tmp_path: Path) -> None:
    """Each is another process afterwards, and none of it counts as a failure."""
    rig.apply(
        WardSpec(table("own", "talks"), internal=True, talk=True),
        table("first", "stays", str(tmp_path)),
        table("second", "stays", str(tmp_path), count=2),
    )
    rig.until(lambda: set(rig.states().values()) == {"RUNNING"})
    before = {ward.title: ward.pid for ward in rig.wards}
    assert rig.command("restart", "all") == ["first", "second:1", "second:2"]
    rig.until(
        lambda: all(ward.pid not in (0, before[ward.title]) for ward in rig.wards if ward.title != "own:1")
    )
    assert rig.ward("own:1").pid == before["own:1"]
    assert {ward.course.restarts for ward in rig.wards} == {0}


def test_they_start_in_the_order_of_the_file(rig: Rig, tmp_path: Path) -> None:
    """However many begin in one turn of the loop."""
    names = ["zebra", "ant", "mole", "bee", "yak", "cow"]
    rig.apply(*(table(name, "stays", str(tmp_path)) for name in names))
    rig.until(lambda: set(rig.states().values()) == {"RUNNING"})
    born = [said["title"] for kind, said, _ in rig.told if kind == b"M" and said["pid"]]
    assert list(dict.fromkeys(born)) == names


def test_all_together_have_twenty_seconds(rig: Rig, tmp_path: Path) -> None:
    """Whose turn has not come is asked after fifteen; whoever is left then is killed, whatever its table."""
    rig.apply(
        table("first", "leaves_a_note", str(tmp_path), "1", stop_timeout_s=60.0),
        table("second", "leaves_a_note", str(tmp_path), "2", stop_timeout_s=60.0),
        table("third", "ignores", str(tmp_path), stop_timeout_s=60.0),
    )
    for name in ("1", "2", "begun"):
        rig.seen(tmp_path, name)
    now = time.monotonic()
    rig.wards.leave(now)
    rig.wards.turn(set(), now + 14.9)
    assert rig.states() == {"first": "RUNNING", "second": "RUNNING", "third": "STOPPING"}
    rig.wards.turn(set(), now + 15.0)
    rig.until(lambda: rig.states() == {"first": "STOPPED", "second": "STOPPED", "third": "STOPPING"})
    assert sorted((tmp_path / "order").read_text().split()) == ["1", "2"]
    rig.wards.turn(set(), now + 19.9)
    assert (rig.ward("third").pid > 0, rig.wards.over(now + 19.9)) == (True, False)
    rig.wards.turn(set(), now + 20.0)
    rig.until(lambda: rig.wards.over(now))
    assert rig.ward("third").last_exit == "killed by SIGKILL"


def test_a_restart_takes_new_code_and_none_of_it_is_ours(rig: Rig, tmp_path: Path) -> None:
    """The target is imported after the fork, in that process alone."""
    code = (
        "import time, pathlib\ndef run():\n    pathlib.Path('said').write_text({!r})\n    time.sleep(600)\n"
    )
    (tmp_path / "fresh_target.py").write_text(code.format("old"))
    said = tmp_path / "said"
    rig.apply(WorkerTable("web", "fresh_target:run", directory=str(tmp_path), start_s=0.0))
    rig.until(lambda: said.exists() and said.read_text() == "old")
    (tmp_path / "fresh_target.py").write_text(code.format("newer"))
    rig.command("restart", "web")
    rig.until(lambda: said.read_text() == "newer")
    assert "fresh_target" not in sys.modules


def test_a_table_may_have_its_own_level(rig: Rig, tmp_path: Path) -> None:
    """Else it is the supervisor's."""
    rig.home.level = "warning"
    rig.apply(
        table("loud", "stays", str(tmp_path), "loud", log_level="debug"),
        table("usual", "stays", str(tmp_path), "usual"),
    )
    assert [rig.seen(tmp_path, name)["level"] for name in ("loud", "usual")] == ["DEBUG", "WARNING"]
