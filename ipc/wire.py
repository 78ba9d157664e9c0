"""Control frames: bytes <-> messages. Knows no socket, no verb and no breaker.

A frame is 16 bytes of header, network byte order, and `length` bytes of body:

    0..3  magic b"BKR1"   4  kind   5  flags (1 = last frame of its answer)   6..7  zero
    8..11 request id      12..15  length (at most MAX_BODY)

A request is one frame of JSON, an object with "verb" (text) and what that verb takes. Its answer is a
run of ANSWER frames with the same request id whose bodies joined are one JSON value; the last frame
has the flag. ERROR ends an answer: an object with "code" (a fixed short word) and "text" (a sentence).
Descriptors travel as ancillary data of the first byte of a frame.
"""

from __future__ import annotations

import enum
import json
import struct
from typing import Any, Final, NamedTuple

from ipc.errors import ProtocolError

MAGIC: Final = b"BKR1"
HEADER: Final = struct.Struct("!4sBBHII")
MAX_BODY: Final = 65_536 - HEADER.size
LAST: Final = 1
ANSWER_MAX: Final = 64 << 20
"""Bytes of a whole answer beyond which the asking side gives up."""


class FrameKind(enum.IntEnum):
    """What a frame is."""

    REQUEST = 1
    ANSWER = 2
    ERROR = 3


class Frame(NamedTuple):
    """One frame as it stands on the wire."""

    kind: FrameKind
    request: int
    body: bytes
    last: bool = True

    def pack(self) -> bytes:
        """The frame's bytes."""
        return (
            HEADER.pack(
                MAGIC, self.kind, LAST if self.last else 0, 0, self.request & 0xFFFF_FFFF, len(self.body)
            )
            + self.body
        )


class FrameReader:
    """Cuts a byte stream into frames. `feed` raises ProtocolError at the first byte that cannot be one."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`, in order."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        while buffer:
            seen = min(len(buffer), len(MAGIC))
            if buffer[:seen] != MAGIC[:seen]:
                raise ProtocolError("not a breakerd frame: it does not begin with BKR1")
            if len(buffer) < HEADER.size:
                break
            _, kind, flags, zero, request, length = HEADER.unpack_from(buffer)
            if length > MAX_BODY:
                raise ProtocolError(f"a frame of {length} bytes is announced, the limit is {MAX_BODY}")
            if kind not in (1, 2, 3) or flags > LAST or zero:
                raise ProtocolError(f"unknown frame kind {kind} or flags {flags}")
            end = HEADER.size + length
            if len(buffer) < end:
                break
            frames.append(Frame(FrameKind(kind), request, bytes(buffer[HEADER.size : end]), bool(flags)))
            del buffer[:end]
        return frames


def request(number: int, verb: str, **fields: Any) -> bytes:
    """The bytes of one request. Raises ProtocolError if it is larger than a frame."""
    body = json.dumps({"verb": verb, **fields}, separators=(",", ":")).encode()
    if len(body) > MAX_BODY:
        raise ProtocolError(f"the request has {len(body)} bytes, the limit is {MAX_BODY}")
    return Frame(FrameKind.REQUEST, number, body).pack()


def answer(number: int, value: Any) -> bytes:
    """The bytes of a whole answer: as many frames as it takes."""
    body = json.dumps(value, separators=(",", ":")).encode()
    cuts = range(0, max(1, len(body)), MAX_BODY)
    return b"".join(
        Frame(FrameKind.ANSWER, number, body[cut : cut + MAX_BODY], cut + MAX_BODY >= len(body)).pack()
        for cut in cuts
    )


def error(number: int, code: str, text: str) -> bytes:
    """The bytes of an answer that says no."""
    body = json.dumps({"code": code, "text": text[:2000]}, separators=(",", ":")).encode()
    return Frame(FrameKind.ERROR, number, body).pack()


def read_object(body: bytes) -> dict[str, Any]:
    """A frame's body as a JSON object. Raises ProtocolError."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ProtocolError("the body of the frame is not JSON") from None
    if not isinstance(value, dict):
        raise ProtocolError("the body of the frame is not a JSON object")
    return value
