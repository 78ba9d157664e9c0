"""What the nursery says to systemd and was given by it: sd_notify, the watchdog, inherited descriptors.

    READY=1 STATUS=...                       a daemon serves; one live sentence
    RELOADING=1 MONOTONIC_USEC=...           a reload has begun; READY=1 says that it is over
    WATCHDOG=1                               only while the daemon's pulse is fresh, or no daemon is to come
    EXTEND_TIMEOUT_USEC=...                  no daemon serves yet, and it goes on trying: not too slow a start
    STOPPING=1                               asked to end
    FDSTORE=1 FDNAME=... FDPOLL=0 + fds      keep these; they come back with LISTEN_FDS at the next start
    FDSTOREREMOVE=1 FDNAME=...               close them

A datagram that systemd's socket has no room for waits in order and is sent again at the next beat: once
it is in that socket it outlives this process. Without systemd everything here does nothing.
Neighbours: `nursery` (the only caller), `store` (what is kept and under which names). Reads no clock.
"""

from __future__ import annotations

import array
import errno
import logging
import os
import socket
import stat
from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Final

from supervisor.descriptors import close_all

log = logging.getLogger("breakerd.notify")

FIRST_DESCRIPTOR: Final = 3
VARIABLES: Final = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
)
"""Meant for this process alone: taken out of the environment before anything is started."""
STATUS_MAX: Final = 300
"""Characters of a status."""
PENDING_MAX: Final = 4096
"""Datagrams that wait for room; beyond it the newest is dropped, with an error in the log."""
EXTENSION_S: Final = 30.0
"""How much more time to start is asked for, again after a third of it."""
PASSING: Final = (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM)
"""What keeps a datagram from being sent for a while: too many descriptors under way, no memory."""
BEATS: Final = 4
"""Signs of life in one watchdog time."""


@dataclass(frozen=True, slots=True)
class Given:
    """What systemd handed over: close-on-exec, and the caller's to close."""

    listener: int | None = None
    """The listening socket of the socket unit."""
    stored: tuple[tuple[str, int], ...] = ()
    """(name, descriptor) of what an earlier life had stored."""


class Notifier:
    """Speaks to the service manager; `active` is False where there is none."""

    def __init__(self, address: str = "", watchdog_s: float = 0.0) -> None:
        self.watchdog_s = watchdog_s
        """Time without a sign of life after which systemd kills this unit; 0 = it does not."""
        self._pending: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._beaten_at = 0.0
        self._extended_at = float("-inf")
        self._status = ""
        self._reloading = False
        self._socket: socket.socket | None = None
        if address:
            # An abstract name begins with "@" in the environment and with a zero byte in the kernel.
            self._address = f"\0{address[1:]}" if address.startswith("@") else address
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)

    @property
    def active(self) -> bool:
        """True if there is a service manager to speak to."""
        return self._socket is not None

    @property
    def waiting(self) -> bool:
        """True while something was not taken by systemd yet."""
        return bool(self._pending)

    @property
    def period_s(self) -> float:
        """How often `beat` has to be called; infinity = never."""
        return self.watchdog_s / BEATS if self.watchdog_s else float("inf")

    def ready(self) -> None:
        """A daemon serves, and nothing is being reloaded any more."""
        self._reloading = False
        self._say("READY=1")

    def reloading(self, now_ns: int) -> None:
        """A reload has begun at `now_ns` of CLOCK_MONOTONIC; said once, whoever asks for it besides."""
        if not self._reloading:
            self._reloading = True
            self._say("RELOADING=1", f"MONOTONIC_USEC={now_ns // 1000}")

    def reloaded(self) -> None:
        """The reload is over, well or not."""
        if self._reloading:
            self.ready()

    def stopping(self) -> None:
        """The end has begun."""
        self._say("STOPPING=1", f"STATUS={self._shorten('ending: the daemon writes its last checkpoint')}")

    def status(self, text: str) -> None:
        """One sentence for `systemctl status`."""
        if self._shorten(text) != self._status:
            self._status = self._shorten(text)
            self._say(f"STATUS={self._status}")

    def beat(self, now: float, age_s: float) -> None:
        """A sign of life, if the daemon's pulse (`age_s` old) is younger than half the watchdog's time."""
        self._flush()
        due = self.watchdog_s and now - self._beaten_at >= self.period_s * 0.9
        if due and age_s < self.watchdog_s / 2 and not self._pending:
            self._beaten_at = now
            self._say("WATCHDOG=1")

    def extend(self, now: float) -> None:
        """No daemon serves yet: have systemd wait longer for READY=1, for what is started here lives."""
        if now - self._extended_at >= EXTENSION_S / 3:
            self._extended_at = now
            self._say(f"EXTEND_TIMEOUT_USEC={int(EXTENSION_S * 1e6)}")

    def store(self, name: str, numbers: tuple[int, ...]) -> None:
        """Have copies of these descriptors kept over the death of this process."""
        self._say("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", numbers=numbers)

    def unstore(self, name: str) -> None:
        """Have every descriptor of that name closed."""
        self._say("FDSTOREREMOVE=1", f"FDNAME={name}")

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        for _, numbers in self._pending:
            close_all(list(numbers))
        self._pending.clear()

    @staticmethod
    def _shorten(text: str) -> str:
        """One line, not too long."""
        return " ".join(text.split())[:STATUS_MAX]

    def _say(self, *lines: str, numbers: tuple[int, ...] = ()) -> None:
        """Send it, or have it wait behind what waits already, with copies of the descriptors."""
        if self._socket is None:
            return
        self._flush()
        data = "\n".join(lines).encode()
        if not self._pending and self._send(data, numbers):
            return
        if len(self._pending) >= PENDING_MAX:
            log.error("systemd takes no messages: %s is not told", lines[0])
            return
        self._pending.append((data, tuple(os.dup(number) for number in numbers)))

    def _flush(self) -> None:
        while self._pending and self._send(*self._pending[0]):
            close_all(list(self._pending.popleft()[1]))

    def _send(self, data: bytes, numbers: tuple[int, ...]) -> bool:
        """False = no room now."""
        assert self._socket is not None
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", numbers))] if numbers else []
        try:
            self._socket.sendmsg([data], rights, 0, self._address)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if error.errno in PASSING:
                return False
            # Not to be mended by waiting: systemd is gone or refuses, and this host goes on without it.
            log.warning("systemd cannot be told %s: %s", data.partition(b"\n")[0].decode(), error.strerror)
        return True


def take(environ: MutableMapping[str, str], pid: int) -> tuple[Notifier, Given]:
    """What the environment says, taken out of it, so that no child speaks for this process."""
    told = {name: environ.pop(name) for name in VARIABLES if name in environ}
    watchdog_s = 0.0
    if told.get("WATCHDOG_PID", str(pid)) == str(pid):
        watchdog_s = _number(told.get("WATCHDOG_USEC", "")) / 1e6
    notifier = Notifier(told.get("NOTIFY_SOCKET", ""), watchdog_s)
    if told.get("LISTEN_PID") != str(pid):
        return notifier, Given()
    count = _number(told.get("LISTEN_FDS", ""))
    names = told.get("LISTEN_FDNAMES", "").split(":")
    names += [""] * (count - len(names))
    return notifier, _sort(list(zip(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + count), names, strict=False)))


def _sort(given: list[tuple[int, str]]) -> Given:
    """The listening socket, and the rest; a second socket is closed."""
    listener: int | None = None
    stored: list[tuple[str, int]] = []
    for number, name in given:
        os.set_inheritable(number, False)
        if not _listens(number):
            stored.append((name, number))
        elif listener is None:
            listener = number
        else:
            log.warning("systemd gave more than one socket: %s is closed", name)
            os.close(number)
    return Given(listener, tuple(stored))


def _listens(number: int) -> bool:
    """True if this is a listening UNIX stream socket."""
    if not stat.S_ISSOCK(os.fstat(number).st_mode):
        return False
    with socket.socket(fileno=os.dup(number)) as one:
        kind = (one.family, one.type)
        listening = one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        return kind == (socket.AF_UNIX, socket.SOCK_STREAM) and bool(listening)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
