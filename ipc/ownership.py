"""Whether a descriptor is still ours: daemons and forked children close them all and use the numbers again.

What a number meant is noted while it is certainly ours and compared before each use. A memory file and a
socket have an inode of their own; all eventfds share one, and the kernel tells them apart by an id.
Neighbours: `segment`, `outlet` and `control`, which hold descriptors. Knows nothing else.
"""

from __future__ import annotations

import os
from typing import Final, TypeAlias

File: TypeAlias = "tuple[int, int, bytes]"
"""Device, inode, and for an eventfd what tells it from all others."""
NO_FILE: Final[File] = (-1, -1, b"")
_EVENTFD: Final = (b"eventfd-id:", b"eventfd-count:")


def file_of(number: int) -> File:
    """Which file a descriptor is; NO_FILE = none."""
    try:
        found = os.fstat(number)
    except (OSError, OverflowError):
        return NO_FILE
    return found.st_dev, found.st_ino, b""


def eventfd_of(number: int) -> File:
    """The same for an eventfd. A file of another kind never gives what an eventfd does, if /proc is there."""
    device, inode, _ = file_of(number)
    return device, inode, _eventfd_id(number)


def _eventfd_id(number: int) -> bytes:
    """The kernel's id of an eventfd (before 5.2: only that it is one); empty = another kind or not known."""
    try:
        info = os.open(f"/proc/self/fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        lines = os.read(info, 4096).splitlines()
    except OSError:
        return b""
    finally:
        os.close(info)
    if any(line.startswith(_EVENTFD[0]) for line in lines):
        return next(line for line in lines if line.startswith(_EVENTFD[0]))
    return _EVENTFD[1] if any(line.startswith(_EVENTFD[1]) for line in lines) else b""
