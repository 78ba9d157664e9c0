"""The bytes of one half of the checkpoint: a run of entries, the first of which is the snapshot.

    entry      0..3 number of the snapshot | 4..7 length | 8..11 crc32 | JSON of `length` bytes
    snapshot   JSON of [software, engine]
    record     JSON of [now, chance, message]

Native byte order. The crc32 covers number, length and JSON, and every record carries the number of its
snapshot, so that one which an earlier life of the half left behind is told apart. An image is read to
its last byte or not at all. Neighbours: `journal` (keeps two of them), `disk` (keeps a copy). Knows no
file and not what a message means.
"""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

_HEAD: Final = struct.Struct("=III")
_CHECKED: Final = struct.Struct("=II")
NUMBER_MASK: Final = 0xFFFF_FFFF


class Record(NamedTuple):
    """One handled message as it stands in the journal."""

    now: float
    """Seconds of CLOCK_MONOTONIC that the engine was given."""
    chance: float
    message: list[Any]
    """What `messages.to_plain` made of it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What could be read back: all of one image or nothing of it, never a part."""

    snapshot: Any
    """JSON values of the engine; None = nothing could be read, start empty."""
    records: tuple[Record, ...] = ()
    """The messages handled since the snapshot, in order."""
    problems: tuple[str, ...] = ()
    """What was damaged, in sentences; empty = nothing was."""
    software: str = ""
    """The version of breakerd that wrote it."""
    number: int = 0
    """The number of the snapshot."""


class Damaged(Exception):
    """An image, or the file around it, is not what was written; the text says in which way."""


def pack_snapshot(number: int, software: str, plain: Any) -> bytes:
    """The beginning of an image."""
    return _pack(number, [software, plain])


def pack_record(number: int, now: float, chance: float, message: list[Any]) -> bytes:
    """One record behind the snapshot of that number."""
    return _pack(number, [now, chance, message])


def _pack(number: int, values: list[Any]) -> bytes:
    body = json.dumps(values, separators=(",", ":")).encode()
    return _HEAD.pack(number, len(body), _check(number, body)) + body


def _check(number: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_CHECKED.pack(number, len(body))))


def read_image(image: bytes | memoryview) -> Loaded:
    """What an image holds. Raises Damaged if a single byte of it is not what was written."""
    number, (software, snapshot), end = _entry(image, 0, None, 2)
    records: list[Record] = []
    while end < len(image):
        _, (now, chance, message), end = _entry(image, end, number, 3)
        records.append(Record(now, chance, message))
    return Loaded(snapshot, tuple(records), software=str(software), number=number)


def _entry(image: bytes | memoryview, at: int, wanted: int | None, count: int) -> tuple[int, list[Any], int]:
    """The entry that begins at byte `at`: its number, its `count` values, and where it ends."""
    if at + _HEAD.size > len(image):
        raise Damaged(f"the entry at byte {at} is cut off")
    number, length, crc = _HEAD.unpack_from(image, at)
    end = at + _HEAD.size + length
    body = bytes(image[end - length : end])
    if len(body) != length or _check(number, body) != crc:
        raise Damaged(f"the entry at byte {at} fails its checksum")
    if wanted is not None and number != wanted:
        raise Damaged(f"the entry at byte {at} belongs to another snapshot")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise Damaged(f"the entry at byte {at} is not JSON") from None
    if not isinstance(values, list) or len(values) != count:
        raise Damaged(f"the entry at byte {at} is of another shape")
    return number, values, end
