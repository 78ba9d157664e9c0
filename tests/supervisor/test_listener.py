"""The control socket's path: taken over only where nobody is, never anything else's."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.errors import ConfigurationError
from supervisor.listener import adopt, listen


def test_a_socket_is_made_for_the_group_and_nobody_else(tmp_path: Path) -> None:
    """0660, and connecting works at once."""
    path = tmp_path / "s.sock"
    with listen(str(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert os.listdir(tmp_path) == ["s.sock"]


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    """D1: the file of a killed supervisor is no obstacle."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listen(str(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("kind", ["a regular file", "a directory", "a FIFO", "a symbolic link"])
def test_what_is_no_socket_is_named_and_left_alone(tmp_path: Path, kind: str) -> None:
    """D2: the error says which path and what is there, and it is still there."""
    path = tmp_path / "s.sock"
    make: dict[str, Callable[[], object]] = {
        "a regular file": lambda: path.write_text("precious"),
        "a directory": path.mkdir,
        "a FIFO": lambda: os.mkfifo(path),
        "a symbolic link": lambda: path.symlink_to(tmp_path / "elsewhere"),
    }
    make[kind]()
    before = path.lstat()
    with pytest.raises(ConfigurationError, match=f"{path}: is {kind}"):
        listen(str(path))
    assert path.lstat() == before


def test_another_programs_live_socket_is_not_stolen(tmp_path: Path) -> None:
    """D3: it listens on, its inode unchanged."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen()
        inode = path.stat().st_ino
        with pytest.raises(ConfigurationError, match="another program listens"):
            listen(str(path))
        assert path.stat().st_ino == inode


def test_a_path_that_no_socket_can_have_is_refused_with_the_limit(tmp_path: Path) -> None:
    """D5."""
    with pytest.raises(ConfigurationError, match="may have at most"):
        listen(str(tmp_path / ("x" * 120)))


def test_a_socket_that_systemd_made_is_taken_over(tmp_path: Path) -> None:
    """The very same one, without waiting."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            taken = adopt(os.dup(given.fileno()), str(path))
            assert taken is not None
            with taken, taken.accept()[0]:
                assert taken.getblocking() is False


def test_a_socket_of_systemd_whose_file_is_gone_is_not_used(tmp_path: Path) -> None:
    """Nobody could find it: the nursery makes its own."""
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(path))
        given.listen()
        path.unlink()
        assert adopt(os.dup(given.fileno()), str(path)) is None


def test_a_socket_of_systemd_at_another_place_is_refused(tmp_path: Path) -> None:
    """Both places are named."""
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(str(tmp_path / "there.sock"))
        given.listen()
        with pytest.raises(ConfigurationError, match=r"here\.sock: the socket unit listens on .*there\.sock"):
            adopt(os.dup(given.fileno()), str(tmp_path / "here.sock"))
