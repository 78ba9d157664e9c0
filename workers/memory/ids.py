"""Ids that the client makes: time-ordered UUIDs (version 7, RFC 9562), and the time that they carry.

    48 bits milliseconds of the wall clock | 0111 | 12 bits of its fraction | 10 | 62 random bits

Ids of one process ascend strictly, also when the wall clock steps back; across processes they ascend as far
as the clock does. A forked child draws random bits of its own. Neighbours: `records`. Knows no record.
"""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final

STEP_NS: Final = 244
"""What the last of the 12 bits is worth: a millisecond has 4096 steps of 244.14 ns, rounded down."""

VALID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_lock = threading.Lock()
_last = 0


def _unlock() -> None:
    """In a forked child: the thread that held the lock does not exist here."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)


def new_id(now_ns: int | None = None) -> str:
    """A new id as text; `now_ns` (wall clock, nanoseconds since 1970) is for tests."""
    global _last
    now = time.time_ns() if now_ns is None else now_ns
    milliseconds, rest = divmod(now, 1_000_000)
    stamp = milliseconds << 12 | min(rest // STEP_NS, 0xFFF)
    with _lock:
        stamp = _last = max(stamp, _last + 1)
    random = int.from_bytes(os.urandom(8)) & (1 << 62) - 1
    value = stamp >> 12 << 80 | 0x7 << 76 | (stamp & 0xFFF) << 64 | 0x2 << 62 | random
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def check(identity: str | None) -> str | None:
    """The id itself; ValueError if it is none. None stays None."""
    if identity is not None and not VALID.fullmatch(identity):
        raise ValueError("not an id: must be a UUID in lower case with hyphens")
    return identity


def id_time(identity: str) -> datetime:
    """When an id was made, to the millisecond, in UTC."""
    return EPOCH + timedelta(milliseconds=int(identity[:8] + identity[9:13], 16))


def utc_now() -> datetime:
    """The time of day, to the microsecond, in UTC."""
    return datetime.now(UTC)
