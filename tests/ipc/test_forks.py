"""What a forked child knows about itself."""

from __future__ import annotations

import os
import time

from ipc import forks


def test_a_process_knows_when_it_began() -> None:
    """The kernel tells it on the monotonic clock, at most two ticks early and never late."""
    before = time.monotonic()
    pid = os.fork()
    if pid == 0:
        began = forks.process_began()
        os._exit(0 if before - 0.03 <= began <= time.monotonic() else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_children_are_told_once() -> None:
    """What is remembered is told in the child of os.fork, and not in the parent."""

    class Told:
        def __init__(self) -> None:
            self.times = 0

        def after_fork(self) -> None:
            self.times += 1

    told = Told()
    forks.remember(told)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if told.times == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert told.times == 0
