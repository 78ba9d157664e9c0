"""A process is told from every other one, also where pidfds have no inodes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from supervisor.process_identity import ProcessIdentity, has_run_since, origin, start_tick

ME = ProcessIdentity(1001, 500, 7000, 3)
ABOUT = {"uid": 1001, "pid": 500, "tick": 7000, "inode": 3}


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"uid": 1002}, False),
        ({"pid": 501}, False),
        ({"tick": 7001}, False),
        ({"tick": 0}, True),
        ({"pid": 0, "tick": 0}, False),
    ],
)
def test_user_pid_and_tick_make_a_process(change: dict[str, int], same: bool) -> None:
    """With equal inodes, as before Linux 6.9; a tick that is not known does not decide."""
    assert replace(ME, **change).is_process_of(ABOUT) is same


def test_in_another_pid_namespace_the_inode_decides() -> None:
    """Both have pid 0 there."""
    away, about = replace(ME, pid=0, tick=0), {**ABOUT, "pid": 0, "tick": 0}
    assert away.is_process_of(about)
    assert not replace(away, inode=4).is_process_of(about)
    assert not replace(away, uid=0).is_process_of(about)


def test_a_process_has_run_since_its_birth_and_not_before() -> None:
    """A pid that was given away again belongs to a process that began later."""
    before = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert origin(child.pid)[1] == os.getpid()
        assert start_tick(child.pid) >= start_tick(os.getpid()) > 0
        assert has_run_since(child.pid, time.monotonic())
        assert not has_run_since(child.pid, before - 1.0)
        child.communicate(b"\n")
    assert not has_run_since(child.pid, time.monotonic())
    assert [start_tick(pid) for pid in (child.pid, 0, -1)] == [0, 0, 0]
