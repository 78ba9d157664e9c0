"""The control socket, answering side: connections, frames, limits. Knows no verb and no breaker.

Every whole request becomes a `Request` in the mailbox of the actor `control`, which answers by number.
A connection has a deadline for its first request, another for being idle, and one for taking what it
asked for. Its next request is read when the last one is answered and the answer taken, so that who asks much
and reads nothing costs one answer. Garbage gets one clear error and a closed connection. When all places are
taken, the user with the most connections loses one. Raw non-blocking sockets, because stream transports lose
descriptors. Neighbours: `control_server`, `daemon`, `descriptor_closer` (which closes what strangers sent).
"""

from __future__ import annotations

import array
import contextlib
import errno
import logging
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ipc import wire
from ipc.errors import ProtocolError
from supervisor.connection_limits import Limits
from supervisor.descriptor_closer import Discard, close_now
from supervisor.descriptor_reserve import DescriptorReserve
from supervisor.event_loop import Watcher
from supervisor.facts import Usage
from supervisor.peer import Peer, peer_of
from supervisor.user_database import Account

__all__ = ["Connections", "Limits", "Peer", "Request", "Watcher"]

log = logging.getLogger("breakerd.control")

ACCEPT_MAX: Final = 64
"""Connections accepted in one turn of the loop."""
IDLE_S: Final = 2.0
"""One exchange is one connection: who goes on asking asks soon."""
ANSWER_S: Final = 30.0
"""How long a request may be without an answer."""
STALL_S: Final = 0.5
"""A client that takes nothing of its answer for this long is dropped."""
DESCRIPTORS_MAX: Final = 2
DESCRIPTORS_ROOM: Final = 253
"""As many as one message can bring (SCM_MAX_FD). What finds no room the kernel would close in our thread."""
BACKLOG_MAX: Final = 64
"""Descriptors of one user that wait to be closed; a user with more is not let in until they are closed."""
READ_BYTES: Final = 65_536
SEND_BUFFER_BYTES: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One whole request. The descriptors are the receiver's to close."""

    connection: int
    number: int
    body: dict[str, Any]
    peer: Peer
    descriptors: tuple[int, ...]
    account: Account | None = None
    """What the user database knows of the peer, for verbs that need it."""
    usage: Mapping[int, Usage] | None = None
    """What processes cost, by pid, where that was asked for."""


@dataclass(slots=True)
class _Connection:
    number: int
    socket: socket.socket
    peer: Peer
    deadline: float
    reader: wire.FrameReader = field(default_factory=wire.FrameReader)
    descriptors: list[int] = field(default_factory=list)
    frames: deque[wire.Frame] = field(default_factory=deque)
    """Requests that came and were not taken yet: the one before them is not answered."""
    asked: bool = False
    """A request of it is being answered."""
    used_at: float = 0.0
    """When it last began or ended a request, s."""
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
        self.discard: Discard = close_now
        """Closes what strangers sent, and connections in whose queue such a descriptor may wait."""
        self.is_privileged: Callable[[int], bool] = lambda _uid: False
        """Whose connections are bound by the total alone, and never refused for it."""
        self.backlog: Callable[[int], int] = lambda _uid: 0
        """How many descriptors of a user wait to be closed."""
        self._open: dict[int, _Connection] = {}
        self._per_uid: Counter[int] = Counter()
        self._next = 0
        self._reserve = DescriptorReserve()
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
        self._paused = False
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
        self._reserve.spend()

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
        self._reserve.spend()
        with contextlib.suppress(OSError):
            # Out of descriptors is said before the queue is looked at: perhaps nobody waits.
            accepted, _ = self._listener.accept()
            self.refused_emfile += 1
            self._turn_away(accepted, peer_of(accepted).uid, "the supervisor has no free descriptor")
        if not self._reserve.refill():
            self._pause()

    def _pause(self) -> None:
        """Do not spin on a listener that cannot be served: `sweep` takes it up again."""
        self._loop.remove_reader(self._listener.fileno())
        self._paused = True

    def _admit(self, accepted: socket.socket) -> None:
        """Keep a new connection, or say why not."""
        accepted.setblocking(False)
        peer = peer_of(accepted)
        limits = self.limits
        if not self._make_room(peer.uid):
            self.refused_full += 1
            self._turn_away(accepted, peer.uid, "too many connections; try again")
            return
        unsaid = [one for one in self._open.values() if not one.said]
        if len(unsaid) >= limits.unsaid_max:
            most, _ = Counter(one.peer.uid for one in unsaid).most_common(1)[0]
            self._drop(next(one for one in unsaid if one.peer.uid == most))
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._next += 1
        connection = _Connection(self._next, accepted, peer, self._clock() + limits.first_request_s)
        self._open[connection.number] = connection
        self._per_uid[peer.uid] += 1
        self._loop.add_reader(accepted.fileno(), self._readable, connection)
        # What it says is usually there already.
        self._readable(connection)

    def _make_room(self, uid: int) -> bool:
        """Whether one more connection of this user may be kept; somebody else's may have to go for it."""
        limits, ours = self.limits, self.is_privileged(uid)
        if not ours and (self._per_uid[uid] >= limits.per_uid_max or self.backlog(uid) > BACKLOG_MAX):
            return False
        if len(self._open) < limits.connections_max:
            return True
        most, count = self._per_uid.most_common(1)[0]
        if not ours and self._per_uid[uid] + 1 >= count:
            return False
        waiting = [one for one in self._open.values() if one.peer.uid == most]
        # Who is being answered goes last, among equals who was quiet for longest.
        self._drop(min(waiting, key=lambda one: (one.asked, one.used_at)))
        return True

    def _turn_away(self, accepted: socket.socket, uid: int, text: str) -> None:
        """One error frame to somebody who is not let in, then the end."""
        self.turned_away_at = self._clock()
        with contextlib.suppress(OSError):
            accepted.setblocking(False)
            accepted.send(wire.error(0, "busy", text), socket.MSG_NOSIGNAL)
        self._close(accepted, uid)

    def _close(self, ended: socket.socket, uid: int) -> None:
        """Hang up: at once for the other end, though the descriptor is closed later."""
        with contextlib.suppress(OSError):
            ended.shutdown(socket.SHUT_RDWR)
        self.discard(uid, [ended.detach()])

    def _readable(self, connection: _Connection) -> None:
        try:
            data, rights, flags, _ = connection.socket.recvmsg(
                READ_BYTES, socket.CMSG_SPACE(4 * DESCRIPTORS_ROOM), socket.MSG_CMSG_CLOEXEC
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
        connection.frames.extend(frames)
        self._next_request(connection)

    def _next_request(self, connection: _Connection) -> None:
        """Take what waits, as far as it may be taken; read on only when nothing waits."""
        while connection.frames and not (connection.asked or connection.out):
            if not self._take(connection, connection.frames.popleft()):
                return
        number = connection.socket.fileno()
        if connection.frames or connection.out:
            self._loop.remove_reader(number)
        else:
            self._loop.add_reader(number, self._readable, connection)

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
        connection.said = connection.asked = True
        connection.used_at = self._clock()
        connection.deadline = connection.used_at + ANSWER_S
        descriptors, connection.descriptors = tuple(connection.descriptors), []
        request = Request(connection.number, frame.request, body, connection.peer, descriptors)
        if not self._post(request):
            self.discard(connection.peer.uid, descriptors)
            self.refuse(
                connection.number, frame.request, "busy", "the supervisor has too much to do; try again"
            )
        return connection.number in self._open

    def answer(self, connection: int, number: int, value: Any, descriptors: tuple[int, ...] = ()) -> bool:
        """Send an answer; False = the asker is gone (nothing of it was taken)."""
        return self._answered(connection, wire.answer(number, value), descriptors)

    def refuse(self, connection: int, number: int, code: str, text: str) -> bool:
        """Send an answer that says no."""
        return self._answered(connection, wire.error(number, code, text), ())

    def _answered(self, number: int, data: bytes, descriptors: tuple[int, ...]) -> bool:
        """Send an answer, and take the next request."""
        connection = self._open.get(number)
        if connection is None:
            return False
        connection.asked, connection.used_at = False, self._clock()
        connection.deadline = connection.used_at + IDLE_S
        sent = self._send(number, data, descriptors)
        if connection.frames and not connection.out and number in self._open:
            # In another turn of the loop: who has sent hundreds of requests waits behind the others.
            self._loop.add_writer(connection.socket.fileno(), self._writable, connection)
        return sent

    def _garbage(self, connection: _Connection, number: int, text: str) -> None:
        """One clear error, then the end."""
        connection.closing = True
        connection.frames.clear()
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
            sent = connection.socket.send(connection.out, socket.MSG_NOSIGNAL) if connection.out else 0
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
        self._next_request(connection)

    def sweep(self) -> None:
        """A few times a second: drop whoever is past its deadline, accept again after a pause."""
        now = self._clock()
        for connection in [one for one in self._open.values() if one.deadline < now]:
            self._drop(connection)
        self.resume()

    def resume(self) -> None:
        """Accept again after a pause, once the reserve is there: without it nobody could be turned away."""
        if self._paused and self._reserve.refill():
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
        self.discard(connection.peer.uid, connection.descriptors)
        self._close(connection.socket, connection.peer.uid)
