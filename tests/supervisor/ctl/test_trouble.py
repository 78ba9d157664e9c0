"""Away, hung and denied are told apart, each with what to do."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipc.errors import ControlDenied, SettingsError, SupervisorUnavailable
from supervisor.ctl.page import Verdict
from supervisor.ctl.trouble import explain
from tests.conftest import could_not_run
from tests.schemas import problems
from tests.supervisor.ctl.conftest import HANG_UP, SILENCE, Ctl, No, Stage

NOBODY = 65534


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Be a user without any right, for a while."""
    if os.geteuid() != 0:
        could_not_run("denied-as-another-user", "only root can become another user")
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def test_away_without_a_socket(ctl: Ctl) -> None:
    """No socket: exit code 4, the path, and how to start it."""
    ran = ctl("health")
    assert ran.code == 4
    assert ran.out == ""
    assert "does not exist" in ran.err
    assert "start it" in ran.err


def test_away_with_a_socket_left_behind(folder: Path, ctl: Ctl) -> None:
    """Nobody listens: told apart from no socket at all."""
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(f"{folder}/breakerd.sock")
    left.close()
    ran = ctl("health")
    assert ran.code == 4
    assert "nobody listens" in ran.err
    assert "journalctl" in ran.err


def test_hung_names_the_process_within_two_seconds(stage: Stage, ctl: Ctl) -> None:
    """A supervisor that accepts and says nothing: which process, within the time limit."""
    stage.script["health"] = SILENCE
    began = time.monotonic()
    ran = ctl("health", "--timeout", "200ms")
    assert time.monotonic() - began < 2.0
    assert ran.code == 4
    assert f"no answer within 0.2 s; the supervisor is hung or stopped (process {os.getpid()})" in ran.err
    assert "restart" in ran.err


def test_denied_names_the_group_to_join(stage: Stage, ctl: Ctl) -> None:
    """A user without permission learns which group may ask."""
    os.chmod(stage.path, 0o660)
    os.chmod(os.path.dirname(stage.path), 0o755)
    with nobody():
        ran = ctl("health")
    assert ran.code == 4
    assert "permission denied" in ran.err
    assert "usermod -aG root nobody" in ran.err


def test_denied_by_a_directory_that_is_the_owners_alone(stage: Stage, ctl: Ctl) -> None:
    """Where no group may pass, the owner is named."""
    os.chmod(os.path.dirname(stage.path), 0o700)
    with nobody():
        ran = ctl("health")
    assert "permission denied" in ran.err
    assert "root's alone" in ran.err


def test_a_place_that_another_user_made_is_not_trusted(
    folder: Path, ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a matter of groups: the directory under the temporary one is somebody else's."""
    monkeypatch.setenv("TMPDIR", str(folder))
    place = folder / f"breakerd-{os.getuid()}"
    place.touch()
    ran = ctl("health", f"--socket={place}/breakerd.sock")
    assert ran.code == 4
    assert "is not a directory of this user" in ran.err
    assert "not trusted" in ran.err


def test_a_command_that_may_not_be_given_names_the_setting(stage: Stage, ctl: Ctl) -> None:
    """Denied commands: exit code 4 and the line for the configuration."""
    stage.script["command"] = No("denied", "user nobody may not command")
    ran = ctl("breaker", "open", "database")
    assert ran.code == 4
    assert "may not command" in ran.err
    assert "[control] commanders" in ran.err


def test_a_command_without_an_answer_may_have_been_done(stage: Stage, ctl: Ctl) -> None:
    """Only a look can tell."""
    stage.script["command"] = HANG_UP
    ran = ctl("breaker", "open", "database")
    assert ran.code == 4
    assert "whether it was done is not known" in ran.err


@pytest.mark.parametrize(
    ("code", "hint"), [("unknown", "supervisorctl breakers"), ("ambiguous", "NAMESPACE/NAME")]
)
def test_a_name_that_means_no_breaker_or_two(stage: Stage, ctl: Ctl, code: str, hint: str) -> None:
    """The supervisor's sentence and the way out; exit code 1."""
    stage.script["breaker"] = No(code, "database: shop/database, blog/database")
    ran = ctl("breaker", "show", "database")
    assert ran.code == 1
    assert "shop/database, blog/database" in ran.err
    assert hint in ran.err


def test_json_says_the_trouble_on_standard_output_too(ctl: Ctl) -> None:
    """A program that reads JSON gets JSON; health has its status where it always is."""
    for verb in ("health", "stats"):
        ran = ctl(verb, "--json")
        assert problems("error", ran.json) == []
        assert ran.json["error"]["code"] == "absent"
    assert ctl("health", "--json").json["status"] == "fail"


def test_another_program_on_the_socket_is_no_supervisor(stage: Stage, ctl: Ctl) -> None:
    """An answer that makes no sense names the socket and the versions to compare."""
    stage.script["status"] = {"schema": 1, "processes": [{}]}
    ran = ctl("status")
    assert ran.code == 4
    assert "cannot be read" in ran.err
    assert "supervisorctl version" in ran.err


def test_every_reason_has_something_to_do() -> None:
    """No error leaves the operator alone."""
    for reason in ("absent", "refused", "denied", "timeout", "full", "closed", "off"):
        found = explain(SupervisorUnavailable("it is so", reason), "/nowhere/breakerd.sock")
        assert found.verdict is Verdict.UNAVAILABLE
        assert found.code == reason
        assert found.text
        assert found.action
    assert explain(ControlDenied("no"), "/x").verdict is Verdict.UNAVAILABLE
    assert explain(SettingsError("x", "no"), "/x").verdict is Verdict.REFUSED


def test_a_path_that_is_too_long_is_not_called_absent(ctl: Ctl) -> None:
    """The limit is named."""
    ran = ctl("health", f"--socket=/tmp/{'x' * 200}")
    assert ran.code == 4
    assert "107" in ran.err
