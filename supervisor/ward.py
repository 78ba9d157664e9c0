"""One managed process: forked, watched by its pidfd, signalled, looked after, and reaped.

Everything of one life is made before its fork and closed after its reap: its log, its page, its talk. A
fork is made by the nursery's main thread alone, because the signal that a child gets at its parent's death
is really one at the death of the thread that forked it; no other thread may hold the log meanwhile.
Who dies when: the child between its fork and the parent's next line, and its pidfd is readable at once; the
nursery, and the kernel sends the child SIGTERM. Neighbours: `policy` (what to do), `birth` (the child),
`wards` (all of them).
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import multiprocessing
import os
import signal
import socket
import types
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any, Final

import psutil

from supervisor.birth import HELD_BACK, Birth, live
from supervisor.lives import how_ended
from supervisor.logs import Life, Logs
from supervisor.policy import Course
from supervisor.settings_workers import WorkerTable

log = logging.getLogger("breakerd.wards")

_FORK: Final = multiprocessing.get_context("fork")


@dataclass(slots=True)
class Home:
    """What every managed process gets."""

    address: str
    """Path of the supervisor's control socket."""
    logs: Logs
    chance: Callable[[], float]
    """A number in [0, 1)."""
    level: str = "info"
    log_format: str = "text"


@dataclass(frozen=True, slots=True)
class WardSpec:
    """One table and how it is treated."""

    table: WorkerTable
    internal: bool = False
    """The supervisor's own: not among `all`, and always numbered."""
    talk: bool = False
    """Each life gets a socket whose other end is the daemon's."""

    def titles(self) -> tuple[str, ...]:
        """What its processes are called."""
        if self.internal:
            return tuple(f"{self.table.name}:{number}" for number in range(1, self.table.count + 1))
        return self.table.titles()


@dataclass(slots=True)
class _Life:
    """One process."""

    process: BaseProcess
    pid: int
    pidfd: int
    page: mmap.mmap
    words: memoryview
    """Word 0: when it beat last, ns; written by the worker, read here. 0 = not yet."""
    began: float
    log: Life
    talk: socket.socket | None


class Ward:
    """One managed process through all its lives."""

    def __init__(self, spec: WardSpec, number: int, now: float) -> None:
        self.spec = spec
        self.number = number
        """From 1."""
        self.title = spec.titles()[number - 1]
        self.course = Course(spec.table, now)
        self.last_exit = ""
        """How the last process ended, for people."""
        self._life: _Life | None = None
        self._why = ""
        """Why the present process has to end, if it was over a limit."""

    @property
    def pid(self) -> int:
        """The process id; 0 = there is no process."""
        return self._life.pid if self._life else 0

    @property
    def pidfd(self) -> int:
        """Readable when the process is dead; -1 = there is none."""
        return self._life.pidfd if self._life else -1

    @property
    def talk(self) -> socket.socket | None:
        """The daemon's end of the talk."""
        return self._life.talk if self._life else None

    def rename(self, title: str, home: Home) -> bool:
        """What it is called from now on, its present life too; False = it is called so already."""
        if title == self.title:
            return False
        home.logs.rename(self._life.log if self._life else None, self.title, title)
        self.title = title
        return True

    def fork(self, home: Home, now: float) -> None:
        """Begin a life. Raises OSError, and then there is none and nothing is left of it."""
        log_life = home.logs.begin(self.title)
        try:
            self._life = self._begin(home, log_life, now)
        except OSError:
            home.logs.end(log_life)
            raise
        finally:
            log_life.parent()
        self._why = ""

    def _begin(self, home: Home, log_life: Life, now: float) -> _Life:
        """Everything of a new life but its log. Raises OSError, and then nothing of it is left."""
        table = self.course.table
        page = mmap.mmap(-1, mmap.PAGESIZE)
        ours, theirs = _pair() if self.spec.talk else (None, None)
        with contextlib.ExitStack() as undo:
            if ours is not None and theirs is not None:
                undo.callback(ours.close)
            level = table.log_level or home.level
            birth = Birth(
                self.title, table, home.address, os.getpid(), page, theirs, log_life, level, home.log_format
            )
            try:
                process, pid = _start(birth, home.logs.lock)
            finally:
                if theirs is not None:
                    theirs.close()
            # Later children must not have it: each page is one worker's and ours.
            page.madvise(mmap.MADV_DONTFORK)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # the child does it, too: whoever is first
            try:
                pidfd = os.pidfd_open(pid)
            except OSError:
                process.kill()
                process.join()
                process.close()
                raise
            undo.pop_all()
        return _Life(process, pid, pidfd, page, memoryview(page).cast("Q"), now, log_life, ours)

    def signal(self, number: int) -> None:
        """Send it a signal; SIGKILL goes to its whole group.

        By its pidfd: multiprocessing reaps whatever is dead at each fork, so the pid may be another's.
        """
        if self._life is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(self._life.pidfd, number)
            if number == signal.SIGKILL:
                os.killpg(self._life.pid, number)

    def over(self, now: float, since: float = 0.0) -> str:
        """Which of its limits it is over, in words; empty = none. Silence counts from `since` on."""
        table, life = self.course.table, self._life
        if life is None:
            return ""
        if table.heartbeat_timeout_s is not None:
            silent_s = now - min(now, max(since, life.began, life.words[0] / 1e9))
            if silent_s > table.heartbeat_timeout_s:
                self._why = f"no heartbeat for {silent_s:.1f} s"
                return self._why
        if table.memory_max is not None:
            # Gone already, or no descriptor is free to look: the next look is in a second.
            with contextlib.suppress(psutil.Error, OSError):
                resident = psutil.Process(life.pid).memory_info().rss
                if resident > table.memory_max:
                    self._why = f"{resident >> 20} MiB of memory, over memory_max"
        return self._why

    def reap(self, home: Home) -> bool:
        """Its pidfd is readable: take its exit code and close what was its own. True = it ended with 0."""
        life = self._life
        assert life is not None
        code = life.process.exitcode
        how = "unknown" if code is None else how_ended(code)
        self.last_exit = f"{how} ({self._why})" if self._why else how
        with contextlib.suppress(ValueError):
            life.process.close()
        os.close(life.pidfd)
        life.words.release()
        life.page.close()
        if life.talk is not None:
            life.talk.close()
        home.logs.end(life.log)
        self._life = None
        return code == 0

    def gaps(self, home: Home) -> int:
        """Lines of its log that are lost, of all its lives."""
        return home.logs.gaps(self.title) + (self._life.log.gaps if self._life else 0)

    def plain(self, home: Home) -> dict[str, Any]:
        """How it is, as the daemon is told."""
        return {
            "name": self.spec.table.name,
            "number": self.number,
            "title": self.title,
            "state": self.course.state.value,
            "pid": self.pid,
            "since": self.course.since,
            "restarts": self.course.restarts,
            "last_exit": self.last_exit,
            "internal": self.spec.internal,
            "log_gaps": self.gaps(home),
            "gone": False,
        }


def _pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a talk: ours, which the daemon gets, and the child's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _start(birth: Birth, lock: AbstractContextManager[Any]) -> tuple[BaseProcess, int]:
    """Fork. Raises OSError, and then nothing is left of it."""
    process = _FORK.Process(target=live, args=(birth,), name=birth.title)
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    try:
        with lock, warnings.catch_warnings():
            # That there are threads is known: none of them holds a lock now that the child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
    except OSError as error:
        _close_pipes(error.__traceback__)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    assert process.pid is not None
    return process, process.pid


def _close_pipes(trace: types.TracebackType | None) -> None:
    """Close what multiprocessing had opened for a child that was not forked; it does not do so itself."""
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "_launch":
            for name in ("parent_r", "child_w", "child_r", "parent_w"):
                if (number := trace.tb_frame.f_locals.get(name)) is not None:
                    os.close(number)
        trace = trace.tb_next
