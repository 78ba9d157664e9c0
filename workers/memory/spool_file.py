"""One file of the spool: records that are on the disk when `append` returns. SQLite, WAL.

    records      id, user_id, kind, at (microseconds since 1970), crc (of the body), body
    quarantined  the same, and why: what can never be stored, kept for people to look at

Whoever appends opens it `durable` (synchronous=FULL); whoever reads and removes does not need to: a removal
that a power cut takes back is only a replay more. Neighbours: `spool` (a directory of these). Knows no
directory, no lock, and not what is in a body.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote

FORMAT: Final = 1
"""Stored as `user_version`; another one is not ours to read."""
BUSY_MS: Final = 5000
"""How long a statement waits for another process's transaction, which lasts milliseconds."""
WAL_BYTES_MAX: Final = 4 << 20
STATEMENT_ROWS_MAX: Final = 1000
"""Records of one statement: SQLite takes 32,766 values."""
MAKING: Final = ".making"
"""How the name of a file ends that is not complete yet."""
REASON_MAX: Final = 500
"""Characters of a reason that are kept."""

SCHEMA: Final = """
CREATE TABLE records (
    id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, kind INTEGER NOT NULL,
    at INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX records_by_user ON records (user_id);
CREATE TABLE quarantined (
    id TEXT NOT NULL UNIQUE, user_id TEXT NOT NULL, kind INTEGER NOT NULL,
    at INTEGER NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL, reason TEXT NOT NULL);
CREATE INDEX quarantined_by_user ON quarantined (user_id);
"""
TO_QUARANTINE: Final = """
INSERT OR IGNORE INTO quarantined (id, user_id, kind, at, body, crc, reason)
SELECT id, user_id, kind, at, body, crc, ? FROM records WHERE id = ?
"""
FROM_QUARANTINE: Final = """
INSERT OR IGNORE INTO records (id, user_id, kind, at, body, crc)
SELECT id, user_id, kind, at, body, crc FROM quarantined
"""
OF_USER: Final = """
SELECT id, user_id, kind, at, body, crc FROM records WHERE user_id = ? UNION ALL
SELECT id, user_id, kind, at, body, crc FROM quarantined WHERE user_id = ?
"""
FORGET: Final = (
    "DELETE FROM records WHERE user_id = ? AND kind = ? AND at <= ?",
    "DELETE FROM quarantined WHERE user_id = ? AND kind = ? AND at <= ?",
)
SALVAGE: Final = (
    "SELECT id, user_id, kind, at, body, crc, NULL FROM records ORDER BY rowid",
    "SELECT id, user_id, kind, at, body, crc, NULL FROM records ORDER BY rowid DESC",
    "SELECT id, user_id, kind, at, body, crc, reason FROM quarantined ORDER BY rowid",
    "SELECT id, user_id, kind, at, body, crc, reason FROM quarantined ORDER BY rowid DESC",
)
"""From the front up to the damage, and from the end."""


class Kind(enum.IntEnum):
    """What a record asks for."""

    CONVERSATION = 0
    """Store it."""
    ERASURE = 1
    """Erase the user, and all that is not younger than `at`."""


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """Something that is still to be done in the database."""

    id: str
    user_id: str
    kind: Kind
    at: int
    """When it was said, microseconds since 1970."""
    body: bytes = b""
    intact: bool = True
    """False: the bytes are not those that were put."""
    file: str = field(default="", compare=False)
    """The file that it was read from."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record that can never be stored, and why."""

    record: SpoolRecord
    reason: str


class SpoolFile:
    """One connection to one file. Not for two threads at once. Everything raises sqlite3.Error."""

    def __init__(self, path: str, *, durable: bool = False) -> None:
        self.path = path
        if durable and not os.path.exists(path):
            _make(path)
        self._connection = sqlite3.connect(
            f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(durable)
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, durable: bool) -> None:
        run = self._connection.execute
        run(f"PRAGMA busy_timeout = {BUSY_MS}")
        run("PRAGMA secure_delete = ON")  # what a user erased must not stay in free pages
        run(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        run(f"PRAGMA journal_size_limit = {WAL_BYTES_MAX}")
        (found,) = run("PRAGMA user_version").fetchone()
        if found != FORMAT:
            raise sqlite3.NotSupportedError(f"{self.path} has format {found}, not {FORMAT}")

    def append(self, records: Iterable[SpoolRecord]) -> None:
        """Put records; they are on the disk when this returns. The same id twice is one record."""
        rows = [(*_key(one), _crc(_key(one), one.body), one.body) for one in records]
        if len(rows) <= STATEMENT_ROWS_MAX:
            self._append(rows)
            return
        with self.transaction():
            for first in range(0, len(rows), STATEMENT_ROWS_MAX):
                self._append(rows[first : first + STATEMENT_ROWS_MAX])

    def _append(self, rows: Sequence[tuple[object, ...]]) -> None:
        """One statement for all of them, which by itself is a transaction: the interpreter is let go of once
        and not once a row, so that the threads that queue for the next commit are not held up.
        """
        places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(rows))
        self._connection.execute(
            f"INSERT OR IGNORE INTO records (id, user_id, kind, at, crc, body) VALUES {places}",  # noqa: S608 (places)
            [value for row in rows for value in row],
        )

    def first(self, limit: int) -> list[SpoolRecord]:
        """The records with the lowest ids, in their order."""
        return self._read(
            "SELECT id, user_id, kind, at, body, crc FROM records ORDER BY id LIMIT ?", (limit,)
        )

    def of_ids(self, ids: Iterable[str]) -> list[SpoolRecord]:
        """The records with these ids."""
        wanted = "SELECT id, user_id, kind, at, body, crc FROM records WHERE id = ?"
        return [one for key in ids for one in self._read(wanted, (key,))]

    def of_user(self, user_id: str) -> list[SpoolRecord]:
        """Everything of one user, quarantined or not."""
        return self._read(OF_USER, (user_id, user_id))

    def erasures(self) -> list[SpoolRecord]:
        """Every erasure that is still to be done."""
        return self._read(
            "SELECT id, user_id, kind, at, body, crc FROM records WHERE kind = ?", (int(Kind.ERASURE),)
        )

    def quarantined(self, limit: int) -> list[Quarantined]:
        """What can never be stored, in the order of the ids."""
        wanted = "SELECT id, user_id, kind, at, body, crc, reason FROM quarantined ORDER BY id LIMIT ?"
        rows = self._connection.execute(wanted, (limit,))
        return [Quarantined(_record(row[:6], self.path), row[6]) for row in rows]

    def remove(self, ids: Iterable[str]) -> None:
        """They are done."""
        with self.transaction():
            self._connection.executemany("DELETE FROM records WHERE id = ?", [(one,) for one in ids])

    def quarantine(self, identity: str, reason: str) -> None:
        """Set a record aside."""
        with self.transaction():
            self._connection.execute(TO_QUARANTINE, (reason[:REASON_MAX], identity))
            self._connection.execute("DELETE FROM records WHERE id = ?", (identity,))

    def release(self) -> int:
        """Take everything back from quarantine: it is tried again; how many records."""
        with self.transaction():
            self._connection.execute(FROM_QUARANTINE)
            return self._connection.execute("DELETE FROM quarantined").rowcount

    def forget(self, user_id: str, at: int) -> int:
        """Drop all that a user said until then, also from quarantine; how many records."""
        with self.transaction():
            return sum(
                self._connection.execute(statement, (user_id, int(Kind.CONVERSATION), at)).rowcount
                for statement in FORGET
            )

    def counts(self) -> tuple[int, int]:
        """How many records, and how many in quarantine."""
        row = self._connection.execute(
            "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM quarantined)"
        )
        pending, quarantined = row.fetchone()
        return pending, quarantined

    def is_empty(self) -> bool:
        """Whether nothing at all is in it; costs the same whatever is."""
        row = self._connection.execute(
            "SELECT EXISTS (SELECT 1 FROM records) OR EXISTS (SELECT 1 FROM quarantined)"
        )
        (something,) = row.fetchone()
        return not something

    def waits(self) -> bool:
        """Whether a record is in it that is not set aside."""
        (something,) = self._connection.execute("SELECT EXISTS (SELECT 1 FROM records)").fetchone()
        return bool(something)

    def oldest(self) -> int | None:
        """When the first record was said."""
        (at,) = self._connection.execute("SELECT min(at) FROM records").fetchone()
        return None if at is None else int(at)

    def used_bytes(self) -> int:
        """Bytes of the pages that are in use."""
        run = self._connection.execute
        (pages,), (free,), (size,) = (
            run(f"PRAGMA {what}").fetchone() for what in ("page_count", "freelist_count", "page_size")
        )
        return int(pages - free) * int(size)

    def truncate_log(self) -> bool:
        """Empty the write-ahead log, with all that it still remembers; False = somebody is reading it."""
        (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    def check(self) -> None:
        """Raises sqlite3.DatabaseError if the file is damaged."""
        (said,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
        if said != "ok":
            raise sqlite3.DatabaseError(str(said))

    def leave(self) -> None:
        """Keep the connection for ever, untouched: it is the parent's, and closing it would be a write."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction that has its lock from the beginning."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _read(self, statement: str, values: Sequence[object]) -> list[SpoolRecord]:
        return [_record(row, self.path) for row in self._connection.execute(statement, values)]


def salvage(path: str) -> tuple[list[SpoolRecord], list[Quarantined]]:
    """What can still be read of a damaged file: from its front up to the damage, and from its end."""
    found: dict[str, SpoolRecord] = {}
    aside: dict[str, Quarantined] = {}
    for statement in SALVAGE:
        # A connection for each pass: after an error SQLite's idea of the file is not to be trusted.
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_look(path)) as connection:
            for row in connection.execute(statement):
                record = _record(row[:6], path)
                if record.intact and row[6] is None:
                    found[record.id] = record
                elif record.intact:
                    aside[record.id] = Quarantined(record, str(row[6]))
    return list(found.values()), list(aside.values())


def is_damage(error: BaseException) -> bool:
    """Whether the file itself is broken, and not only busy, full or away."""
    if not isinstance(error, sqlite3.DatabaseError) or isinstance(error, sqlite3.NotSupportedError):
        return False
    code = getattr(error, "sqlite_errorcode", None)
    return code is None or code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def torn(path: str) -> bool:
    """Whether the write-ahead log ends in the middle of a frame: the writer died in the middle of a write."""
    try:
        with open(f"{path}-wal", "rb") as file:
            head = file.read(32)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return False
    if len(head) < 32:
        return size > 0
    page = int.from_bytes(head[8:12], "big")
    return (size - 32) % (page + 24) != 0


def _make(path: str) -> None:
    """Make an empty file under a name of its own and give it its name: nobody ever sees it half-made."""
    own = path + MAKING
    with contextlib.closing(sqlite3.connect(own, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT")
    os.rename(own, path)  # closing it has emptied and removed its log


def _look(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(path)}?mode=rw", uri=True, isolation_level=None)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    return connection


def _record(row: Sequence[Any], path: str) -> SpoolRecord:
    """A record from its row; damage may have left any type in a column."""
    identity, user_id, kind, at, body, crc = row
    try:
        found = SpoolRecord(str(identity), str(user_id), Kind(kind), int(at), bytes(body), file=path)
    except (TypeError, ValueError):
        return SpoolRecord(str(identity), str(user_id), Kind.CONVERSATION, 0, intact=False, file=path)
    return found if _crc(_key(found), found.body) == crc else replace(found, intact=False)


def _key(record: SpoolRecord) -> tuple[str, str, int, int]:
    return record.id, record.user_id, int(record.kind), record.at


def _crc(key: tuple[str, str, int, int], body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(repr(key).encode("utf-8", "surrogatepass")))
