"""The root of the processes: starts the daemon and the managed workers, keeps what must outlive them.

It holds the lock, the listening socket and what workers deposited; a new daemon inherits all of them by
fork and exec. One loop that never waits for any one of them serves the daemon, the workers, the signals and
the service manager: whoever is dead or slow delays nobody else. If it dies, the kernel asks its workers to
end, and the daemon writes a last checkpoint after them and ends.
Neighbours: `lives` (the daemon's), `wards` (the workers), `deposits`, `descriptors` (the channel), `lock`,
`listener`. Knows no breaker.
"""

from __future__ import annotations

import json
import logging
import os
import random
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from supervisor import config_file, descriptors, notify, priority
from supervisor.deposits import Deposits
from supervisor.descriptors import Inheritance
from supervisor.errors import BadRequest, ConfigurationError
from supervisor.kept import Hangups, Kept
from supervisor.listener import adopt, listen
from supervisor.lives import EXIT_CONFIGURATION, EXIT_FAILED, Lives
from supervisor.lock import take_first, take_second
from supervisor.logs import Logs
from supervisor.places import Places
from supervisor.reports import AGAIN_S, Reports
from supervisor.seat import Seat
from supervisor.settings import SupervisorSettings, parse
from supervisor.store import Store
from supervisor.ward import Home
from supervisor.wards import Wards, specs_of

__all__ = ["EXIT_CONFIGURATION", "EXIT_OK", "Nursery"]

log = logging.getLogger("breakerd.nursery")

EXIT_OK: Final = 0
LOOK_S: Final = 1.0
"""The loop turns at least this often."""
TEXT_MAX: Final = 500
"""Characters of what the daemon is told about a configuration that is not taken."""
GRACE_S: Final = 1.0
"""Workers are started when a daemon serves for the first time, or so long after the beginning."""
LAST_LINES_S: Final = 1.0
"""How long the last lines of workers that have ended are waited for."""
AT_ONCE_S: Final = 0.05
"""How long what was killed is waited for when breakerd has to end at once."""
ACCEPTED_BYTES_MAX: Final = 3000
"""Bytes of the titles in an answer; the daemon knows the names of more, and how many there are."""


class Nursery:
    """Keeps one daemon alive until it is asked to stop."""

    def __init__(self, places: Places, text: str | None = None) -> None:
        """`text`: what was checked of the configuration file; None = it is read here."""
        self._places = places
        self._notifier, given = notify.take(os.environ, os.getpid())
        self._kept = Kept(places.config or "", _read(places.config) if text is None else text)
        self._lock = take_first(places.runtime)
        self._state_lock = take_second(places.state, places.runtime)
        activated = adopt(given.listener, places.socket) if given.listener is not None else None
        self._seat = Seat(places.socket, activated or listen(places.socket), activated is not None)
        self._deposits = Deposits(Store(self._notifier), given.stored)
        self._stops = 0
        self._hangups = Hangups()
        self._code: int | None = None
        """The exit code, once the end has begun."""
        self._started_at = time.monotonic()
        self._poll = select.poll()
        self._lives = Lives(self._poll, self._inheritance, self._take, self._daemon_started)
        settings = SupervisorSettings()
        if places.config:
            settings = parse(self._kept.text, places.config)
        self._specs = specs_of(settings)
        """What is to be started when the workers begin."""
        self._reports = Reports(self._lives.send)
        journal = priority.to_journal(os.environ, sys.stderr)
        logs = Logs(places.runtime, priority.open_stderr(sys.stderr, journal), journal)
        self._lives.keep = lambda: bool(self._specs or self._wards.pids())
        self._home = Home(places.socket, logs, random.random, settings.log_level, settings.log_format)
        self._wards = Wards(self._poll, self._home, self._reports)
        self._begun = False
        """The workers are started."""
        self._at_once_at = 0.0
        _raise_descriptor_limit()
        self._signals = _listen_to_signals()
        self._poll.register(self._signals, select.POLLIN)

    def run(self) -> int:
        """Until asked to stop, or until a daemon or a worker cannot be kept alive; the exit code."""
        try:
            return self._run()
        except Exception:
            # Not by raising: multiprocessing would wait, at the interpreter's end, for workers that nobody
            # looks after any more, and the lock would be held as long. The kernel ends them at our death.
            log.critical("this must not happen: breakerd ends", exc_info=True)
            os._exit(EXIT_FAILED)

    def _run(self) -> int:
        while True:
            wait_s = self._next_time(time.monotonic()) - time.monotonic()
            ready = {number for number, _ in self._poll.poll(1000.0 * max(0.0, wait_s))}
            if self._signals.fileno() in ready:
                self._take_signals()
            now = time.monotonic()
            self._turn(ready, now)
            if self._is_over(now):
                assert self._code is not None
                if self._code == EXIT_OK or self._wards.escalated:
                    self._seat.remove()
                self._home.logs.settle(LAST_LINES_S)
                if self._wards.pids():
                    # multiprocessing would wait for what the kernel does not let die.
                    os._exit(self._code)
                return self._code

    def _next_time(self, now: float) -> float:
        """When the loop has to turn at the latest, s."""
        again = now + AGAIN_S if self._reports.waiting and self._lives.ready else now + LOOK_S
        last = now + AT_ONCE_S if self._stops > 1 else again
        return min(
            last,
            now + self._notifier.period_s,
            self._lives.next_time(now),
            self._wards.next_time(now),
            now + LOOK_S if self._begun else self._started_at + GRACE_S,
        )

    def _turn(self, ready: set[int], now: float) -> None:
        """Serve everybody once."""
        ending = self._code is not None or self._stops > 0
        if self._lives.pid or not (ending and self._wards.over(now)):
            self._lives.turn(ready, now)
        if not self._begun and not ending and (self._lives.ready or now >= self._started_at + GRACE_S):
            self._begun = True
            self._wards.apply(self._specs, now)
        self._wards.turn(ready, now)
        if self._lives.ready and self._hangups.tell(self._lives.pid, self._lives.send):
            self._notifier.reloading(time.monotonic_ns())
        self._reports.flush()
        if not ending:
            self._look_after_the_socket(now)
        _reap_orphans({self._lives.pid, *self._wards.pids()})
        # Whether a daemon that starts hangs is for `lives` to see; where there is none, only this loop can.
        self._notifier.beat(now, self._lives.age_s(now) if self._lives.ready else 0.0)
        if not self._lives.ready and self._code is None:
            self._notifier.extend(now)

    def _is_over(self, now: float) -> bool:
        """Whether this process can end; begins the end if there is a reason to.

        The workers end first, in reverse order, so that the daemon counts them to their ends; it ends last.
        """
        if self._code is None and self._lives.why:
            self._notifier.status(self._lives.why)
            self._lives.why = ""
        if self._code is None and not self._begin_end(now):
            return False
        if self._stops > 1:
            return self._is_over_at_once(now)
        if not self._wards.over(now):
            return False
        self._lives.ask(now)
        return not self._lives.pid

    def _begin_end(self, now: float) -> bool:
        """Whether there is a reason to end, from now on."""
        if self._stops:
            self._code = EXIT_OK
            self._notifier.stopping()
        elif self._lives.code is not None:
            self._code = self._lives.code
        elif self._wards.escalated:
            self._code = EXIT_FAILED
            log.critical("%s failed too often: everything is stopped", self._wards.escalated)
            self._notifier.status(f"{self._wards.escalated} failed too often: everything is stopped")
        else:
            return False
        self._wards.leave(now)
        return True

    def _is_over_at_once(self, now: float) -> bool:
        """Asked twice: nobody is waited for, but for the moment in which what is killed dies.

        A daemon that was not asked to end yet is left alone: it sees that this process is gone, counts the
        workers that were killed here to their ends, and ends.
        """
        if not self._at_once_at:
            self._at_once_at = now
            self._wards.kill()
            if self._wards.pids():
                log.warning("asked to end twice: what still runs is killed")
            else:
                self._lives.ask(now)
        if self._lives.asked:
            self._lives.kill()
        late = now >= self._at_once_at + AT_ONCE_S
        return late or not (self._wards.pids() or self._lives.pid)

    def _inheritance(self, channel: int, fresh: int) -> Inheritance:
        """What a new daemon gets."""
        return Inheritance(
            listener=self._seat.listener.fileno(),
            channel=channel,
            pulse=self._lives.pulse_fd,
            lock=self._lock.fd,
            state_lock=self._state_lock.fd if self._state_lock else -1,
            nursery=os.getpid(),
            started_at=self._started_at,
            config=self._kept.file,
            runtime=self._places.runtime,
            state=self._places.state,
            fresh=fresh,
            held=self._deposits.held(),
            managed=self._notifier.active,
            config_text=self._kept.text,
            config_problem=self._kept.problem,
            probers=self._reports.inherited(),
            bells=self._deposits.bells(),
        )

    def _daemon_started(self, pid: int) -> None:
        self._seat.untold = False  # it inherits the socket that there is
        for lock in (self._lock, self._state_lock):
            if lock is not None:
                lock.daemon_started(pid)

    def _look_after_the_socket(self, now: float) -> None:
        """Whoever serves must listen where everybody asks."""
        self._seat.look(now)
        if self._seat.untold and self._lives.send(descriptors.LISTENER, (self._seat.listener.fileno(),)):
            self._seat.untold = False

    def _take(self, data: bytes, numbers: list[int]) -> None:
        """One message of the daemon."""
        handler = _HANDLERS.get(data[:1])
        if handler is None:
            descriptors.close_all(numbers)
        else:
            handler(self, data[1:], numbers)

    def _deposit(self, data: bytes, numbers: list[int]) -> None:
        if len(data) < descriptors.NONCE_BYTES:
            log.error("the daemon deposits descriptors under a short nonce: they are closed")
            descriptors.close_all(numbers)
        elif self._deposits.deposit(data[:16].hex(), data[16:], numbers):
            self._lives.send(descriptors.STORED + data[:16])

    def _drop(self, data: bytes, numbers: list[int]) -> None:
        descriptors.close_all(numbers)
        if len(data) == descriptors.NONCE_BYTES:
            self._deposits.drop(data.hex())
        self._lives.send(descriptors.DROPPED + data[:16])

    def _bell(self, data: bytes, numbers: list[int]) -> None:
        if len(numbers) == 1 and len(data) == descriptors.UID_BYTES:
            self._deposits.keep_bell(int.from_bytes(data, "big"), numbers[0])
        else:
            descriptors.close_all(numbers)

    def _unbell(self, data: bytes, _numbers: list[int]) -> None:
        self._deposits.drop_bell(int.from_bytes(data[: descriptors.UID_BYTES], "big"))

    def _ready(self, _data: bytes, _numbers: list[int]) -> None:
        self._lives.served()
        self._reports.serving()
        self._notifier.ready()

    def _load(self, data: bytes, numbers: list[int]) -> None:
        """A checked configuration: apply and keep it, whole or not at all. Said again, it changes nothing.

        If the daemon dies before it reads the answer, the next one begins with what is kept here.
        """
        told = {}
        try:
            settings = self._kept.take(numbers)
            priority.change(settings.log_level, os.environ, settings.log_format)
            self._home.level, self._home.log_format = settings.log_level, settings.log_format
            self._specs = specs_of(settings)
            if self._begun and self._code is None:
                self._wards.apply(self._specs, time.monotonic())
            if self._code is None:
                self._notifier.reloading(time.monotonic_ns())
        except ConfigurationError as error:
            told = {"text": str(error)[:TEXT_MAX]}
        self._lives.send(descriptors.LOADED + data[:8] + json.dumps(told).encode())

    def _settled(self, data: bytes, _numbers: list[int]) -> None:
        self._hangups.done(int.from_bytes(data[:8], "big"))
        self._kept.problem = data[8:].decode(errors="replace")
        self._notifier.reloaded()

    def _status(self, data: bytes, _numbers: list[int]) -> None:
        if self._code is None:
            self._notifier.status(data.decode(errors="replace"))

    def _command(self, data: bytes, _numbers: list[int]) -> None:
        """Answered at once: what comes of it is seen in the states."""
        asked = json.loads(data)
        answer: dict[str, object] = {"ticket": asked["ticket"]}
        try:
            titles = self._wards.command(asked["verb"], asked["name"], time.monotonic())
            answer |= {"accepted": as_many(titles), "of": len(titles)}
        except BadRequest as error:
            answer |= {"code": error.code, "text": str(error)}
        self._lives.send(descriptors.COMMANDED + json.dumps(answer).encode())

    def _kill(self, data: bytes, _numbers: list[int]) -> None:
        asked = json.loads(data)
        self._wards.replace(asked["title"], asked["pid"], time.monotonic())

    def _take_signals(self) -> None:
        """Count the requests to stop, note the one to reload."""
        try:
            numbers = self._signals.recv(64)
        except BlockingIOError:
            return
        self._stops += sum(number in (signal.SIGTERM, signal.SIGINT) for number in numbers)
        if signal.SIGHUP in numbers:
            self._hangups.came()


_HANDLERS: Final[dict[bytes, Callable[[Nursery, bytes, list[int]], None]]] = {
    descriptors.DEPOSIT: Nursery._deposit,
    descriptors.DROP: Nursery._drop,
    descriptors.BELL: Nursery._bell,
    descriptors.UNBELL: Nursery._unbell,
    descriptors.READY: Nursery._ready,
    descriptors.STATUS: Nursery._status,
    descriptors.LOAD: Nursery._load,
    descriptors.SETTLED: Nursery._settled,
    descriptors.COMMAND: Nursery._command,
    descriptors.KILL: Nursery._kill,
}


def as_many(titles: list[str]) -> list[str]:
    """As many as one message holds."""
    room = ACCEPTED_BYTES_MAX
    return [title for title in titles if (room := room - len(title) - 4) >= 0]


def _reap_orphans(ours: set[int]) -> None:
    """As PID 1 of a container every orphan becomes our child; the ends of `ours` are for others to take."""
    if os.getpid() != 1:
        return
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None or ended.si_pid == 0 or ended.si_pid in ours:
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
    # Whoever started this may have had them otherwise: with SIGCHLD ignored the kernel keeps no exit code,
    # and all that is started here would inherit both.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return ours


def _noted(_number: int, _frame: object) -> None:
    """The wake-up descriptor has the signal's number already."""


def _raise_descriptor_limit() -> None:
    """Each worker costs two descriptors: use what the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _read(path: str | None) -> str:
    """The text of the configuration file; empty = there is none. Raises ConfigurationError."""
    return "" if path is None else config_file.read(path)
