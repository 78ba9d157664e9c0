"""What processes cost: of the process that is meant and no other, in a thread, in bounded time."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from supervisor import descriptors
from supervisor.actor import Stage
from supervisor.connections import Connections
from supervisor.figures import ASKERS_MAX, MEASURE_S, Figures, Measured, Subject, Wanted, measure
from tests.conftest import could_not_run
from tests.supervisor.answering import Answers, request

NOW = float("inf")
NOBODY = 65_534


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that waits."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    yield process
    process.communicate(b"\n")


def test_a_process_has_its_figures(child: subprocess.Popen[bytes]) -> None:
    """Memory in bytes, processor time, threads, descriptors."""
    found = measure([Subject(child.pid, NOW, parent=os.getpid()), Subject(os.getpid(), NOW)], time.monotonic)
    usage = found[child.pid]
    assert 1 << 20 < usage.rss_bytes < 1 << 30
    assert 0.0 <= usage.cpu_s < 60.0
    assert (usage.threads, usage.fds) == (1, 3)
    assert set(found) == {child.pid, os.getpid()}


def test_another_process_of_the_same_number_is_not_shown(child: subprocess.Popen[bytes]) -> None:
    """By its pidfd's inode where the kernel has one for each, by its beginning, by its parent."""
    pidfd = os.pidfd_open(child.pid)
    inode, own = os.fstat(pidfd).st_ino, os.pidfd_open(os.getpid())
    unique = inode != os.fstat(own).st_ino
    began = time.monotonic()
    wrong = [
        Subject(child.pid, began - 3600.0, inode),
        Subject(child.pid, NOW, parent=1),
        *([Subject(child.pid, NOW, inode + 1)] if unique else []),
    ]
    for subject in wrong:
        assert measure([subject], time.monotonic) == {}
    assert set(measure([Subject(child.pid, began, inode)], time.monotonic)) == {child.pid}
    os.close(pidfd)
    os.close(own)


def test_who_is_dead_or_elsewhere_has_none(child: subprocess.Popen[bytes]) -> None:
    """A zombie, a number that nobody has, a process of another PID namespace."""
    child.kill()
    pidfd = os.pidfd_open(child.pid)
    while not descriptors.is_dead(pidfd):
        pass
    os.close(pidfd)
    subjects = [Subject(child.pid, NOW), Subject(0, NOW), Subject(-1, NOW), Subject(1 << 22, NOW)]
    before = len(os.listdir("/proc/self/fd"))
    assert measure(subjects, time.monotonic) == {}
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_another_users_process_shows_what_it_shows() -> None:
    """Memory and time are everybody's to see, descriptors are not: that field is blank."""
    if os.geteuid() != 0:
        could_not_run("figures-of-others", "only root can become another user")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setuid(NOBODY)
            usage = measure([Subject(os.getppid(), NOW)], time.monotonic)[os.getppid()]
            os.write(writing, f"{usage.rss_bytes > 0} {usage.threads > 0} {usage.fds}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"True True None"
    os.close(reading)
    os.close(writing)


def test_a_measuring_stops_in_time() -> None:
    """What was not looked at has no figures."""
    times = iter([0.0, 0.0, MEASURE_S, MEASURE_S + 0.1])
    subjects = [Subject(os.getpid(), NOW), Subject(os.getppid(), NOW), Subject(1, NOW)]
    assert set(measure(subjects, lambda: next(times))) <= {os.getpid(), os.getppid()}


class Desk(Answers):
    """The actor, with a thread that runs when a test says."""

    name = "control"

    def __init__(self) -> None:
        super().__init__()
        self.measured: list[Measured] = []
        self.threads: list[tuple[Callable[[], object], Callable[[], None]]] = []
        self.without_thread = False
        self.stage = Stage(lambda _: None, lambda: 0.0, lambda _: None)
        self.figures = Figures(lambda: [Subject(os.getpid(), NOW)], self.run, lambda: 0.0)
        self.figures.connections = cast(Connections, self)
        self.figures.stage = self.stage
        self.stage.add(self.figures)
        self.stage.add(self)

    def receive(self, message: Any) -> None:
        """As the actor `control`."""
        self.measured.append(message)

    def restart(self) -> None:
        """Nothing to forget."""

    def run(self, work: Callable[[], object], done: Callable[[], None]) -> None:
        """A thread is asked for."""
        if self.without_thread:
            raise RuntimeError("can't start new thread")
        self.threads.append((work, done))

    def finish(self) -> None:
        """The thread comes to its end."""
        work, done = self.threads.pop(0)
        work()
        done()

    def ask(self, connection: int) -> None:
        """Somebody asks."""
        self.stage.post("figures", Wanted(request(connection, "workers", wide=True)))

    def served(self) -> list[int]:
        """Whose figures are there."""
        return [message.request.connection for message in self.measured]


def test_one_measuring_at_a_time_serves_all_who_asked_before_it() -> None:
    """Who asks meanwhile gets figures that are not older than the question."""
    desk = Desk()
    for connection in (1, 2, 3):
        desk.ask(connection)
    assert (len(desk.threads), desk.served()) == (1, [])
    desk.finish()
    assert desk.served() == [1]
    assert set(desk.measured[0].usage) == {os.getpid()}
    desk.finish()
    assert (desk.served(), desk.threads, desk.refusals) == ([1, 2, 3], [], {})


def test_without_a_thread_there_are_no_figures_and_an_answer() -> None:
    """No actor fails for it, and the next one is measured."""
    desk = Desk()
    desk.without_thread = True
    for connection in range(20):
        desk.ask(connection)
    assert desk.served() == list(range(20))
    assert all(message.usage == {} for message in desk.measured)
    desk.without_thread = False
    desk.ask(99)
    desk.finish()
    assert (desk.served()[-1], set(desk.measured[-1].usage)) == (99, {os.getpid()})
    assert (desk.refusals, desk.stage.restarts()["figures"]) == ({}, 0)


def test_not_more_wait_than_may() -> None:
    """A thread that hangs holds back so many, and no more."""
    desk = Desk()
    for connection in range(ASKERS_MAX + 2):
        desk.ask(connection)
    assert list(desk.refusals) == [ASKERS_MAX + 1]


def test_a_restart_refuses_who_waits_and_measures_again() -> None:
    """The thread that was at work ends for nobody."""
    desk = Desk()
    desk.ask(1)
    desk.ask(2)
    desk.figures.restart()
    assert list(desk.refusals) == [2, 1]
    desk.finish()
    desk.ask(3)
    desk.finish()
    assert desk.served() == [3]
