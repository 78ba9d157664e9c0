"""What was written or erased lately on this host, as words that every process reads without a system call.

A file of the spool directory, mapped by every process:

    word 0            who made the file: a random number, so that a value cached elsewhere is not compared
    word 2n + 2       drawn anew whenever something of a user in bucket n was stored: 42 bits ms, 22 random
    word 2n + 3       drawn anew whenever a user in bucket n was erased

A cached value keeps the words as they were before it was loaded: if they differ now, it is outdated
(stored) or must not be used at all (erased). Words are random, not counted, so a store needs no lock and no
value comes back; a stored one begins with its time, by which values of other hosts are judged. Users who
share a bucket cost each other a reload, nothing more.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

EPOCHS: Final = "epochs"
"""The name of the file."""
BUCKETS: Final = 4096
WORDS: Final = 2 * BUCKETS + 2
BYTES: Final = 8 * WORDS


RANDOM_BITS: Final = 22


@dataclass(frozen=True, slots=True)
class Stamp:
    """How the words of one user stood at an instant."""

    host: int
    stored: int
    erased: int

    @property
    def stored_at(self) -> float:
        """When this host last stored something of the user, seconds since 1970; 0.0 = never."""
        return (self.stored >> RANDOM_BITS) / 1000


class Epochs:
    """The words. Where the file cannot be made they are this process's own, and `shared` is False.

    Then what other processes store is told by nobody: every stamp says that something was.
    """

    def __init__(self, path: str, wall: Callable[[], float] = time.time) -> None:
        self.path = path
        self._wall = wall
        self.error = ""
        """Why they are not shared."""
        self._closed = False
        try:
            self._words = memoryview(_mapped(path)).cast("Q")
        except (OSError, ValueError) as error:
            self.error = f"{type(error).__name__}: {error}"
            self._words = _own()
        self.shared = not self.error

    def stamp(self, user_id: str) -> Stamp:
        """The words of this user now. Take it before loading what is to be cached."""
        at = _place(user_id)
        words = self._words
        return Stamp(words[0], words[at] if self.shared else self._timed(), words[at + 1])

    def stored(self, user_id: str) -> None:
        """Something of this user was committed."""
        self._change(_place(user_id), self._timed())

    def erased(self, user_id: str) -> None:
        """This user was erased."""
        self._change(_place(user_id) + 1, _draw())

    def _timed(self) -> int:
        return int(self._wall() * 1000) << RANDOM_BITS | _draw() >> (64 - RANDOM_BITS)

    def _change(self, place: int, word: int) -> None:
        self._words[place] = word
        if self._closed and self.shared:  # a call that was under way at the end: the others must know, too
            with contextlib.suppress(OSError, ValueError):
                memoryview(_mapped(self.path)).cast("Q")[place] = word

    def close(self) -> None:
        """Let go of the file, as soon as no call is in the middle of it; the words stay for the others."""
        self._closed = True
        self._words = memoryview(bytearray(self._words)).cast("Q")


def _place(user_id: str) -> int:
    return 2 * (zlib.crc32(user_id.encode("utf-8", "surrogatepass")) % BUCKETS) + 2


def _draw() -> int:
    return int.from_bytes(os.urandom(8), "little") | 1


def _own() -> memoryview:
    """Words of this process alone."""
    words = memoryview(bytearray(BYTES)).cast("Q")
    words[0] = _draw()
    return words


def _mapped(path: str) -> mmap.mmap:
    """The file, whole and with its first word, made by whoever comes first. Raises OSError."""
    if not os.path.exists(path):
        _make(path)
    number = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        return mmap.mmap(number, BYTES)
    finally:
        os.close(number)


def _write(number: int, content: bytes) -> None:
    """All of it. Raises OSError, also where the disk takes only a part."""
    done = 0
    while done < len(content):
        done += os.pwrite(number, content[done:], done)


def _make(path: str) -> None:
    """Make it under a name of its own and link it to its name: never seen half-made."""
    own = f"{path}.{os.getpid()}-{_draw():x}"
    number = os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        # Every byte is written: the blocks must be there before the first store, or a full disk would be a
        # SIGBUS. (Not every system has `posix_fallocate`.)
        _write(number, _draw().to_bytes(8, "little") + bytes(BYTES - 8))
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        os.close(number)
        os.unlink(own)
