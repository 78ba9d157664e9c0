"""A daemon's end with and without its nursery."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from supervisor.leaving import LEAVE_S, Leaving, Pids


class Loop:
    """What a daemon's loop does for it, by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waiting: list[Callable[[], None]] = []
        self.stops = 0
        self.nursery_lives = True
        self.pids: list[int] = []
        self.attached: list[int] = []
        self.leaving = Leaving(
            lambda _, work: self.waiting.append(work),
            lambda: self.now,
            self._stop,
            lambda: self.nursery_lives,
            Pids(lambda: self.pids, lambda: self.attached),
        )

    def _stop(self) -> None:
        self.stops += 1

    def turn(self) -> None:
        """What waits is done."""
        waiting, self.waiting = self.waiting, []
        for work in waiting:
            work()


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until it is ended."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_asked_by_its_nursery_it_ends_at_once(worker: subprocess.Popen[bytes]) -> None:
    """The nursery has ended its workers before."""
    loop = Loop()
    loop.pids = [worker.pid]
    loop.leaving.asked()
    loop.turn()
    assert (loop.stops, loop.waiting) == (1, [])


def test_a_signal_may_be_the_first_sign_of_the_nurserys_death(worker: subprocess.Popen[bytes]) -> None:
    """The kernel sends it when the first thread is dead; then the others die, too."""
    loop = Loop()
    loop.pids = [worker.pid]
    loop.leaving.asked()
    loop.nursery_lives = False
    loop.turn()
    assert (loop.stops, len(loop.waiting)) == (0, 1)


def test_without_a_nursery_it_ends_after_the_workers(worker: subprocess.Popen[bytes]) -> None:
    """Dead is who has not been reaped yet, too; then it must be counted. Said twice, it ends once."""
    loop = Loop()
    loop.pids = [worker.pid]
    loop.attached = [worker.pid, os.getpid()]
    loop.leaving.orphaned()
    loop.leaving.orphaned()
    loop.turn()
    assert (loop.stops, len(loop.waiting)) == (0, 1)
    worker.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)
    loop.turn()
    assert (loop.stops, len(loop.waiting)) == (0, 1)
    loop.attached.remove(worker.pid)
    loop.turn()
    assert (loop.stops, loop.waiting) == (1, [])


def test_it_does_not_wait_for_ever(worker: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture) -> None:
    """One that ignores signals keeps its own segment; that the next breakerd starts another is told."""
    loop = Loop()
    loop.pids = [worker.pid]
    loop.leaving.orphaned()
    loop.now += LEAVE_S
    assert not caplog.messages
    loop.turn()
    assert (loop.stops, loop.waiting) == (1, [])
    assert [text.endswith(f"pid {worker.pid}") for text in caplog.messages] == [True]


def test_who_has_ended_is_not_waited_for() -> None:
    """The newest word of the nursery counts."""
    loop = Loop()
    loop.leaving.orphaned()
    assert loop.stops == 1
