"""What was written or erased lately on this host, as words that every process reads without a system call.

A file of the spool directory, mapped by every process:

    word 0            who made the file: a random number, so that a value cached elsewhere is not compared
    word 2n + 2       drawn anew whenever something of a user in bucket n was stored
    word 2n + 3       drawn anew whenever a user in bucket n was erased

A cached value keeps the words as they were before it was loaded: if they differ now, it is outdated
(stored) or must not be used at all (erased). Words are random, not counted, so a store needs no lock and no
value comes back. Users who share a bucket cost each other a reload, nothing more.
"""

from __future__ import annotations

import mmap
import os
import zlib
from dataclasses import dataclass
from typing import Final

BUCKETS: Final = 4096
WORDS: Final = 2 * BUCKETS + 2
BYTES: Final = 8 * WORDS


@dataclass(frozen=True, slots=True)
class Stamp:
    """How the words of one user stood at an instant."""

    host: int
    stored: int
    erased: int


class Epochs:
    """The words. Where the file cannot be made they are this process's own, and `shared` is False."""

    def __init__(self, path: str) -> None:
        self.shared = True
        try:
            self._map = _mapped(path)
        except (OSError, ValueError):
            self.shared = False
            self._map = mmap.mmap(-1, BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._map[:8] = _draw().to_bytes(8, "little")
        self._words = memoryview(self._map).cast("Q")

    def stamp(self, user_id: str) -> Stamp:
        """The words of this user now. Take it before loading what is to be cached."""
        at = _place(user_id)
        words = self._words
        return Stamp(words[0], words[at], words[at + 1])

    def stored(self, user_id: str) -> None:
        """Something of this user was committed."""
        self._words[_place(user_id)] = _draw()

    def erased(self, user_id: str) -> None:
        """This user was erased."""
        self._words[_place(user_id) + 1] = _draw()

    def close(self) -> None:
        """Unmap the file; the words stay for the others."""
        self._words.release()
        self._map.close()


def _place(user_id: str) -> int:
    return 2 * (zlib.crc32(user_id.encode("utf-8", "surrogatepass")) % BUCKETS) + 2


def _draw() -> int:
    return int.from_bytes(os.urandom(8), "little") | 1


def _mapped(path: str) -> mmap.mmap:
    """The file, whole and with its first word, made by whoever comes first. Raises OSError."""
    if not os.path.exists(path):
        _make(path)
    number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(number, BYTES)
    finally:
        os.close(number)


def _make(path: str) -> None:
    """Make it under a name of its own and link it to its name: never seen half-made."""
    own = f"{path}.{os.getpid()}-{_draw():x}"
    number = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # The blocks must be there before the first store, or a full disk would be a SIGBUS.
        os.posix_fallocate(number, 0, BYTES)
        os.pwrite(number, _draw().to_bytes(8, "little"), 0)
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        os.close(number)
        os.unlink(own)
