"""The control socket's file while the supervisor lives: it comes back, and takes nobody else's place."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.listener import listen
from supervisor.seat import LOOK_S, Seat


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    """One that was just made, in a directory of its own."""
    (tmp_path / "run").mkdir()
    path = str(tmp_path / "run" / "s.sock")
    made = Seat(path, listen(path), activated=False)
    yield made
    made.listener.close()


def answers(path: str) -> bool:
    """Whether somebody listens there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0


def test_as_long_as_the_file_is_there_nothing_happens(seat: Seat) -> None:
    """Also after it was given to a group, or its mode was changed."""
    before = seat.listener
    os.chmod(seat.path, 0o666)
    for turn in range(5):
        seat.look(turn * LOOK_S)
    assert (seat.listener, seat.untold) == (before, False)


@pytest.mark.parametrize("how", ["file", "directory", "stale"])
def test_a_file_that_is_gone_is_made_again_with_its_mode(seat: Seat, how: str) -> None:
    """A cleaner took it, or all of the directory, or put a dead socket there from a backup."""
    os.chmod(seat.path, 0o600)
    seat.look(LOOK_S)
    if how == "directory":
        shutil.rmtree(os.path.dirname(seat.path))
    else:
        os.unlink(seat.path)
    if how == "stale":
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(seat.path)
    assert not answers(seat.path)
    seat.look(1.5 * LOOK_S)
    assert not answers(seat.path), "it is not looked at each turn"
    seat.look(2 * LOOK_S)
    assert answers(seat.path)
    assert seat.untold
    assert stat.S_IMODE(os.lstat(seat.path).st_mode) == 0o600
    seat.remove()
    assert not os.path.lexists(seat.path)


def test_systemds_file_that_is_gone_is_ours_from_then_on(
    seat: Seat, caplog: pytest.LogCaptureFixture
) -> None:
    """The socket unit has to be restarted before it listens again; until then somebody must."""
    theirs = Seat(seat.path, seat.listener, activated=True)
    theirs.remove()
    assert answers(seat.path), "systemd's file is left alone"
    os.unlink(seat.path)
    theirs.look(LOOK_S)
    assert answers(seat.path)
    assert "restart breakerd.socket" in caplog.text
    theirs.remove()
    assert not os.path.lexists(seat.path)
    seat.listener = theirs.listener


def test_what_is_somebody_elses_is_left_alone_and_told_once(
    seat: Seat, caplog: pytest.LogCaptureFixture
) -> None:
    """A file, or another program that listens; once it is away, the place is taken again."""
    os.unlink(seat.path)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(seat.path)
        foreign.listen()
        for turn in range(1, 4):
            seat.look(turn * LOOK_S)
        assert not seat.untold
        assert caplog.text.count("another program listens") == 1
        os.unlink(seat.path)
    Path(seat.path).write_text("precious")
    for turn in range(4, 7):
        seat.look(turn * LOOK_S)
    assert Path(seat.path).read_text() == "precious"
    assert caplog.text.count("regular file") == 1
    os.unlink(seat.path)
    seat.look(8 * LOOK_S)
    assert answers(seat.path)
