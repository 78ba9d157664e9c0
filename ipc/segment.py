"""One shared segment: made, sealed, mapped, checked. Knows what the words are, not what they mean.

The supervisor makes it (`create`), hands its descriptor over, and each worker maps it (`attach`). A
sealed memory file can neither shrink nor grow, so nobody who maps it can be killed by SIGBUS; its
pages are allocated before it is sealed. `private` is the same thing without a file, for a process
that is on its own. Neighbours: `layout` (the bytes), `link` (who writes), `ring` (who reads).
"""

from __future__ import annotations

import mmap
import os
import sys
import zlib
from typing import Final

from ipc import layout as at
from ipc.errors import SegmentError
from ipc.ownership import NO_FILE, File, file_of

try:
    import fcntl
except ImportError:  # Windows: every breaker is local there, no segment is ever shared
    pass

F_ADD_SEALS: Final = 1033
F_GET_SEALS: Final = 1034
SEALS: Final = 0x0001 | 0x0002 | 0x0004  # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
_kept: Final[list[memoryview]] = []
"""Mappings that must never go: `mmap` would close the number of its second descriptor, another's by now."""
BOOT_ID_FILE: Final = "/proc/sys/kernel/random/boot_id"


def boot_id() -> int:
    """64 bits that differ after each boot of this machine; 0 where the system does not tell."""
    try:
        with open(BOOT_ID_FILE, encoding="ascii") as file:
            return int(file.read().strip().replace("-", "")[:16], 16)
    except (OSError, ValueError):
        return 0


class Segment:
    """A mapped segment. `words` and `floats` are two views of the same memory, items aligned to 8 bytes.

    The views keep the mapping alive: it goes when the last of them does, never under a reader.
    """

    __slots__ = ("_file", "_second", "bytes", "fd", "floats", "layout", "words")

    def __init__(self, memory: mmap.mmap, layout: at.Layout, fd: int, second: int = -1) -> None:
        view = memoryview(memory)
        self.layout = layout
        self.fd = fd
        """The memory file, owned by this object; -1 = private."""
        self._file: File = file_of(fd) if fd >= 0 else NO_FILE
        self._second = second
        """The descriptor that the mapping holds; -1 = none, or not known."""
        self.bytes = view
        self.words = view.cast("Q")
        self.floats = view.cast("d")

    @classmethod
    def create(cls, layout: at.Layout, nonce: bytes, boot: int) -> Segment:
        """A new sealed memory file with its header written. Raises OSError (ENOMEM, ENOSPC, EMFILE)."""
        fd = os.memfd_create("breakerd-segment", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(fd, 0, layout.size)
            fcntl.fcntl(fd, F_ADD_SEALS, SEALS)
            segment = cls(mmap.mmap(fd, layout.size), layout, fd)
        except BaseException:
            os.close(fd)
            raise
        words = segment.words
        words[at.W_BOOT] = boot
        words[at.W_GEOMETRY] = layout.geometry
        words[at.W_NONCE] = int.from_bytes(nonce[-8:], "big")
        words[at.W_MAGIC] = at.MAGIC
        return segment

    @classmethod
    def attach(cls, fd: int, nonce: bytes, boot: int) -> Segment:
        """Map a segment that somebody else made; takes the descriptor over. Raises SegmentError.

        Checked before a byte of it is believed: the seals, the size, and each word of the identity.
        """
        size = _sealed_size(fd)
        memory, second = _mapped(fd, size)
        head = memoryview(memory).cast("Q")
        if head[at.W_MAGIC] != at.MAGIC:
            raise SegmentError(f"the segment is of another layout version (this side: {at.LAYOUT_VERSION})")
        if head[at.W_BOOT] != boot:
            raise SegmentError("the segment is of another boot of this machine")
        if head[at.W_NONCE] != int.from_bytes(nonce[-8:], "big"):
            raise SegmentError("the segment belongs to another attachment")
        geometry = head[at.W_GEOMETRY]
        try:
            layout = at.Layout(geometry & 0xFFFF_FFFF)
        except ValueError as error:
            raise SegmentError(str(error)) from None
        if layout.geometry != geometry or layout.size != size:
            raise SegmentError(f"the segment has {size} bytes, its header says {layout.size}")
        return cls(memory, layout, fd, second)

    @classmethod
    def adopt(cls, fd: int) -> Segment:
        """Map one of our own again; takes the descriptor over. Raises SegmentError.

        No word of it is asked, because its worker may have written over any: the sealed size says it all.
        """
        size = _sealed_size(fd)
        slots = 2 * at.BLOCK
        while slots <= at.MAX_SLOTS:
            layout = at.Layout(slots)
            if layout.size == size:
                return cls(mmap.mmap(fd, size), layout, fd)
            slots *= 2
        raise SegmentError(f"the segment has {size} bytes, which no layout has")

    @classmethod
    def private(cls) -> Segment:
        """A segment of this process alone, with a small ring and no room for declarations."""
        layout = at.Layout(at.PRIVATE_SLOTS, declarations=0)
        return cls(_anonymous(layout.size), layout, -1)

    def close_fd(self) -> None:
        """Close the descriptor if it is still ours; the mapping stays while a view of it is held."""
        fd, ours = self.fd, self.is_ours()
        self.fd = -1
        if fd >= 0 and (not ours or (self._second >= 0 and file_of(self._second) != self._file)):
            _kept.append(self.bytes)
        if ours:
            os.close(fd)

    def is_ours(self) -> bool:
        """True if the descriptor is the memory file still: an application may have closed it."""
        return self.fd >= 0 and file_of(self.fd) == self._file

    def declare(self, payload: bytes) -> bool:
        """Append one declaration record; False = no room. Called by the owning worker, one thread at a time.

        A kill between the two stores leaves the record unpublished: it was never declared.
        """
        used = self.words[at.W_DECLARED]
        record = 8 + -(-len(payload) // 8) * 8
        if used + record > 8 * self.layout.declarations:
            return False
        start = 8 * self.layout.declared + used
        self.bytes[start + 8 : start + 8 + len(payload)] = payload
        self.words[start // 8] = len(payload) << 32 | zlib.crc32(payload)
        self.words[at.W_DECLARED] = used + record
        return True

    def declarations(self, start: int) -> tuple[list[bytes], int]:
        """The records from byte `start` on, and where they end; hostile lengths end the run.

        A record whose checksum does not hold yet is left for the next look.
        """
        room = 8 * self.layout.declarations
        end = min(self.words[at.W_DECLARED] // 8 * 8, room)
        found: list[bytes] = []
        while start + 8 <= end:
            head = self.words[self.layout.declared + start // 8]
            length, crc = head >> 32, head & 0xFFFF_FFFF
            stop = start + 8 + -(-length // 8) * 8
            if stop > end:
                break
            first = 8 * self.layout.declared + start + 8
            payload = bytes(self.bytes[first : first + length])
            if zlib.crc32(payload) != crc:
                break
            found.append(payload)
            start = stop
        return found, start


def _mapped(fd: int, size: int) -> tuple[mmap.mmap, int]:
    """The memory, and the descriptor that its mapping holds: the lowest free, if nobody was quicker."""
    if sys.version_info >= (3, 13):
        return mmap.mmap(fd, size, trackfd=False), -1
    second = os.dup(fd)
    os.close(second)
    memory = mmap.mmap(fd, size)
    return memory, second if file_of(second) == file_of(fd) else -1


def _sealed_size(fd: int) -> int:
    """The size of a memory file that cannot change, all of it allocated. Raises SegmentError."""
    try:
        seals = fcntl.fcntl(fd, F_GET_SEALS)
    except OSError:
        # Files other than memory files have no seals at all.
        seals = 0
    if seals & SEALS != SEALS:
        raise SegmentError("the segment is not sealed: its size could change under its readers")
    size = os.fstat(fd).st_size
    if size % at.PAGE or not 8 * at.W_BOARD <= size <= 8 * (at.MAX_SLOTS << 2):
        raise SegmentError(f"the segment has {size} bytes, which no layout has")
    try:
        # Its owner may have punched holes: a page that cannot be allocated later kills by SIGBUS.
        os.posix_fallocate(fd, 0, size)
    except OSError as error:
        raise SegmentError(f"the segment's memory cannot be had: {error.strerror}") from error
    return size


def wipe_on_fork_page() -> memoryview[float]:
    """A private page of doubles that reads 0.0 in every child, also one forked by C code.

    Where the kernel cannot (before 4.14, not Linux) the page is an ordinary one.
    """
    page = _anonymous(mmap.PAGESIZE)
    try:
        page.madvise(18)  # MADV_WIPEONFORK, which the mmap module of 3.11 does not name
    except (OSError, ValueError, AttributeError):
        return memoryview(page).cast("d")
    return memoryview(page).cast("d")


def _anonymous(size: int) -> mmap.mmap:
    """Zeroed memory of this process alone; a forked child gets a copy of it."""
    if os.name == "nt":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
