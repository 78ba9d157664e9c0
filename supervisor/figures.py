"""What processes cost: memory, processor time, threads, descriptors; asked from the kernel, in a thread.

A pid is a number that the kernel gives away again, so each figure belongs to the process that is meant: its
pidfd has the inode that the worker's had at its hello, and it began before that; or it is the child of the
nursery, which tells when one of its children is gone. What cannot be known (a process of another PID
namespace, what another user's process hides) is not there. One measuring at a time, bounded in time; who
asks meanwhile gets the next one.
Neighbours: `control_server` (which answers), `errand` (the thread), `facts`. Knows no breaker.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import psutil

from supervisor import descriptors
from supervisor.actor import Stage
from supervisor.connections import Connections, Request
from supervisor.errand import Run
from supervisor.facts import Usage
from supervisor.process_identity import TICK_S, origin

MEASURE_S: Final = 0.5
"""A measuring that takes longer stops there; the rest has no figures."""
ASKERS_MAX: Final = 64
"""Who may wait for the next measuring; beyond it one is refused."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A process that is meant."""

    pid: int
    """In this PID namespace; 0 = it is in another one."""
    began_by: float
    """It had begun by then, s of CLOCK_MONOTONIC."""
    inode: int = 0
    """Of its pidfd; 0 = not known."""
    parent: int = 0
    """0 = not known."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody asks for figures."""

    request: Request


@dataclass(frozen=True, slots=True)
class Measured:
    """They are there: by pid."""

    request: Request
    usage: dict[int, Usage]


@dataclass(frozen=True, slots=True)
class _Ended:
    """The thread has ended."""


class Figures:
    """Owns who waits for figures; answers none itself, but tells the actor `control`."""

    name = "figures"

    def __init__(
        self,
        subjects: Callable[[], list[Subject]],
        run: Run,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stage: Stage
        self.connections: Connections
        self._subjects = subjects
        self._run = run
        self._clock = clock
        self._askers: list[Request] = []
        self._served: list[Request] = []
        """Whose figures are being measured."""
        self._measuring = False
        self._usage: dict[int, Usage] = {}
        """Written by the thread before its end, read after it."""

    def receive(self, message: Wanted | _Ended) -> None:
        """One message."""
        if isinstance(message, Wanted):
            if len(self._askers) >= ASKERS_MAX:
                self._refuse(message.request)
                return
            self._askers.append(message.request)
        else:
            self._measuring = False
            self._tell()
        if self._askers and not self._measuring:
            self._begin()

    def restart(self) -> None:
        """Who waits is refused; a thread that is at work ends by itself, and its end is told."""
        askers = self._askers + self._served
        self._askers, self._served = [], []
        for request in askers:
            self._refuse(request)

    def _begin(self) -> None:
        self._served, self._askers = self._askers, []
        wanted = self._subjects()

        def work() -> None:
            self._usage = {}
            self._usage = measure(wanted, self._clock)

        try:
            self._run(work, self._ended)
            self._measuring = True
        except RuntimeError:
            # There can be no thread now: what is known without figures is shown without them.
            self._usage = {}
            self._tell()

    def _tell(self) -> None:
        served, self._served = self._served, []
        for request in served:
            if not self.stage.post("control", Measured(request, self._usage)):
                self._refuse(request)

    def _ended(self) -> None:
        """In the loop again. A full mailbox must not lose this: nobody would ever measure again."""
        if not self.stage.post(self.name, _Ended()):
            self._measuring = False

    def _refuse(self, request: Request) -> None:
        text = "the figures cannot be gathered at the moment; try again"
        self.connections.refuse(request.connection, request.number, "busy", text)


def subjects(
    nursery: int, managed: list[int], workers: list[tuple[int, float, int]], now: float
) -> list[Subject]:
    """Nursery and daemon, the nursery's children, and workers: (pid, when it joined, inode of its pidfd)."""
    ours = [Subject(nursery, now), Subject(os.getpid(), now)]
    children = [Subject(pid, now, parent=nursery) for pid in managed if pid]
    return ours + children + [Subject(pid, since, inode) for pid, since, inode in workers]


def measure(wanted: list[Subject], clock: Callable[[], float]) -> dict[int, Usage]:
    """What each of them costs, by pid, as far as it can be known in MEASURE_S."""
    end = clock() + MEASURE_S
    found: dict[int, Usage] = {}
    for subject in wanted:
        if clock() > end:
            break
        if subject.pid > 0 and subject.pid not in found:
            usage = _of(subject)
            if usage is not None:
                found[subject.pid] = usage
    return found


def _of(subject: Subject) -> Usage | None:
    """What one process costs; None = it is not there, or another one is."""
    try:
        pidfd = os.pidfd_open(subject.pid)
    except OSError:
        return None
    try:
        if subject.inode not in (0, os.fstat(pidfd).st_ino):
            return None
        usage = _usage(subject)
        # Alive after it was asked: so it was this one that was asked.
        return None if descriptors.is_dead(pidfd) else usage
    finally:
        os.close(pidfd)


def _usage(subject: Subject) -> Usage | None:
    with contextlib.suppress(psutil.Error, OSError):
        began, parent = origin(subject.pid)
        if began > subject.began_by + TICK_S or subject.parent not in (0, parent):
            return None
        process = psutil.Process(subject.pid)
        spent = process.cpu_times()
        opened: int | None = None
        with contextlib.suppress(psutil.Error, OSError):  # another user's are its own
            opened = process.num_fds()
        return Usage(
            rss_bytes=int(process.memory_info().rss),
            cpu_s=float(spent.user + spent.system),
            threads=int(process.num_threads()),
            fds=opened,
        )
    return None
