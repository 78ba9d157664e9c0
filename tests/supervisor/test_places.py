"""Where socket, state and configuration are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ipc import control
from supervisor.errors import ConfigurationError
from supervisor.places import CONFIGURATION_FILE, places


def test_what_is_given_wins(tmp_path: Path) -> None:
    """The command line before the environment; relative paths become absolute."""
    env = {"BREAKERD_SOCKET": "/elsewhere/b.sock", "STATE_DIRECTORY": "/var/lib/breakerd"}
    found = places("run", str(tmp_path), "c.toml", env)
    assert found.runtime == os.path.abspath("run")
    assert found.socket == os.path.abspath("run/breakerd.sock")
    assert found.state == str(tmp_path)
    assert found.config == os.path.abspath("c.toml")


def test_the_environment_before_the_defaults() -> None:
    """BREAKERD_SOCKET names the socket itself; systemd names the directories."""
    found = places(environ={"BREAKERD_SOCKET": "/x/my.sock", "RUNTIME_DIRECTORY": "/run/y"})
    assert (found.socket, found.runtime) == ("/x/my.sock", "/x")
    env = {"BREAKERD_SOCKET": "off", "RUNTIME_DIRECTORY": "/run/y:/run/z", "STATE_DIRECTORY": "/var/lib/y"}
    found = places(environ=env)
    assert (found.socket, found.state) == ("/run/y/breakerd.sock", "/var/lib/y")
    assert places(environ={"XDG_STATE_HOME": "/h/state"}).state == "/h/state/breakerd"


def test_daemon_and_workers_agree_on_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing is said, both ends look at the same socket."""
    monkeypatch.delenv("BREAKERD_SOCKET", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    assert places().socket == control.socket_path()


def test_a_path_that_no_socket_can_have() -> None:
    """Said before anything is made, with the limit."""
    with pytest.raises(ConfigurationError, match="at most 107 bytes"):
        places("/" + "x" * 100)


def test_without_a_file_there_is_no_configuration() -> None:
    """The default file is used only where it exists."""
    expected = CONFIGURATION_FILE if os.path.lexists(CONFIGURATION_FILE) else None
    assert places("/x").config == expected
