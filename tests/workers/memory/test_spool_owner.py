"""A replayer that was started as root."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.conftest import could_not_run
from tests.workers.memory.posts import (
    NOBODY,
    Stage,
    in_child,
    open_folder,
    stage,
)
from workers.memory.spool_owner import become

__all__ = ["open_folder", "stage"]


def test_root_becomes_the_owner(stage: Stage, open_folder: Path) -> None:
    """With the groups that it needs, a home, and the signal at its parent's death; files are the owner's."""
    if os.geteuid() != 0:
        could_not_run("G12", "it needs root")
    os.mkdir(stage.directory, 0o700)
    os.chown(stage.directory, NOBODY, NOBODY)
    socket = stage.folder / "socket"
    socket.touch()
    os.chmod(socket, 0o660)
    os.chown(socket, 0, 4711)

    def work() -> None:
        become(NOBODY, NOBODY, str(socket))
        assert (os.getuid(), os.geteuid(), os.getgid()) == (NOBODY, NOBODY, NOBODY)
        assert 4711 in os.getgroups()
        with contextlib.suppress(PermissionError):
            os.setuid(0)
            raise AssertionError
        stage.orphan("one")
        stage.turns()
        assert stage.store.order == ["one"]
        assert {
            os.stat(os.path.join(stage.directory, one)).st_uid for one in os.listdir(stage.directory)
        } == {NOBODY}

    assert in_child(work) == 0
