"""The spool: a directory of files in which what the database did not take is kept until it does.

Each process appends to a file of its own and reads all of them; a file whose owner died is taken over by
whoever looks after the spool next. Threads that put at the same time share one commit. Neighbours:
`spool_file` (one file), `spool_views` (reading all of them), `replay` (empties it). Knows no database.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from workers.errors import SpoolError, SpoolFull, SpoolUnavailable
from workers.memory import forking
from workers.memory.group_commit import GroupCommit, Ticket
from workers.memory.locks import ProcessLock
from workers.memory.spool_file import MAKING, Quarantined, SpoolFile, SpoolRecord, is_damage, salvage, torn
from workers.memory.spool_views import DAMAGED, FILE, LOCK, Views

COMMIT_MAX: Final = 512
"""Records of one commit; those who wait longer are in the next one."""
RECORD_OVERHEAD: Final = 200
"""Bytes that a record takes beside its body."""
CHECKED_AGAIN_BYTES_MAX: Final = 8 << 20
"""Files of dead processes up to this size are checked again after each change."""
NAMES_MAX: Final = 8
"""Names tried for a new file; each may be held for a moment by who looks after the spool."""

log: Final = logging.getLogger("breakerd.memory.spool")


@dataclass(slots=True)
class Incidents:
    """What this process has seen happen to the spool's files."""

    tails_cut: int = 0
    """Files whose last, unacknowledged write was cut off."""
    damaged_files: int = 0
    salvaged: int = 0
    """Records that were read out of damaged files."""
    last_error: str = ""
    refusing: bool = False
    """The last write failed."""


class Spool:
    """The spool of one configuration, as this process uses it. Any thread may.

    `directory` is made (0700) on first use. `max_bytes` bounds what all processes keep in it together, as
    seen up to a quarter of a second ago; the write-ahead logs, at most 4 MiB a process, come on top.
    """

    def __init__(self, directory: str, max_bytes: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.directory = directory
        self.max_bytes = max_bytes
        self.incidents = Incidents()
        self.views = Views(directory, clock, time.time_ns)
        self._group: GroupCommit[SpoolRecord] = GroupCommit(self._commit, COMMIT_MAX)
        self._committing = forking.StillLock()
        self._own: SpoolFile | None = None
        self._lock: ProcessLock | None = None
        self._checked: dict[str, tuple[int, int]] = {}
        """Files of dead processes that were found whole, with their size and time."""
        self._pid = os.getpid()
        forking.remember(self)

    # --- putting --------------------------------------------------------------------------------------

    def put(self, *records: SpoolRecord) -> None:
        """Keep records; on the disk when this returns. Raises SpoolFull and SpoolUnavailable: not kept."""
        if self._pid != os.getpid():
            self.after_fork_in_child()
        self._group.put(records)

    def _commit(self, tickets: list[Ticket[SpoolRecord]]) -> None:
        """Put the records of several threads in one transaction."""
        with self._committing:
            batch = self._fitting(tickets)
            if not batch:
                return
            try:
                self._writer().append(record for one in batch for record in one.records)
                self.views.grew(sum(map(_bytes, batch)))
                self.incidents.refusing = False
            except (SpoolUnavailable, sqlite3.Error, OSError) as failed:
                error = self._failed(failed)
                for one in batch:
                    one.error = error

    def _fitting(self, tickets: list[Ticket[SpoolRecord]]) -> list[Ticket[SpoolRecord]]:
        """Those whose records fit; the others are told SpoolFull."""
        used, fitting = self.views.used_bytes(), []
        for one in tickets:
            if used + _bytes(one) > self.max_bytes:
                one.error = SpoolFull(used, self.max_bytes)
            else:
                used += _bytes(one)
                fitting.append(one)
        return fitting

    def _failed(self, failed: Exception) -> SpoolError:
        """A write failed: what the threads are told. A file that failed so is not written to again."""
        told, self.incidents.refusing = self.incidents.refusing, True
        self.incidents.last_error = f"{type(failed).__name__}: {failed}"
        code = getattr(failed, "sqlite_errorcode", 0) & 0xFF
        if self._own is not None and code not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL):
            self._abandon()
        if not told:  # once, until it takes one again
            log.error("the spool did not take a write: %s", self.incidents.last_error)
        return SpoolUnavailable(self.incidents.last_error)

    def _new_path(self) -> str:
        """A name that no file has yet; names ascend with time."""
        return f"{self.directory}/{time.time_ns():016x}-{secrets.token_hex(4)}{FILE}"

    def _writer(self) -> SpoolFile:
        """This process's own file, made on first use. Raises OSError and sqlite3.Error."""
        if self._lock is not None and not os.path.exists(_file_of(self._lock)):
            self._abandon()  # somebody removed it under us: what is put now must not go with it
        if self._lock is None:
            self.make_directory()
            lock = take_first(self._new_path() for _ in range(NAMES_MAX))
            try:
                self._own = SpoolFile(_file_of(lock), durable=True)
                _sync_directory(self.directory)
            except BaseException:
                self._own = None
                _remove(lock)
                raise
            self._lock = lock
        if self._own is None:
            self._own = SpoolFile(_file_of(self._lock), durable=True)
        return self._own

    def make_directory(self) -> None:
        """Make the directory, for this user alone. Raises OSError."""
        if not os.path.isdir(self.directory):
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            _sync_directory(os.path.dirname(os.path.abspath(self.directory)))
        found = os.stat(self.directory)
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{self.directory} must belong to this user alone (0700)")

    def _abandon(self) -> None:
        """Close the own file; it is now like that of a dead process. The next put makes another."""
        if self._own is not None:
            self._own.close()
        if self._lock is not None:
            self._lock.release()
        self._own = self._lock = None

    # --- reading and emptying -------------------------------------------------------------------------

    def next_batch(self, limit: int, removable: bool = False) -> list[SpoolRecord]:
        """The records with the lowest ids of all files, in their order.

        `removable`: without files out of which nothing could be taken lately, that they be in nobody's way.
        """
        return self.views.first(limit, removable)

    def done(self, records: Iterable[SpoolRecord]) -> None:
        """They are in the database. Raises SpoolUnavailable: they will be tried again, to no effect."""
        self.views.remove(records)

    def quarantine(self, record: SpoolRecord, reason: str) -> None:
        """It can never be stored: set it aside, visible, kept."""
        log.error("record %s of the spool is set aside: %s", record.id, reason)
        self.views.quarantine(record, reason)

    def release(self) -> int:
        """Try again what was set aside, after its reason is gone; how many records. Raises SpoolUnavailable.

        A file that cannot be used keeps its own and is told of after the others.
        """
        return self.views.release()

    def forget(self, user_id: str, at: int) -> int:
        """Drop what a user said until then (microseconds since 1970), bytes and all; how many records."""
        return self.views.forget(user_id, at)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing at all; costs one `stat`."""
        return not self.views.paths()

    def tend(self) -> None:
        """Remove this process's file if it is empty, and take over those of dead processes."""
        self.retire()
        self.adopt()

    def retire(self) -> bool:
        """Remove this process's file if it is empty; whether something that this process put still waits."""
        with self._committing:
            return self._retire()

    def _retire(self) -> bool:
        """Remove the own file once all of it is done; a damaged one is left to `adopt`."""
        if self._lock is None:
            return False
        try:
            own = self._writer()
            if own.path in self.views.unreadable:
                own.check()
            if own.is_empty() and self._lock is not None:
                own.close()
                self.views.drop(own.path)
                _remove(self._lock)
                self._own = self._lock = None
                return False
            return own.waits()
        except (sqlite3.Error, OSError) as error:
            self.incidents.last_error = f"{type(error).__name__}: {error}"
            if is_damage(error):
                self._abandon()
            return True

    def adopt(self) -> int:
        """Check the files of dead processes, remove those that are empty; how many of them have records."""
        kept, paths = 0, self.views.all_paths()
        here = set(paths)  # there may be thousands
        self._checked = {path: found for path, found in self._checked.items() if path in here}
        for path in paths:
            lock = ProcessLock(path + LOCK)
            try:
                if not lock.acquire():
                    continue
            except OSError as error:
                self.incidents.last_error = f"{type(error).__name__}: {error}"
                continue
            try:
                kept += self._look_after(path, lock)
            except (SpoolError, OSError) as error:  # what was to be read out of it has no room elsewhere
                self.incidents.last_error = f"{type(error).__name__}: {error}"
            finally:
                lock.release()
        return kept

    def _look_after(self, path: str, lock: ProcessLock) -> bool:
        """A file without a living owner, which is ours as long as we hold its lock; whether it is kept."""
        try:
            if not os.path.exists(path) or os.path.getsize(path) == 0:
                self.views.drop(path)
                _remove(lock)  # its owner died while making it, or removing it
                return False
            known = self._known(path)
            if not known and torn(path):
                self.incidents.tails_cut += 1
                log.warning("%s ends in the middle of a write, which nobody was told of: cut off", path)
            file = SpoolFile(path)
            try:
                if not known:
                    file.check()
                empty = file.is_empty()
                if not known and not empty:
                    file.truncate_log()
            finally:
                file.close()
            if empty:
                self.views.drop(path)
                _remove(lock)
            elif not known:
                self._checked[path] = _shape(path)
            return not empty
        except sqlite3.Error as error:
            if is_damage(error):
                self._set_aside(path, lock, error)
            else:
                self.incidents.last_error = f"{type(error).__name__}: {error}"
            return False

    def _known(self, path: str) -> bool:
        """Whether a dead process's file was found whole and nothing says that it no longer is.

        A large one is being emptied for a while, and is not read as a whole for each change of it.
        """
        found = self._checked.get(path)
        if found is None or path in self.views.unreadable:
            return False
        return found[0] > CHECKED_AGAIN_BYTES_MAX or found == _shape(path)

    def _set_aside(self, path: str, lock: ProcessLock, error: sqlite3.Error) -> None:
        """A damaged file: take out what can be read, keep the rest for people."""
        self.views.drop(path)
        records, aside = salvage(path)
        self.incidents.damaged_files += 1
        self.incidents.salvaged += len(records)
        if records or aside:
            self.put(*records, *(one.record for one in aside))
            reasons = {one.record.id: one.reason for one in aside}
            for record in self.views.of_ids(reasons):
                self.views.quarantine(record, reasons[record.id])
        for end in ("-wal", "-shm", ""):
            if os.path.exists(path + end):
                os.replace(path + end, path + end + DAMAGED)
        _remove(lock)
        log.error(
            "%s is damaged (%s): %d records were read out of it, the rest is in %s",
            path, error, len(records) + len(aside), path + DAMAGED,
        )  # fmt: skip

    def quarantined(self, limit: int = 1000) -> list[Quarantined]:
        """What was set aside, and why."""
        return self.views.quarantined(limit)

    # --- life -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close everything; a file with records stays, for whoever comes next."""
        if self._pid == os.getpid():
            with self._committing:
                self._retire()
                self._abandon()
            self.views.close()

    def before_fork(self) -> None:
        """Close the own file: SQLite's idea of it must not be in two processes."""
        if self._committing.before_fork() and self._own is not None:
            self._own.close()
            self._own = None
        self.views.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on: the file is opened again at the next put."""
        self.views.after_fork_in_parent()
        self._committing.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Begin anew: the file, and whatever was on its way into it, are the parent's."""
        if self._own is not None:
            self._own.leave()
        self._own = self._lock = None
        self.views.after_fork_in_child()
        self._group.reset()
        self._committing.after_fork_in_child()
        self._pid = os.getpid()


def take_first(paths: Iterable[str]) -> ProcessLock:
    """The lock of the first of these new files that nobody holds. Raises SpoolUnavailable if all are held.

    Who looks after the spool may meet a lock file between its making and its taking, take it for a dead
    owner's, hold it for a moment and remove it: another name is as good then.
    """
    path = ""
    for path in paths:
        lock = ProcessLock(path + LOCK)
        if lock.acquire():
            return lock
    raise SpoolUnavailable(f"{path} is taken")


def _file_of(lock: ProcessLock) -> str:
    return lock.path.removesuffix(LOCK)


def _remove(lock: ProcessLock) -> None:
    """Remove a file of which we hold the lock, and the lock with it."""
    path = _file_of(lock)
    for end in ("", "-wal", "-shm", *(MAKING + end for end in ("", "-wal", "-shm"))):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + end)
    lock.release(remove=True)


def _sync_directory(path: str) -> None:
    """Names in it outlive a power cut. Raises OSError."""
    number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _shape(path: str) -> tuple[int, int]:
    """Size and time of a file. Raises OSError."""
    found = os.stat(path)
    return found.st_size, found.st_mtime_ns


def _bytes(ticket: Ticket[SpoolRecord]) -> int:
    return sum(len(one.body) + len(one.user_id) + RECORD_OVERHEAD for one in ticket.records)
