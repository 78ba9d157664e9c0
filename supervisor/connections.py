"""The control socket, answering side: connections, frames, limits. Knows no verb and no breaker.

Every whole request becomes a `Request` in the mailbox of the actor `control`, which answers by number.
A connection has a deadline for its first request, another for being idle, and one for taking what it
asked for; garbage gets one clear error and a closed connection, and hurts nobody else. Raw non-blocking
sockets, because stream transports lose descriptors. Neighbours: `control_server`, `daemon`.
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from ipc import wire
from ipc.errors import ProtocolError
from supervisor.descriptors import close_all

log = logging.getLogger("breakerd.control")

ACCEPT_MAX: Final = 64
"""Connections accepted in one turn of the loop."""
FIRST_REQUEST_S: Final = 2.0
IDLE_S: Final = 30.0
STALL_S: Final = 0.5
"""A client that takes nothing of its answer for this long is dropped."""
DESCRIPTORS_MAX: Final = 2
READ_BYTES: Final = 65_536
SEND_BUFFER_BYTES: Final = 256 * 1024
_CREDENTIALS: Final = struct.Struct("3i")


class Watcher(Protocol):
    """The part of an event loop that is needed here."""

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> object:
        """Call back when there is something to read."""

    def remove_reader(self, fd: int) -> object:
        """Stop that."""

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> object:
        """Call back when there is room to write."""

    def remove_writer(self, fd: int) -> object:
        """Stop that."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be."""

    unsaid_max: int = 256
    """Connections that have not made a request yet; the oldest one is dropped beyond it."""
    connections_max: int = 4096
    per_uid_max: int = 2048
    first_request_s: float = FIRST_REQUEST_S
    """Seconds in which a new connection must have made its first request."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end, as the kernel says."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. The descriptors are the receiver's to close."""

    connection: int
    number: int
    body: dict[str, Any]
    peer: Peer
    descriptors: tuple[int, ...]


@dataclass(slots=True)
class _Connection:
    number: int
    socket: socket.socket
    peer: Peer
    deadline: float
    reader: wire.FrameReader = field(default_factory=wire.FrameReader)
    descriptors: list[int] = field(default_factory=list)
    out: memoryview = field(default_factory=lambda: memoryview(b""))
    said: bool = False
    closing: bool = False


class Connections:
    """All connections of the control socket. `post` puts a request into the mailbox; False = it is full."""

    def __init__(
        self,
        listener: socket.socket,
        loop: Watcher,
        clock: Callable[[], float],
        post: Callable[[Request], bool],
        limits: Limits,
    ) -> None:
        self._listener = listener
        self._loop = loop
        self._clock = clock
        self._post = post
        self.limits = limits
        """A reload puts others here; who is connected already stays."""
        self._open: dict[int, _Connection] = {}
        self._per_uid: Counter[int] = Counter()
        self._next = 0
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.refused_full = 0
        self.refused_emfile = 0
        self.turned_away_at: float | None = None
        """When somebody was turned away for one of the two reasons."""
        self._paused = False

    def start(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listener.fileno(), self.accept)

    def stop(self) -> None:
        """Accept no more; what is connected stays until `close`."""
        self._loop.remove_reader(self._listener.fileno())

    def move(self, listener: socket.socket) -> None:
        """Accept there from now on; who is connected stays, and whoever still waited is taken first."""
        self.accept()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = listener
        listener.setblocking(False)
        self._paused = False
        self.start()

    def close(self) -> None:
        """Drop every connection."""
        for connection in list(self._open.values()):
            self._drop(connection)

    def release(self) -> None:
        """Close the reserve too; nothing can be accepted afterwards."""
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1

    def __len__(self) -> int:
        return len(self._open)

    def accept(self) -> None:
        """Take the connections that wait, at most ACCEPT_MAX."""
        for _ in range(ACCEPT_MAX):
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            self._admit(accepted)

    def _accept_failed(self, error: OSError) -> None:
        """Out of descriptors: use the one in reserve to say so to whoever waits, then take it back."""
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            log.warning("accept failed: %s", error.strerror)
            self._pause()
            return
        if self._reserve >= 0:
            os.close(self._reserve)
            self._reserve = -1
        with contextlib.suppress(OSError):
            # Out of descriptors is said before the queue is looked at: perhaps nobody waits.
            accepted, _ = self._listener.accept()
            self.refused_emfile += 1
            self.turned_away_at = self._clock()
            _say_busy(accepted, "the supervisor has no free descriptor")
        with contextlib.suppress(OSError):
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        if self._reserve < 0:
            self._pause()

    def _pause(self) -> None:
        """Do not spin on a listener that cannot be served: `sweep` takes it up again."""
        self._loop.remove_reader(self._listener.fileno())
        self._paused = True

    def _admit(self, accepted: socket.socket) -> None:
        """Keep a new connection, or say why not."""
        accepted.setblocking(False)
        peer = Peer(*_CREDENTIALS.unpack(accepted.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)))
        limits = self.limits
        if len(self._open) >= limits.connections_max or self._per_uid[peer.uid] >= limits.per_uid_max:
            self.refused_full += 1
            self.turned_away_at = self._clock()
            _say_busy(accepted, "too many connections; try again")
            return
        unsaid = [one for one in self._open.values() if not one.said]
        if len(unsaid) >= limits.unsaid_max:
            self._drop(unsaid[0])
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._next += 1
        connection = _Connection(self._next, accepted, peer, self._clock() + limits.first_request_s)
        self._open[connection.number] = connection
        self._per_uid[peer.uid] += 1
        self._loop.add_reader(accepted.fileno(), self._readable, connection)
        # What it says is usually there already.
        self._readable(connection)

    def _readable(self, connection: _Connection) -> None:
        try:
            data, rights, flags, _ = connection.socket.recvmsg(
                READ_BYTES, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(connection)
            return
        for level, kind, payload in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                connection.descriptors.extend(numbers)
        if not data or flags & socket.MSG_CTRUNC or len(connection.descriptors) > DESCRIPTORS_MAX:
            self._drop(connection)
            return
        try:
            frames = connection.reader.feed(data)
        except ProtocolError as error:
            self._garbage(connection, 0, str(error))
            return
        for frame in frames:
            if not self._take(connection, frame):
                return

    def _take(self, connection: _Connection, frame: wire.Frame) -> bool:
        """One frame; False = the connection is gone."""
        if frame.kind is not wire.FrameKind.REQUEST:
            self._garbage(connection, frame.request, "only requests are read here")
            return False
        try:
            body = wire.read_object(frame.body)
        except ProtocolError as error:
            self._garbage(connection, frame.request, str(error))
            return False
        if body.get("verb") != "hello" and connection.descriptors:
            self._garbage(connection, frame.request, "descriptors were sent that nobody asked for")
            return False
        connection.said = True
        connection.deadline = self._clock() + IDLE_S
        descriptors, connection.descriptors = tuple(connection.descriptors), []
        request = Request(connection.number, frame.request, body, connection.peer, descriptors)
        if not self._post(request):
            close_all(list(descriptors))
            self.refuse(
                connection.number, frame.request, "busy", "the supervisor has too much to do; try again"
            )
        return connection.number in self._open

    def answer(self, connection: int, number: int, value: Any, descriptors: tuple[int, ...] = ()) -> bool:
        """Send an answer; False = the asker is gone (nothing of it was taken)."""
        return self._send(connection, wire.answer(number, value), descriptors)

    def refuse(self, connection: int, number: int, code: str, text: str) -> bool:
        """Send an answer that says no."""
        return self._send(connection, wire.error(number, code, text), ())

    def _garbage(self, connection: _Connection, number: int, text: str) -> None:
        """One clear error, then the end."""
        connection.closing = True
        self._send(connection.number, wire.error(number, "protocol", text), ())

    def _send(self, number: int, data: bytes, descriptors: tuple[int, ...]) -> bool:
        connection = self._open.get(number)
        if connection is None:
            return False
        if connection.out:
            # It asks again and again and reads nothing.
            self._drop(connection)
            return False
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        try:
            sent = connection.socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            sent = 0
            if descriptors:
                self._drop(connection)
                return False
        except OSError:
            # EPIPE to a killed client is normal: its pidfd retires it.
            self._drop(connection)
            return False
        if sent < len(data):
            connection.out = memoryview(data)[sent:]
            connection.deadline = self._clock() + STALL_S
            self._loop.remove_reader(connection.socket.fileno())
            self._loop.add_writer(connection.socket.fileno(), self._writable, connection)
        elif connection.closing:
            self._drop(connection)
        return True

    def _writable(self, connection: _Connection) -> None:
        try:
            sent = connection.socket.send(connection.out, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._drop(connection)
            return
        connection.out = connection.out[sent:]
        connection.deadline = self._clock() + STALL_S
        if connection.out:
            return
        if connection.closing:
            self._drop(connection)
            return
        connection.deadline = self._clock() + IDLE_S
        self._loop.remove_writer(connection.socket.fileno())
        self._loop.add_reader(connection.socket.fileno(), self._readable, connection)

    def sweep(self) -> None:
        """A few times a second: drop whoever is past its deadline, accept again after a pause."""
        now = self._clock()
        for connection in [one for one in self._open.values() if one.deadline < now]:
            self._drop(connection)
        if self._paused:
            self._paused = False
            self._loop.add_reader(self._listener.fileno(), self.accept)

    def _drop(self, connection: _Connection) -> None:
        """Close one connection and every descriptor that nobody took."""
        if self._open.pop(connection.number, None) is None:
            return
        self._per_uid[connection.peer.uid] -= 1
        if not self._per_uid[connection.peer.uid]:
            del self._per_uid[connection.peer.uid]
        self._loop.remove_reader(connection.socket.fileno())
        self._loop.remove_writer(connection.socket.fileno())
        close_all(connection.descriptors)
        connection.socket.close()


def _say_busy(accepted: socket.socket, text: str) -> None:
    """One error frame to somebody who is not let in, then the end."""
    with accepted, contextlib.suppress(OSError):
        accepted.setblocking(False)
        accepted.send(wire.error(0, "busy", text), socket.MSG_NOSIGNAL)
