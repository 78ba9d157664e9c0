"""The last lines of every managed worker, in a file each: `<runtime>/logs/TITLE.log`, and one older one.

The nursery writes them, one thread at a time; the daemon reads them for `tail`, and shares nothing else
with the writer. A position is "INODE:KEY:OFFSET": inode and first line stay when a file is set aside, so a
reader that comes back finds its place there, and never mistakes another file for it. Whoever dies between
two lines of this leaves at worst a line without its end, or no file for a moment.
Neighbours: `logs` (writes), `managed` (reads). Knows no record.
"""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from dataclasses import dataclass
from typing import Final

FOLDER: Final = "logs"
FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
"""What workers log is the supervisor's own user's: others ask for `tail`, which is for commanders."""
FILE_MAX: Final = 1 << 20
"""Bytes of a file; then it is set aside, and the one before it goes."""
READ_MAX: Final = 48 * 1024
"""Bytes of one answer: with its escapes it must fit into a frame."""
LINES_MAX: Final = 1000
NOWHERE: Final = "0:0:0"
"""The position in a log that does not exist yet."""
_TITLE: Final = re.compile(r"[A-Za-z0-9_.:-]{1,160}")
_POSITION: Final = re.compile(r"(\d{1,20}):(\d{1,10}):(\d{1,20})")
_KEY_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Tail:
    """Lines as they are in the file, and where the next ones will be."""

    lines: tuple[str, ...]
    position: str
    lost: bool = False
    """Lines between the asked position and these were thrown away before anybody read them."""


def path_of(runtime: str, title: str) -> str:
    """The file of this process. Raises ValueError if it cannot have one."""
    if not _TITLE.fullmatch(title):
        raise ValueError(f"no process has the name {title!r:.60}")
    return os.path.join(runtime, FOLDER, f"{title}.log")


class LogFile:
    """The writing end. It makes and opens the file when there is something to write; `close` it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._number = -1
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append whole lines. Raises OSError; what was to be written is lost then."""
        if self._number >= 0 and self._size + len(data) > FILE_MAX:
            self.close()
            os.replace(self._path, f"{self._path}.1")
        if self._number < 0:
            self._open()
        try:
            self._size += os.write(self._number, data)
        except OSError:
            self.close()  # whatever it was, the next line begins with a file that can be opened
            raise

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._number = os.open(self._path, flags, FILE_MODE)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._path), FOLDER_MODE, exist_ok=True)
            self._number = os.open(self._path, flags, FILE_MODE)
        with contextlib.suppress(OSError):  # an earlier version let its group read them
            os.fchmod(self._number, FILE_MODE)
            os.chmod(os.path.dirname(self._path), FOLDER_MODE)
        self._size = os.fstat(self._number).st_size

    def close(self) -> None:
        """Let the file go; another `write` opens it again."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)


def rename(path: str, to: str) -> None:
    """Both files under another name. Raises OSError."""
    for end in (".1", ""):
        if os.path.exists(f"{path}{end}"):
            os.replace(f"{path}{end}", f"{to}{end}")


def remove(path: str) -> None:
    """Both files. Raises OSError."""
    for end in (".1", ""):
        if os.path.exists(f"{path}{end}"):
            os.unlink(f"{path}{end}")


def read(path: str, lines: int, after: str = "") -> Tail:
    """The last `lines` lines; those that follow `after`, at most so many, if it is given.

    A file that is not there has no lines. Raises OSError, and ValueError for what is no position.
    """
    known = _POSITION.fullmatch(after)
    if after and not known:
        raise ValueError(f"no position in a log: {after!r:.60}")
    inode, key, offset = map(int, known.groups()) if known else (0, 0, 0)
    parts = [part for part in (_open(f"{path}.1"), _open(path)) if part is not None]
    try:
        if known is None:
            return _last(parts, min(lines, LINES_MAX))
        for place, part in enumerate(parts):
            if part.inode == inode and key in (0, part.key) and offset <= part.size:
                return _following(parts[place:], offset, min(lines, LINES_MAX))
        if not parts:
            return Tail((), after)
        begun = _following(parts, 0, min(lines, LINES_MAX))
        return Tail(begun.lines, begun.position, lost=after != NOWHERE)
    finally:
        for part in parts:
            os.close(part.number)


@dataclass(frozen=True, slots=True)
class _Part:
    """One file, open for reading."""

    number: int
    inode: int
    key: int
    """A check sum of its first line; 0 = it has none yet."""
    size: int

    def position(self, offset: int) -> str:
        """A place in it."""
        return f"{self.inode}:{self.key}:{offset}"


def _open(path: str) -> _Part | None:
    try:
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    found = os.fstat(number)
    line, end, _ = os.pread(number, _KEY_BYTES, 0).partition(b"\n")
    whole = bool(end) or len(line) == _KEY_BYTES
    return _Part(number, found.st_ino, zlib.crc32(line) or 1 if whole else 0, found.st_size)


def _last(parts: list[_Part], lines: int) -> Tail:
    """The end of the newest file, and before it that of the older one if that is not enough.

    A last line that is longer than an answer is shown from its middle on: nothing at all would look like
    a log that is empty.
    """
    text = b""
    for part in reversed(parts):
        begin = max(0, part.size - (READ_MAX - len(text)))
        piece = os.pread(part.number, part.size - begin, begin)
        if begin:
            piece = piece.partition(b"\n")[2] or (b"" if text else piece)
        text = piece + text
        if begin or text.count(b"\n") >= lines:
            break
    if not parts:
        return Tail((), NOWHERE)
    whole, size = _whole(text), parts[-1].size
    left = len(text) - len(whole)
    found = whole.splitlines()[-lines:] if lines else []
    return Tail(_texts(found), parts[-1].position(max(0, size - left)))


def _following(parts: list[_Part], offset: int, lines: int) -> Tail:
    """Whole lines from here on; of the next file only when this one is read to its end."""
    for place, part in enumerate(parts):
        data = os.pread(part.number, READ_MAX, offset)
        last = place == len(parts) - 1
        whole = _whole(data) if last or len(data) == READ_MAX else data
        if not whole and len(data) == READ_MAX:
            whole = data  # one line that is longer than an answer: in pieces
        found = whole.splitlines(keepends=True)[:lines]
        if found or last:
            return Tail(_texts(found), part.position(offset + sum(map(len, found))))
        offset = 0
    return Tail((), NOWHERE)


def _whole(data: bytes) -> bytes:
    """Without a last line whose end was not written yet."""
    return data[: data.rfind(b"\n") + 1]


def _texts(lines: list[bytes]) -> tuple[str, ...]:
    return tuple(line.rstrip(b"\r\n").decode(errors="replace") for line in lines)
