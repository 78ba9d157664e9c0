"""The root of the processes: starts the daemon, watches it, keeps what must outlive it. No loop, no server.

It holds the lock, the listening socket, the doorbell and, per worker, the segment and the pidfd; a new
daemon inherits all of them by fork and exec. It only polls three things: the daemon's channel, the
daemon's death, and its own signals. If it dies, the daemon writes a last checkpoint and ends.
Neighbours: `descriptors` (the channel), `lock`, `listener`, `daemon` (the child). Knows no breaker.
"""

from __future__ import annotations

import json
import logging
import mmap
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

from supervisor import descriptors, notify
from supervisor.descriptors import Held, Inheritance
from supervisor.listener import adopt, listen
from supervisor.lock import Lock
from supervisor.places import Places
from supervisor.steps import life_of
from supervisor.store import Store

log = logging.getLogger("breakerd.nursery")

EXIT_OK: Final = 0
EXIT_CONFIGURATION: Final = 78
EXIT_FAILED: Final = 71

HUNG_S: Final = 10.0
"""A daemon whose heartbeat is older than this is killed."""
LOOK_S: Final = 1.0
"""How often the heartbeat is looked at."""
STOP_S: Final = 5.0
"""How long a daemon may take to end when it is asked to."""
FAILURES_MAX: Final = 5
"""Failures of the daemon within FAILURE_WINDOW_S beyond which the nursery gives up (exit 71)."""
FAILURE_WINDOW_S: Final = 60.0
FRESH_AFTER: Final = 3
"""Failed starts within the window after which the daemon starts without the checkpoint."""
PAUSE_MAX_S: Final = 1.0
HELD_MAX: Final = 8192
"""Workers whose descriptors are kept."""
CRASH_VARIABLE: Final = "BREAKERD_CRASH_AT"


@dataclass(slots=True)
class _Child:
    """One life of the daemon."""

    process: subprocess.Popen[bytes]
    pidfd: int
    channel: socket.socket
    ready: bool = False
    asked: bool = False


class Nursery:
    """Keeps one daemon alive until it is asked to stop."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._notifier, given = notify.take(os.environ, os.getpid())
        self._config_text = _read(places.config)
        self._lock = Lock.take(places.runtime)
        activated = adopt(given.listener, places.socket) if given.listener is not None else None
        self._activated = activated is not None
        """The socket's path is systemd's to remove."""
        self._listener = activated or listen(places.socket)
        self._store = Store(self._notifier)
        self._held, bell = self._store.recover(given.stored)
        if bell is None:
            bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._store.keep_bell(bell)
        self._bell = bell
        self._pulse_fd = os.memfd_create("breakerd-pulse", os.MFD_CLOEXEC)
        os.ftruncate(self._pulse_fd, mmap.PAGESIZE)
        self._pulse = memoryview(mmap.mmap(self._pulse_fd, mmap.PAGESIZE)).cast("Q")
        """Word 0: the daemon's last heartbeat, ns; written by it alone, and set here before it starts."""
        self._failures: deque[float] = deque()
        self._failed_starts = 0
        self._stops = 0
        self._started_at = time.monotonic()
        self._lives = 0
        _raise_descriptor_limit()
        self._signals = _listen_to_signals()

    def run(self) -> int:
        """Until asked to stop; the exit code."""
        while True:
            try:
                child = self._start()
            except OSError as error:
                # No process or no descriptor is free: what is kept here must outlive that, too.
                log.error("the daemon cannot be started: %s", error.strerror)  # noqa: TRY400 (one line)
                if self._stops:
                    self._clear()
                    return EXIT_OK
                if self._count_failure():
                    continue
                return EXIT_FAILED
            code = self._watch(child)
            self._bury(child)
            if self._stops:
                self._clear()
                return EXIT_OK
            if code == EXIT_CONFIGURATION:
                self._notifier.status("the daemon refused its configuration; the log says why")
                return code
            self._notifier.status(f"the daemon ended ({_how(code)}): a new one starts")
            if not self._may_restart(child, code):
                self._notifier.status("the daemon failed too often; the log says why")
                log.critical("the daemon failed more than %d times in %g s", FAILURES_MAX, FAILURE_WINDOW_S)
                return EXIT_FAILED

    def _start(self) -> _Child:
        """Fork and exec a daemon that inherits everything. Raises OSError, and then there is none."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        table = os.memfd_create("breakerd-table", 0)
        inheritance = Inheritance(
            listener=self._listener.fileno(),
            bell=self._bell,
            channel=theirs.fileno(),
            pulse=self._pulse_fd,
            lock=self._lock.fd,
            nursery=os.getpid(),
            started_at=self._started_at,
            config=self._places.config or "",
            runtime=self._places.runtime,
            state=self._places.state,
            fresh=self._failed_starts >= FRESH_AFTER,
            held=tuple(self._held.values()),
            managed=self._notifier.active,
            config_text=self._config_text,
        )
        os.write(table, inheritance.to_json())
        self._pulse[0] = time.monotonic_ns()
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.daemon", str(table)],
                pass_fds=(*inheritance.numbers(), table),
                env=self._surroundings(),
                stdin=subprocess.DEVNULL,
            )
        finally:
            os.close(table)
            theirs.close()
        try:
            pidfd = os.pidfd_open(process.pid)
        except OSError:
            process.kill()
            process.wait()
            raise
        self._lock.daemon_started(process.pid)
        return _Child(process, pidfd, ours)

    def _surroundings(self) -> dict[str, str]:
        """The daemon's environment. The hook is for one life only: the next shows that nothing was lost."""
        self._lives += 1
        told = os.environ.get(CRASH_VARIABLE)
        kept = dict(os.environ)
        if told and life_of(told) != self._lives:
            del kept[CRASH_VARIABLE]
        return kept

    def _watch(self, child: _Child) -> int:
        """Serve the channel and the signals until the daemon is dead; its exit code (negative: signal)."""
        poll = select.poll()
        poll.register(child.channel, select.POLLIN)
        poll.register(child.pidfd, select.POLLIN)
        poll.register(self._signals, select.POLLIN)
        asked_at = 0.0
        look_s = min(LOOK_S, self._notifier.period_s)
        while True:
            ready = {number for number, _ in poll.poll(1000.0 * (0.05 if child.asked else look_s))}
            if self._signals.fileno() in ready:
                self._take_signals()
            if child.channel.fileno() in ready and not self._serve(child):
                poll.unregister(child.channel)
            if child.pidfd in ready:
                return child.process.wait()
            _reap_orphans(child.process.pid)
            now = time.monotonic()
            if self._stops and not child.asked:
                child.asked, asked_at = True, now
                self._notifier.stopping()
                child.process.terminate()
            if self._stops > 1 or (child.asked and now - asked_at > STOP_S):
                child.process.kill()
            age_s = now - self._pulse[0] / 1e9
            self._notifier.beat(now, age_s)
            if age_s > HUNG_S:
                log.error("the daemon (pid %d) gave no sign for %.1f s: killing it", child.process.pid, age_s)
                child.process.kill()

    def _serve(self, child: _Child) -> bool:
        """Take what the daemon sent; False = its end is closed."""
        while (got := descriptors.receive(child.channel)) is not None:
            data, numbers = got
            if not data:
                return False
            self._take(child, data, numbers)
        return True

    def _take(self, child: _Child, data: bytes, numbers: list[int]) -> None:
        """One message of the daemon."""
        kind, nonce = data[:1], data[1:17].hex()
        if kind == descriptors.DEPOSIT:
            # A truncated deposit is not kept: the worker holds its own descriptors still.
            if len(numbers) == 2 and nonce not in self._held and len(self._held) < HELD_MAX:
                self._held[nonce] = Held(nonce, numbers[0], numbers[1], _object(data[17:]))
                self._store.keep(self._held[nonce])
            else:
                descriptors.close_all(numbers)
            if self._store.has(nonce):
                descriptors.send(child.channel, descriptors.STORED + data[1:17])
        elif kind == descriptors.DROP:
            held = self._held.pop(nonce, None)
            if held:
                descriptors.close_all([held.memory, held.pidfd])
                self._store.drop(nonce)
            descriptors.send(child.channel, descriptors.DROPPED + data[1:17])
        elif kind == descriptors.READY:
            child.ready = True
            self._failed_starts = 0
            self._notifier.ready()
        elif kind == descriptors.STATUS and not child.asked:
            self._notifier.status(data[1:].decode(errors="replace"))

    def _bury(self, child: _Child) -> None:
        """After the reap nobody can send any more: take every deposit that is still in the queue."""
        self._serve(child)
        child.channel.close()
        os.close(child.pidfd)

    def _may_restart(self, child: _Child, code: int) -> bool:
        """Count failures. A daemon that served and was killed from outside is none: it is back at once."""
        log.warning("the daemon (pid %d) ended: %s", child.process.pid, _how(code))
        if child.ready and code in (0, -signal.SIGKILL):
            return True
        self._failed_starts += 0 if child.ready else 1
        return self._count_failure()

    def _count_failure(self) -> bool:
        """One more failure: False = there were too many; else the pause before the next start is over."""
        now = time.monotonic()
        self._failures.append(now)
        while now - self._failures[0] > FAILURE_WINDOW_S:
            self._failures.popleft()
        if len(self._failures) > FAILURES_MAX:
            return False
        self._pause(min(PAUSE_MAX_S, 0.05 * 2 ** len(self._failures)))
        return True

    def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until a signal comes."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        if poll.poll(1000.0 * seconds):
            self._take_signals()

    def _take_signals(self) -> None:
        """Count the requests to stop."""
        try:
            numbers = self._signals.recv(64)
        except BlockingIOError:
            return
        self._stops += sum(number in (signal.SIGTERM, signal.SIGINT) for number in numbers)

    def _clear(self) -> None:
        """Leave no socket behind that nobody listens on."""
        if self._activated:
            return
        try:
            os.unlink(self._places.socket)
        except OSError as error:
            log.warning("cannot remove %s: %s", self._places.socket, error.strerror)


def _reap_orphans(daemon: int) -> None:
    """As PID 1 of a container every orphan becomes our child; the daemon's end is `_watch`'s to take."""
    if os.getpid() != 1:
        return
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid in (0, daemon):
            return
        os.waitpid(ended.si_pid, os.WNOHANG)


def _listen_to_signals() -> socket.socket:
    """Signals become bytes on this socket; their handlers do nothing at all."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    signal.set_wakeup_fd(theirs.detach(), warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _noted)
    return ours


def _noted(_number: int, _frame: object) -> None:
    """The wake-up descriptor has the signal's number already."""


def _raise_descriptor_limit() -> None:
    """Each worker costs two descriptors: use what the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _read(path: str | None) -> str:
    """The text of the configuration file, which `main` has checked; empty = there is none."""
    if path is None:
        return ""
    with open(path, encoding="utf-8") as file:
        return file.read()


def _object(data: bytes) -> dict[str, Any]:
    """What the daemon wrote about a worker; empty if it was cut off."""
    try:
        value = json.loads(data)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _how(code: int) -> str:
    """An exit code in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
