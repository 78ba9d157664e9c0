"""The checkpoint in the runtime directory: what a new daemon continues from after any kill.

One snapshot of the engine and the messages that it handled since: replaying them gives its state back.
Appended bytes mean nothing until one store of a selector word covers them, so a kill between any two
lines leaves the state before or the state after. The directory is a tmpfs, which outlives every process
and no reboot; `disk` keeps the copy that survives that. Only the daemon writes and reads here, and only
one daemon at a time: the nursery's lock sees to it. Neighbours: `image` (the bytes of a half), `mind`
(the owner). Knows no clock and not what a message means.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import zlib
from dataclasses import replace
from typing import Any, Final

from supervisor.image import NUMBER_MASK, Damaged, Loaded, Record, pack_record, pack_snapshot, read_image

__all__ = ["Damaged", "Journal", "Loaded", "Record", "read_image", "select", "selected"]

FILE_NAME: Final = "checkpoint"
NEW_SUFFIX: Final = ".new"
BAD_SUFFIX: Final = ".bad"
"""A file that cannot be read at all is set aside under this name; an earlier one of it is dropped."""
VERSION: Final = 1
MAGIC: Final = 0x4252_4B43_4850_0000 | VERSION
HEADER_BYTES: Final = 4096
HALF_BYTES: Final = 2 << 20
"""Bytes of a half in a new file; a file grows when a snapshot needs more."""
ROOM_BYTES: Final = 1 << 20
"""Bytes that are left for records behind a snapshot when it is taken, and more behind a large one; else
the file grows.
"""
HALF_BYTES_MAX: Final = 1 << 30
SNAPSHOT_AFTER_BYTES: Final = 512 << 10
SNAPSHOT_AFTER_RECORDS: Final = 2000
"""Bytes and number of records after which a snapshot is due: they bound the time of a replay. Behind a
larger snapshot so many bytes may follow as it has itself: then snapshots cost as much as records do,
however many workers there are, and a replay reads at most twice what the snapshot alone holds.
"""

W_MAGIC: Final = 0
W_BOOT: Final = 1
W_SIZE: Final = 2
W_CHECK: Final = 3
W_SELECTOR: Final = 8
W_BEFORE: Final = 9


def select(half: int, end: int) -> int:
    """The selector word for `end` bytes in use of a half; it proves itself, since nothing else does.

    63..33 check: crc32 >> 1 of the rest | 32 half | 31..0 bytes in use
    """
    rest = half << 32 | end
    return zlib.crc32(rest.to_bytes(8, "little")) >> 1 << 33 | rest


def selected(word: int) -> tuple[int, int] | None:
    """Half and bytes in use; None if `select` never made this word."""
    half, end = word >> 32 & 1, word & 0xFFFF_FFFF
    return (half, end) if word == select(half, end) else None


def _wanted(length: int) -> int:
    """Bytes of a half for a snapshot of `length` and the records until the next one is due."""
    room = min(length + ROOM_BYTES // 2, HALF_BYTES_MAX - length)
    return length + max(ROOM_BYTES, room)


class _File:
    """The mapped file: a header of one page, then two halves of equal size.

    64-bit words of the header, native byte order
    0 magic and version | 1 boot id | 2 bytes of a half | 3 crc32 of words 0..2
    8 selector | 9 the last selector of the other half
    """

    __slots__ = ("bytes", "memory", "path", "size", "words")

    def __init__(self, path: str, fd: int) -> None:
        """Map all of `fd`, which stays the caller's."""
        self.path = path
        """Where it is, or will be once it is complete."""
        self.memory = mmap.mmap(fd, 0)
        self.bytes = memoryview(self.memory)
        self.words = self.bytes[:HEADER_BYTES].cast("Q")
        self.size = (len(self.bytes) - HEADER_BYTES) // 2
        """Bytes of a half."""

    @classmethod
    def make(cls, path: str, boot: int, size: int) -> _File:
        """A new file under a temporary name: allocated, header written, nothing selected. Raises OSError.

        Whoever dies before `install` leaves a temporary file, which the next one overwrites.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(path + NEW_SUFFIX, flags, 0o600)
        try:
            os.posix_fallocate(fd, 0, HEADER_BYTES + 2 * size)
            file = cls(path, fd)
        except OSError:
            os.unlink(path + NEW_SUFFIX)
            raise
        finally:
            os.close(fd)
        words = file.words
        words[W_MAGIC], words[W_BOOT], words[W_SIZE] = MAGIC, boot, size
        words[W_CHECK] = zlib.crc32(words[W_MAGIC : W_SIZE + 1])
        return file

    @classmethod
    def map(cls, path: str) -> _File:
        """Map what is at `path`. Raises FileNotFoundError; Damaged if it is too short to have a header."""
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if os.fstat(fd).st_size <= HEADER_BYTES:
                raise Damaged("it is too short to be one")
            return cls(path, fd)
        finally:
            os.close(fd)

    def install(self) -> None:
        """Give the file its name, in place of the one that may have it."""
        os.replace(self.path + NEW_SUFFIX, self.path)

    def check(self, boot: int) -> None:
        """Believe no byte of an old file before this. Raises Damaged."""
        words = self.words
        if words[W_MAGIC] != MAGIC:
            raise Damaged("it is of another version, or no checkpoint")
        if words[W_CHECK] != zlib.crc32(words[W_MAGIC : W_SIZE + 1]):
            raise Damaged("its header fails its checksum")
        if words[W_BOOT] != boot:
            raise Damaged("it is of another boot of this machine")
        if len(self.bytes) != HEADER_BYTES + 2 * words[W_SIZE]:
            raise Damaged(f"it has {len(self.bytes)} bytes instead of {HEADER_BYTES + 2 * words[W_SIZE]}")

    def half(self, half: int) -> memoryview:
        """The bytes of a half."""
        start = HEADER_BYTES + half * self.size
        return self.bytes[start : start + self.size]

    def read(self) -> tuple[Loaded, int, int]:
        """What it holds, from which half, and bytes in use of it. Raises Damaged if neither half is whole.

        The current half, else the one before it, which was whole when it was left.
        """
        problems: list[str] = []
        for name, word in (("current", W_SELECTOR), ("previous", W_BEFORE)):
            try:
                place = selected(self.words[word])
                if place is None or place[1] > self.size:
                    raise Damaged("its selector word is damaged")
                found = read_image(bytes(self.half(place[0])[: place[1]]))
            except Damaged as error:
                problems.append(f"the {name} half was not used: {error}")
            else:
                told = tuple(f"checkpoint: {problem}" for problem in problems)
                return replace(found, problems=told), *place
        raise Damaged("; ".join(problems))

    @property
    def empty(self) -> bool:
        """True if its maker died before the first snapshot."""
        return not self.words[W_SELECTOR] and not self.words[W_BEFORE]

    def close(self) -> None:
        """Unmap the file."""
        self.words.release()
        self.bytes.release()
        self.memory.close()


class Journal:
    """The open checkpoint. Order of use: `open`, `load`, `snapshot`, then `append` and `commit` for ever.

    Owned by the daemon's loop; no other thread calls it.
    """

    def __init__(self, file: _File, boot: int, software: str, opened: Loaded | None) -> None:
        """Made by `open`."""
        self._file = file
        self._boot = boot
        self._software = software
        self._opened = opened
        self.cramped = ""
        """Why the file could not grow when it should have; empty = it has the room that it wants."""
        self._half = 0
        self._number = 0
        """The number of the current half's snapshot; each snapshot takes the next."""
        self._whole = False
        """True once this process has written both halves."""
        self._committed = 0
        """Bytes in use of the current half."""
        self._end = 0
        """The same with the records that are not committed yet."""
        self._snapshot_end = 0
        self._records = 0
        """Records that this process appended behind its last snapshot."""

    @classmethod
    def open(cls, directory: str, boot: int, software: str) -> Journal:
        """Open or make the checkpoint in `directory`. Raises OSError if it cannot be made (ENOSPC, EROFS).

        A file that cannot be read is set aside, and `load` says so; it never keeps a daemon from starting.
        """
        path = os.path.join(directory, FILE_NAME)
        file: _File | None = None
        try:
            file = _File.map(path)
            file.check(boot)
            if file.empty:
                return cls(file, boot, software, None)
            loaded, half, end = file.read()
        except FileNotFoundError:
            return cls(cls._new(path, boot), boot, software, None)
        except Damaged as error:
            if file is not None:
                file.close()
            # Whoever dies behind this line leaves no file: the next one starts empty too, as it must.
            os.replace(path, path + BAD_SUFFIX)
            bad = Loaded(None, problems=(f"checkpoint: set aside as {FILE_NAME}{BAD_SUFFIX}: {error}",))
            return cls(cls._new(path, boot), boot, software, bad)
        journal = cls(file, boot, software, loaded)
        journal._half, journal._number = half, loaded.number
        journal._committed = journal._end = end
        return journal

    @staticmethod
    def _new(path: str, boot: int) -> _File:
        """An empty file in its place; until its first snapshot a load finds nothing in it."""
        file = _File.make(path, boot, HALF_BYTES)
        file.install()
        return file

    def load(self) -> Loaded | None:
        """What is committed; None = there never was a checkpoint here.

        The first call tells what `open` found, later ones read it again.
        """
        if not self._whole:
            return self._opened
        return read_image(self.image())

    @property
    def wants_snapshot(self) -> bool:
        """True when a snapshot is due: at the start, and when the records are long enough to be felt."""
        return (
            not self._whole
            or self._records > SNAPSHOT_AFTER_RECORDS
            or self._end - self._snapshot_end > max(SNAPSHOT_AFTER_BYTES, self._snapshot_end)
        )

    def append(self, now: float, chance: float, message: list[Any]) -> bool:
        """Write one record behind the others; it counts from the next `commit` on.

        False = it does not fit, or there is no snapshot yet that it could follow: the caller lets the
        engine handle the message and takes a snapshot, which covers it. Whoever dies before the commit
        leaves bytes that no selector reaches.
        """
        if not self._whole:
            return False
        record = pack_record(self._number, now, chance, message)
        after = self._end + len(record)
        if after > self._file.size:
            return False
        start = HEADER_BYTES + self._half * self._file.size
        self._file.bytes[start + self._end : start + after] = record
        self._end = after
        self._records += 1
        return True

    def commit(self) -> None:
        """Make everything appended valid by one store of the selector word."""
        if self._end != self._committed:
            self._file.words[W_SELECTOR] = select(self._half, self._end)
            self._committed = self._end

    def rollback(self) -> None:
        """Forget what was appended and not committed."""
        self._end = self._committed

    def snapshot(self, plain: Any) -> None:
        """Write the whole engine into the other half and select it. Raises OSError if the file cannot grow.

        The first one after `open` goes into both halves, so that nothing of an earlier life and nothing
        damaged can come back. When this raises, what was committed before is still valid.
        """
        body = pack_snapshot(self._next_number(), self._software, plain)
        if _wanted(len(body)) <= self._file.size:
            self._switch(body)
            self.cramped = ""
        else:
            self._make_room(body)
        if not self._whole:
            self._switch(pack_snapshot(self._next_number(), self._software, plain))
            self._whole = True

    def _next_number(self) -> int:
        return self._number + 1 & NUMBER_MASK

    def _switch(self, body: bytes) -> None:
        """Bytes first, then the word that remembers the half we leave, then the one store that leaves it.

        Whoever dies before the last store: the old half is current and untouched; both words may name it
        by then. Whoever dies after it: the new half is current.
        """
        other = 1 - self._half
        words = self._file.words
        self._file.half(other)[: len(body)] = body
        words[W_BEFORE] = words[W_SELECTOR]
        words[W_SELECTOR] = select(other, len(body))
        self._settle(other, len(body))

    def _make_room(self, body: bytes) -> None:
        """A larger file; where there is no room for one, the old one for as long as the snapshot fits.

        With less room behind it snapshots are due more often: slower, but nothing is given up.
        """
        try:
            self._grow(body)
        except OSError as error:
            if len(body) > self._file.size:
                raise
            self.cramped = f"checkpoint: there is no room for a larger file: {error.strerror or error}"
            self._switch(body)
        else:
            self.cramped = ""

    def _grow(self, body: bytes) -> None:
        """A larger file with the snapshot in it replaces the old one by one rename.

        Whoever dies before the rename: the old file is complete. After it: the new one is, but for its
        second half, which the `_switch` that follows a growth fills.
        """
        size = self._file.size
        while size < _wanted(len(body)):
            size *= 2
        if size > HALF_BYTES_MAX:
            raise OSError(f"checkpoint: a snapshot of {len(body)} bytes is beyond what a half may have")
        file = _File.make(self._file.path, self._boot, size)
        file.half(0)[: len(body)] = body
        file.words[W_SELECTOR] = select(0, len(body))
        with contextlib.ExitStack() as undo:
            undo.callback(file.close)
            file.install()
            undo.pop_all()
        self._file.close()
        self._file = file
        self._whole = False
        self._settle(0, len(body))

    def _settle(self, half: int, end: int) -> None:
        """Stand behind a snapshot that was just selected."""
        self._half = half
        self._number = self._next_number()
        self._committed = self._end = self._snapshot_end = end
        self._records = 0

    def image(self) -> bytes:
        """The committed bytes of the current half, which `read_image` reads: for the copy on disk."""
        return bytes(self._file.half(self._half)[: self._committed])

    def close(self) -> None:
        """Unmap the file, which stays as it is."""
        self._file.close()
