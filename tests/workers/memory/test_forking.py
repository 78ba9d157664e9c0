"""Forks and what must hold still for them."""

from __future__ import annotations

import os
import threading

import pytest

from workers.memory import forking


class Still:
    """Something with a lock, which is told of forks."""

    def __init__(self) -> None:
        self.lock = forking.StillLock()
        forking.remember(self)

    def before_fork(self) -> None:
        """Take it."""
        self.lock.before_fork()

    def after_fork_in_parent(self) -> None:
        """Give it back."""
        self.lock.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Nobody has it."""
        self.lock.after_fork_in_child()

    @property
    def free(self) -> bool:
        """Whether it could be taken at once."""
        free = self.lock._lock.acquire(timeout=0.0)
        if free:
            self.lock._lock.release()
        return free


@pytest.mark.fault("B4")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_two_threads_that_fork_at_once_leave_every_lock_free() -> None:
    """One after the other: neither forgets what the other one had taken, and no child inherits it."""
    locks = [Still() for _ in range(3)]
    codes: list[int] = []

    def fork() -> None:
        for _ in range(25):
            child = os.fork()
            if child == 0:
                os._exit(0 if all(one.free for one in locks) else 1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

    threads = [threading.Thread(target=fork, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30.0)
    assert codes == [0] * 100
    assert all(one.free for one in locks)
