"""The copy of the checkpoint in the state directory: what is left after a reboot.

Saved about once a second when something changed, in a thread of its owner, because a disk may take long.
The image is compressed, so that a busy host does not wear its disk out. A copy is written under a
temporary name, forced to the disk and renamed; the one before it is kept. So
whoever dies or loses power between any two lines leaves the old copy or the new one, never a mixture.
Only the daemon writes and reads here, one call at a time. Neighbours: `journal` (whose image it is),
`daemon` (the owner). Knows no clock, no thread and not what the image means.
"""

from __future__ import annotations

import contextlib
import errno
import os
import struct
import zlib
from dataclasses import dataclass
from typing import Final

FILE_NAME: Final = "checkpoint"
PREVIOUS_SUFFIX: Final = ".previous"
NEW_SUFFIX: Final = ".new"
MAGIC: Final = b"BRKCOPY2"
"""The last character is the version of this format."""
PLAIN_MAGIC: Final = b"BRKCOPY1"
"""Of the version before: its image is not compressed. It is read, and never written."""
PACK_LEVEL: Final = 1
"""Of zlib. An image is JSON in which the same names stand again and again: a tenth of it is left."""
_HEAD: Final = struct.Struct("=8sQdQ")
_CRC: Final = struct.Struct("=I")
COPY_BYTES_MAX: Final = 2 << 30
"""A larger file is not read: no journal has such a half."""


@dataclass(frozen=True, slots=True)
class Saved:
    """A copy as it was read back, or what kept it from being read."""

    image: bytes | None
    """What `image.read_image` reads; None = there is no copy, or none is whole."""
    boot: int = 0
    """Boot id under which its times were taken."""
    saved_at: float = 0.0
    """Seconds of CLOCK_MONOTONIC of that boot."""
    problems: tuple[str, ...] = ()
    """What could not be read, in sentences."""

    def shift_s(self, boot: int, now: float) -> float:
        """By how much the times in the image must be moved so that what remained of them remains.

        0.0 within one boot, where the clock has run on.
        """
        return 0.0 if boot == self.boot else now - self.saved_at


class DiskCopy:
    """The copies in one directory. `save` and `load` block for as long as the disk does."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.problem = ""
        """Why the last `save` failed; empty = it did not. Written by the thread, read by the loop."""
        self.written = 0
        """Bytes of all copies that were written whole; written by the thread, read by the loop."""

    @property
    def path(self) -> str:
        """The current copy."""
        return os.path.join(self.directory, FILE_NAME)

    def save(self, image: bytes, boot: int, now: float) -> bool:
        """Write a new copy; False = it failed, `problem` says why, and the copies are as they were.

        A full or read-only file system is no error of ours: the owner tries again a second later.
        """
        packed = zlib.compress(image, PACK_LEVEL)
        head = _HEAD.pack(MAGIC, boot, now, len(packed))
        crc = _CRC.pack(zlib.crc32(packed, zlib.crc32(head)))
        path = self.path
        try:
            self._write(path + NEW_SUFFIX, (head, crc, packed))
            # Dying between the two renames leaves no current copy; `load` then takes the previous one.
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, path + PREVIOUS_SUFFIX)
            os.replace(path + NEW_SUFFIX, path)
            self._sync_directory()
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "eio").lower()
            self.problem = f"state_{name}: {path}: the checkpoint was not saved: {error.strerror}"
            with contextlib.suppress(OSError):
                os.unlink(path + NEW_SUFFIX)
            return False
        self.problem = ""
        self.written += len(head) + len(crc) + len(packed)
        return True

    @staticmethod
    def _write(path: str, parts: tuple[bytes, ...]) -> None:
        """A new file, on the disk when this returns. One whose fsync failed is never trusted again."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o600), "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())

    def _sync_directory(self) -> None:
        """Force the renames to the disk."""
        fd = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def load(self) -> Saved:
        """The newest copy that is whole, else none; what was damaged on the way is told."""
        problems: list[str] = []
        for path in (self.path, self.path + PREVIOUS_SUFFIX):
            try:
                with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
                    data = file.read(COPY_BYTES_MAX)
            except FileNotFoundError:
                continue
            except OSError as error:
                problems.append(f"{path}: not used: {error.strerror}")
                continue
            found = _read(data)
            if isinstance(found, str):
                problems.append(f"{path}: not used: {found}")
                continue
            return Saved(found[0], found[1], found[2], tuple(problems))
        return Saved(None, problems=tuple(problems))


def _read(data: bytes) -> tuple[bytes, int, float] | str:
    """Image, boot id and time of a copy, or what is wrong with it."""
    start = _HEAD.size + _CRC.size
    if len(data) < start:
        return "it is cut off"
    magic, boot, saved_at, length = _HEAD.unpack_from(data)
    if magic not in (MAGIC, PLAIN_MAGIC):
        return "it is of another version, or no copy of a checkpoint"
    image = data[start:]
    if len(image) != length:
        return f"it holds {len(image)} bytes instead of {length}"
    if zlib.crc32(image, zlib.crc32(data[: _HEAD.size])) != _CRC.unpack_from(data, _HEAD.size)[0]:
        return "it fails its checksum"
    if magic == PLAIN_MAGIC:
        return image, boot, saved_at
    try:
        return zlib.decompressobj().decompress(image, COPY_BYTES_MAX), boot, saved_at
    except zlib.error as error:
        return f"it cannot be unpacked: {error}"
