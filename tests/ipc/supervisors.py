"""Pretend supervisors: listeners that answer well, badly or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ipc import control, control_async, wire
from ipc.errors import ControlError

Reply = Callable[[socket.socket, wire.Frame], None]


@contextlib.contextmanager
def socket_place() -> Iterator[str]:
    """A socket path in a short directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        yield f"{directory}/{control.SOCKET_NAME}"


@contextlib.contextmanager
def supervisor(place: str, reply: Reply) -> Iterator[None]:
    """A listener that reads one request from each connection and replies."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(place)
    listener.listen(16)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                reader = wire.FrameReader()
                frames: list[wire.Frame] = []
                while not frames and (data := connection.recv(65_536)):
                    frames = reader.feed(data)
                if frames:
                    reply(connection, frames[0])

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        assert not thread.is_alive()


def answering(value: Any) -> Reply:
    """Answers every request with this value."""
    return lambda connection, frame: connection.sendall(wire.answer(frame.request, value))


def sending(data: bytes) -> Reply:
    """Sends these bytes, whatever is asked."""
    return lambda connection, frame: connection.sendall(data)


def silent(connection: socket.socket, frame: wire.Frame) -> None:
    """Says nothing until the asker hangs up."""
    connection.recv(1)


def ask(place: str, **fields: Any) -> Any:
    """Ask something, by the plain and by the awaiting way; both must agree."""
    plain = outcome(lambda: control.ask(place, "health", 2.0, **fields))
    awaited = outcome(lambda: asyncio.run(control_async.ask_async(place, "health", 2.0, **fields)))
    if isinstance(plain, Exception):
        assert (type(awaited), str(awaited)) == (type(plain), str(plain))
        raise plain
    assert awaited == plain
    return plain


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the ControlError that it raises."""
    try:
        return call()
    except ControlError as error:
        return error
