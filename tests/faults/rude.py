"""Clients that do not behave: raw connections, frames that are no frames, answers that nobody reads.

Neighbours: `ipc.wire` (whose frames are spoiled here).
"""

from __future__ import annotations

import contextlib
import random
import select
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, Final

from ipc import wire

VERBS: Final = (
    "hello", "permit", "command", "health", "stats", "breakers", "breaker", "workers", "status", "events",
    "errors", "version", "config", "sleep", "nonsense", "",
)  # fmt: skip
FIELDS: Final = (
    "version", "nonce", "pid", "name", "namespace", "clock", "have", "layout", "software", "row", "ask",
    "breaker", "action", "for_s", "reason", "level", "after", "limit", "seconds", "verb",
)  # fmt: skip


def dial(path: str, seconds: float = 2.0) -> socket.socket:
    """A connection that says nothing yet."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(seconds)
    made.connect(path)
    return made


def say(path: str, data: bytes, seconds: float = 2.0) -> bytes:
    """Send these bytes and no more, and read until the other end closes."""
    with dial(path, seconds) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
        return listen(connection)


def listen(connection: socket.socket) -> bytes:
    """Everything that comes until the other end closes."""
    heard = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while data := connection.recv(65_536):
            heard += data
    return bytes(heard)


def closed_within(connection: socket.socket, seconds: float) -> float | None:
    """After how long the other end closes, reading nothing before; None = not within `seconds`."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP | select.POLLHUP)
    started = time.monotonic()
    return time.monotonic() - started if poll.poll(1000.0 * seconds) else None


def value(dice: random.Random, depth: int = 0) -> Any:
    """A JSON value that no honest client would send."""
    plain: tuple[Any, ...] = (
        None, True, False, 0, -1, 1, 1 << 31, 1 << 63, -(1 << 70), 0.5, 1e308, "", "x" * dice.randrange(300),
        "\0", "../../etc", "ff" * 16, "database", "root/database", "force-open", "reset", "\ud800\udc00",
    )  # fmt: skip
    chosen = dice.randrange(len(plain) + 4)
    if chosen < len(plain) or depth > 3:
        return plain[chosen % len(plain)]
    if chosen % 2:
        return [value(dice, depth + 1) for _ in range(dice.randrange(4))]
    return {dice.choice(FIELDS): value(dice, depth + 1) for _ in range(dice.randrange(4))}


def frames(dice: random.Random, count: int) -> Iterator[bytes]:
    """Byte strings, one per connection: noise, bent frames, and well-formed ones that mean nothing."""
    whole = [wire.request(dice.getrandbits(32), verb, level="live", name="x") for verb in VERBS]
    for _ in range(count):
        kind = dice.randrange(6)
        if kind == 0:
            yield dice.randbytes(dice.randrange(1, 200))
        elif kind == 1:
            bent = bytearray(dice.choice(whole))
            for _ in range(dice.randrange(1, 4)):
                bent[dice.randrange(len(bent))] ^= 1 << dice.randrange(8)
            yield bytes(bent)
        elif kind == 2:
            length = dice.choice((0, 1, 1 << 31, (1 << 32) - 1, wire.MAX_BODY, wire.MAX_BODY + 1))
            yield (
                struct.pack("!4sBBHII", wire.MAGIC, dice.randrange(5), dice.randrange(3), 0, 1, length)
                + b"{}"
            )
        elif kind == 3:
            body = dice.choice(
                (b"", b"null", b"[" * 5000, b"{", b'"\xff"', b"1e999999", b'{"verb":1}', b"NaN")
            )
            yield wire.Frame(wire.FrameKind.REQUEST, dice.getrandbits(32), body).pack()
        elif kind == 4:
            cut = dice.choice(whole)
            yield cut[: dice.randrange(1, len(cut))]
        else:
            fields = {dice.choice(FIELDS[:-1]): value(dice) for _ in range(dice.randrange(8))}
            yield wire.request(dice.getrandbits(32), dice.choice(VERBS), **fields)
