"""`doctor`: every finding with what to do, with a supervisor, with half of one, and without."""

from __future__ import annotations

import grp
import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.ctl import doctor
from supervisor.ctl.doctor import Caller
from supervisor.ctl.finding import Finding
from supervisor.ctl.versions import installed
from supervisor.settings import parse
from tests.schemas import problems
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Ctl, No, Ran, Stage, Ticks


def selfcheck(**changes: Any) -> dict[str, Any]:
    """What a daemon that is well says of itself at the time of `Ticks`."""
    found: dict[str, Any] = {
        "schema": 1,
        "clock_ns": 1000 * 10**9,
        "uid": os.getuid(),
        "descriptors": 30,
        "descriptors_max": 65_536,
        "runtime": {"path": "/run/breakerd", "free_bytes": 1 << 30},
        "state": {
            "path": "/var/lib/breakerd",
            "free_bytes": 1 << 30,
            "copy_took_s": 0.01,
            "copy_bytes_per_s": 2048.0,
            "problem": "",
        },
    }
    assert problems("selfcheck", found | changes) == []
    return found | changes


def findings(ran: Ran) -> dict[str, str]:
    """Check -> the worst status that it has in the JSON, which is true to its schema; all say what to do."""
    assert problems("doctor", ran.json) == []
    assert [one for one in ran.json["findings"] if one["status"] != "pass" and not one["action"]] == []
    return {one["check"]: one["status"] for one in reversed(ran.json["findings"])}


def consult(stage: Stage, ctl: Ctl, **changes: Any) -> Ran:
    """Ask with a daemon of this version that says these things of itself."""
    stage.script["version"] = answers.version(version=installed())
    stage.script["doctor"] = selfcheck(**changes)
    stage.script.setdefault("config", {"schema": 1, "file": None, "config": parse("", "f").to_json()})
    os.chmod(stage.path, 0o660)
    return ctl("doctor", "--json", ticks=Ticks())


def test_a_well_kept_host_has_nothing_to_do(stage: Stage, ctl: Ctl) -> None:
    """Exit 0, every check named."""
    ran = consult(stage, ctl)
    found = findings(ran)
    found.pop("command")  # of this machine's PATH
    assert set(found.values()) == {"pass"}
    assert {"daemon", "versions", "clock", "limits", "group", "socket-mode", "state-copy"} <= set(found)
    assert ran.code == 0
    assert "CHECK" in ctl("doctor", ticks=Ticks()).lines[0]


@pytest.mark.parametrize(
    ("check", "status", "changes"),
    [
        ("clock", "fail", {"clock_ns": 900 * 10**9}),
        ("clock", "pass", {"clock_ns": 1000 * 10**9 + 40_000_000}),
        ("limits", "fail", {"descriptors": 1000, "descriptors_max": 1024}),
        ("limits", "warn", {"descriptors_max": 4096}),
        ("runtime-space", "warn", {"runtime": {"path": "/run/breakerd", "free_bytes": 1 << 20}}),
        ("runtime-space", "fail", {"runtime": {"path": "/run/breakerd", "free_bytes": None}}),
    ],
)
def test_what_the_daemon_says_is_judged(
    stage: Stage, ctl: Ctl, check: str, status: str, changes: dict[str, Any]
) -> None:
    """A failure is exit 3, a warning is none."""
    ran = consult(stage, ctl, **changes)
    assert findings(ran)[check] == status
    assert ran.code == (3 if status == "fail" else 0)


@pytest.mark.parametrize(
    ("state", "status"),
    [({"copy_took_s": 2.5}, "warn"), ({"copy_took_s": None}, "pass"), ({"problem": "disk full"}, "fail")],
)
def test_the_copy_that_survives_a_reboot_is_judged(
    stage: Stage, ctl: Ctl, state: dict[str, Any], status: str
) -> None:
    """Late, not yet due, failing."""
    plain = selfcheck()["state"]
    assert findings(consult(stage, ctl, state={**plain, **state}))["state-copy"] == status


def test_an_older_daemon_is_said_to_be_one(stage: Stage, ctl: Ctl) -> None:
    """It knows no such verb; the version differs, too."""
    stage.script["version"] = answers.version(version="0.0.1")
    stage.script["doctor"] = No("verb", "unknown verb 'doctor'")
    ran = ctl("doctor", "--json", ticks=Ticks())
    assert {findings(ran)[check] for check in ("versions", "limits")} == {"warn"}


def test_without_a_supervisor_it_says_how_to_start_one_and_looks_on(ctl: Ctl) -> None:
    """Exit 3: that nobody answers is a finding, not the end."""
    ran = ctl("doctor", "--json")
    found = findings(ran)
    assert found["daemon"] == "fail"
    assert {"kernel", "environment", "state-space", "state-copy"} <= set(found)
    assert ran.code == 3
    assert "what to do about daemon: start it" in ctl("doctor").out


def test_warnings_can_be_made_failures(stage: Stage, ctl: Ctl) -> None:
    """--fail-on warn, for a deployment's check."""
    consult(stage, ctl, descriptors_max=4096)
    assert ctl("doctor", ticks=Ticks()).code == 0
    assert ctl("doctor", "--fail-on", "warn", ticks=Ticks()).code == 3


def test_a_socket_that_is_open_to_strangers_is_told(stage: Stage, folder: Path) -> None:
    """Its own mode, and worse: that of its directory."""
    me = Caller.here()

    def judged(mode: int, above: int) -> str:
        os.chmod(stage.path, mode)
        folder.chmod(above)
        return next(iter(doctor.socket_file(stage.path, me))).status

    assert judged(0o660, 0o750) == "pass"
    assert judged(0o666, 0o750) == "pass"  # nobody else can pass the directory
    assert judged(0o666, 0o755) == "warn"
    assert judged(0o660, 0o777) == "fail"
    folder.chmod(0o700)


def test_a_file_that_is_no_socket_is_told(folder: Path) -> None:
    """The path is taken by something else."""
    (folder / "s").write_text("")
    assert [one.status for one in doctor.socket_file(str(folder / "s"), Caller.here())] == ["fail"]


def test_who_may_ask() -> None:
    """Root and the owner, the group in this session; who was added later must log in again."""
    group = next((one for one in grp.getgrall() if one.gr_mem), None)
    stranger = Caller(4711, "stranger", frozenset({4711}))
    assert doctor.membership(0, 0, Caller(0, "root", frozenset())).status == "pass"
    assert doctor.membership(4711, 0, stranger).status == "pass"
    assert doctor.membership(0, 4711, stranger).status == "pass"
    refused = doctor.membership(0, 987_654, stranger)
    assert (refused.status, "usermod -aG 987654 stranger" in refused.action) == ("fail", True)
    if group is not None:
        late = doctor.membership(0, group.gr_gid, Caller(4711, group.gr_mem[0], frozenset()))
        assert "log in again" in late.action


def test_another_supervisorctl_on_the_path_is_told() -> None:
    """The name that never collides is said."""
    assert doctor.command(None, "/srv/venv/bin").status == "pass"
    assert doctor.command("/srv/venv/bin/supervisorctl", "/srv/venv/bin").status == "pass"
    other = doctor.command("/usr/bin/supervisorctl", "/srv/venv/bin")
    assert isinstance(other, Finding)
    assert (other.status, "breakerctl" in other.action) == ("warn", True)


def test_the_other_supervisor_in_this_environment_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A distribution of that name on the path, as pip leaves it."""

    def judged() -> Finding:
        return next(one for one in doctor.environment() if one.check == "environment")

    assert judged().status == "pass"
    info = tmp_path / "supervisor-4.3.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: supervisor\nVersion: 4.3.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = judged()
    assert (found.status, "4.3.0" in found.text, "environment of its own" in found.action) == (
        "fail", True, True,
    )  # fmt: skip
