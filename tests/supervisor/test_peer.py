"""The kernel says who connected: pid, uid, gid, and the groups that the process has."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from supervisor.peer import peer_of
from tests.conftest import could_not_run


def test_a_peer_is_who_connected(tmp_path: Path) -> None:
    """This process itself."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        client.connect(str(tmp_path / "s"))
        accepted, _ = listener.accept()
        with accepted:
            peer = peer_of(accepted)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert set(peer.groups) == set(os.getgroups())


def test_groups_that_no_database_knows_are_seen(tmp_path: Path) -> None:
    """As systemd's SupplementaryGroups= and docker's group_add give them to a process."""
    if os.geteuid() != 0:
        could_not_run("peer-groups", "only root can take groups")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        os.chmod(tmp_path / "s", 0o777)
        child = os.fork()
        if child == 0:
            os.setgroups([61_001, 61_002])
            end = socket.socket(socket.AF_UNIX)
            end.connect(str(tmp_path / "s"))
            os._exit(0)
        os.waitpid(child, 0)
        accepted, _ = listener.accept()
        with accepted:
            assert set(peer_of(accepted).groups) == {61_001, 61_002}
