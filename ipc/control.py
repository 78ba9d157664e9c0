"""The control socket, asking side: one exchange per connection, with a deadline. Knows no breaker.

Every exchange opens its own connection, sends one request and reads one answer, so that threads, event
loops and forked children never share a stream. Nothing here waits beyond its deadline, also when the
supervisor is stopped: connecting and sending to a stopped process succeed, only the answer is missing.
Neighbours: `wire` (the frames), `client` (hello, permits), `supervisor.ctl` (everything an operator asks).
"""

from __future__ import annotations

import array
import contextlib
import errno
import itertools
import json
import os
import select
import socket
import stat
import time
from typing import Any, Final

from ipc import wire
from ipc.errors import ControlDenied, ControlRefused, ProtocolError, SupervisorUnavailable
from ipc.ownership import file_of

SOCKET_VARIABLE: Final = "BREAKERD_SOCKET"
SOCKET_NAME: Final = "breakerd.sock"
SYSTEM_DIRECTORY: Final = "/run/breakerd"
PATH_MAX: Final = 107
"""Bytes that a UNIX socket path may have on Linux."""
DESCRIPTORS_MAX: Final = 4
_numbers: Final = itertools.count(int.from_bytes(os.urandom(3), "big"))


def next_request() -> int:
    """A request id that this process has not used yet."""
    return next(_numbers) & 0xFFFF_FFFF


def socket_path(given: str | None = None) -> str | None:
    """Where the supervisor's socket is: the first that applies; None = `off`, never attach.

    `given`, else BREAKERD_SOCKET, else /run/breakerd if that directory exists, else
    $XDG_RUNTIME_DIR/breakerd, else a directory of this user under the temporary directory.
    """
    told = given or os.environ.get(SOCKET_VARIABLE)
    if told:
        return None if told == "off" else told
    if os.path.isdir(SYSTEM_DIRECTORY):
        return f"{SYSTEM_DIRECTORY}/{SOCKET_NAME}"
    return f"{runtime_directory()}/{SOCKET_NAME}"


def runtime_directory() -> str:
    """The per-user directory for the socket where there is no /run/breakerd; it may not exist yet."""
    under = os.environ.get("XDG_RUNTIME_DIR")
    return f"{under}/breakerd" if under else temporary_directory()


def temporary_directory() -> str:
    """The directory of this user under the temporary directory."""
    return f"{os.environ.get('TMPDIR') or '/tmp'}/breakerd-{os.getuid()}"  # noqa: S108 (its owner is checked)


def check_owner(path: str) -> None:
    """Refuse a socket below the temporary directory in another's folder. Raises SupervisorUnavailable."""
    folder = os.path.dirname(path)
    if folder != temporary_directory():
        return
    try:
        found = os.lstat(folder)
    except OSError:
        return  # connecting will say what is wrong
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise SupervisorUnavailable(f"{folder} is not a directory of this user", "denied")


def connect(path: str) -> socket.socket:
    """A connected, non-blocking socket, made without waiting. Raises SupervisorUnavailable."""
    if len(os.fsencode(path)) > PATH_MAX:
        raise SupervisorUnavailable(f"{path}: a socket path has at most {PATH_MAX} bytes", "absent")
    check_owner(path)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise SupervisorUnavailable(f"no descriptor for a socket: {error.strerror}", "full") from error
    connection.setblocking(False)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise _unavailable(path, error) from error
    return connection


def _unavailable(path: str, error: OSError) -> SupervisorUnavailable:
    """What a failed connect means, in a sentence with a remedy."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return SupervisorUnavailable(f"no supervisor: {path} does not exist; start breakerd", "absent")
    if error.errno == errno.ECONNREFUSED:
        return SupervisorUnavailable(f"no supervisor: nobody listens on {path}; start breakerd", "refused")
    if error.errno in (errno.EACCES, errno.EPERM):
        return SupervisorUnavailable(f"{path}: permission denied; {needed_group(path)}", "denied")
    if error.errno == errno.EAGAIN:
        return SupervisorUnavailable(f"{path}: the supervisor's queue of connections is full", "full")
    return SupervisorUnavailable(f"{path}: {error.strerror}", "closed")


def needed_group(path: str) -> str:
    """Which group may ask, as a sentence."""
    for candidate in (path, os.path.dirname(path)):
        with contextlib.suppress(OSError):
            found = os.stat(candidate)
            return f"join the group with id {found.st_gid}, which owns {candidate}"
    return "this user is not in the supervisor's group"


class Exchange:
    """One request and its answer on one connection; drives no loop, so that callers may wait as they like.

    `send` once, then `receive` whenever the socket is readable until it returns True.
    """

    __slots__ = ("_bodies", "_file", "_reader", "_received", "connection", "descriptors", "number", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.connection = connect(path)
        self._file = file_of(self.connection.fileno())
        self.number = next_request()
        self.descriptors: list[int] = []
        """Descriptors that came with the answer, close-on-exec, owned by whoever takes them."""
        self._reader = wire.FrameReader()
        self._bodies: list[bytes] = []
        self._received = 0

    def send(self, verb: str, descriptors: tuple[int, ...] = (), **fields: Any) -> None:
        """Send the request, which fits the socket's buffer. Raises SupervisorUnavailable."""
        data = wire.request(self.number, verb, **fields)
        numbers = array.array("i", descriptors)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)] if descriptors else []
        try:
            sent = self.connection.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except BrokenPipeError:
            return  # it closed before it was asked: what it said about that is there to be received
        except OSError as error:
            raise SupervisorUnavailable(f"{self.path}: {error.strerror}", "closed") from error
        if sent != len(data):
            raise SupervisorUnavailable(f"{self.path}: the request was cut off", "full")

    def receive(self) -> bool:
        """Read what is there; True when the answer is whole. Raises ControlError."""
        self._check()
        try:
            data, rights, flags, _ = self.connection.recvmsg(
                65_536, socket.CMSG_SPACE(4 * DESCRIPTORS_MAX), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            raise SupervisorUnavailable(f"{self.path}: {error.strerror}", "closed") from error
        for level, kind, payload in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self.descriptors.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise SupervisorUnavailable("no free descriptor for what the supervisor sent", "full")
        if not data:
            raise SupervisorUnavailable(f"{self.path}: the supervisor closed the connection", "closed")
        return self._take(data)

    def _take(self, data: bytes) -> bool:
        for frame in self._reader.feed(data):
            if frame.request != self.number:
                # An error before the request could be read has no number of ours.
                if frame.kind is not wire.FrameKind.ERROR:
                    raise ProtocolError("the supervisor answered a request that was not made")
            if frame.kind is wire.FrameKind.ERROR:
                raise _refusal(wire.read_object(frame.body))
            self._bodies.append(frame.body)
            self._received += len(frame.body)
            if self._received > wire.ANSWER_MAX:
                raise ProtocolError(f"the answer is larger than {wire.ANSWER_MAX} bytes")
            if frame.last:
                return True
        return False

    def value(self) -> Any:
        """The whole answer. Raises ProtocolError."""
        try:
            return json.loads(b"".join(self._bodies))
        except ValueError:
            raise ProtocolError("the answer is not JSON") from None

    def take_descriptors(self) -> list[int]:
        """The descriptors of the answer; from now on they are the caller's to close."""
        taken, self.descriptors = self.descriptors, []
        return taken

    def close(self) -> None:
        """Close the connection and every descriptor that nobody took."""
        for number in self.take_descriptors():
            os.close(number)
        if file_of(self.connection.fileno()) == self._file:
            self.connection.close()
        else:
            self.connection.detach()

    def _check(self) -> None:
        """Refuse a number that the application closed: it may be a connection of its own by now."""
        if file_of(self.connection.fileno()) != self._file:
            raise SupervisorUnavailable(f"{self.path}: the application closed the connection", "closed")


def _refusal(body: dict[str, Any]) -> ControlRefused | ControlDenied | SupervisorUnavailable | ProtocolError:
    """The exception that an ERROR frame stands for."""
    code, text = str(body.get("code")), str(body.get("text"))
    if code == "denied":
        return ControlDenied(text)
    if code == "busy":
        return SupervisorUnavailable(text, "full")
    if code == "protocol":
        return ProtocolError(text)
    return ControlRefused(text, code)


def wait_readable(connection: socket.socket, seconds: float) -> bool:
    """Wait until there is something to read, at most `seconds`."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000.0))


def ask(path: str, verb: str, timeout: float, **fields: Any) -> Any:
    """Ask and return the answer's value, within `timeout` seconds in all. Raises ControlError."""
    deadline = time.monotonic() + timeout
    exchange = Exchange(path)
    try:
        exchange.send(verb, until=deadline, **fields)
        while True:
            if not wait_readable(exchange.connection, deadline - time.monotonic()):
                raise no_answer(path, timeout)
            if exchange.receive():
                return exchange.value()
    finally:
        exchange.close()


def no_answer(path: str, timeout: float) -> SupervisorUnavailable:
    """The error for a supervisor that is there and says nothing."""
    return SupervisorUnavailable(
        f"{path}: no answer within {timeout:g} s; the supervisor is hung or stopped", "timeout"
    )
