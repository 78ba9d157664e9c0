"""All files of a spool directory as one: read merged, emptied, measured. For any thread.

The list of files is read again only when the directory changed, so an empty spool costs one `stat`; each
file, of a great many some, keeps one open connection. Neighbours: `spool_file` (one file), `spool` (who
appends). A file that cannot be read is left out and told of: `spool.adopt` sees to it.
"""

from __future__ import annotations

import heapq
import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable
from typing import Final, TypeVar

from workers.errors import SpoolUnavailable
from workers.memory import forking
from workers.memory.spool_file import Quarantined, SpoolFile, SpoolRecord

R = TypeVar("R")

FILE: Final = ".spool"
LOCK: Final = ".lock"
DAMAGED: Final = ".damaged"
SETTLED_NS: Final = 50_000_000
"""A directory that changed this lately may change again without a new time stamp."""
MEASURED_S: Final = 0.25
"""How old the measured size may be."""
OPEN_MAX: Final = 64
"""Files that stay open, with three descriptors each; others are opened for each use."""
STUCK_S: Final = 5.0
"""How long a file is passed over out of which nothing could be taken."""

log: Final = logging.getLogger("breakerd.memory.spool")


class Views:
    """The files of one directory, as this process sees them."""

    def __init__(self, directory: str, clock: Callable[[], float], wall_ns: Callable[[], int]) -> None:
        self.directory = directory
        self.unreadable: dict[str, str] = {}
        """Files that could not be read, and why."""
        self._stuck: dict[str, float] = {}
        """Files that could be read and not be changed (read-only, say), and until when they are skipped."""
        self._clock, self._wall_ns = clock, wall_ns
        self._lock = forking.StillLock()
        self._files: dict[str, SpoolFile] = {}
        self._listed: tuple[str, ...] = ()
        self._stamp = -1
        self._measured = (float("-inf"), 0)
        self._pid = os.getpid()

    # --- which files ----------------------------------------------------------------------------------

    def paths(self) -> tuple[str, ...]:
        """Every file of records."""
        try:
            changed = os.stat(self.directory).st_mtime_ns
        except OSError:
            return ()
        if changed != self._stamp or not 0 <= self._wall_ns() - changed < 1 << 62:
            listed = tuple(path for path in self.all_paths() if os.path.exists(path))
            settled = self._wall_ns() - changed > SETTLED_NS
            self._listed, self._stamp = listed, changed if settled else -1
        return self._listed

    def all_paths(self) -> list[str]:
        """The files of records, and those of which only a lock or a log is left."""
        try:
            names = os.listdir(self.directory)
        except OSError:
            return []
        stems = {name.partition(FILE)[0] for name in names if FILE in name and not name.endswith(DAMAGED)}
        return [f"{self.directory}/{stem}{FILE}" for stem in sorted(stems)]

    def damaged(self) -> list[str]:
        """Damaged files that were set aside, for people."""
        try:
            return sorted(name for name in os.listdir(self.directory) if name.endswith(FILE + DAMAGED))
        except OSError:
            return []

    def drop(self, path: str) -> None:
        """The file is about to go."""
        with self._lock:
            self._stamp = -1
            file = self._files.pop(path, None)
            if file is not None:
                file.close()

    # --- all of them ----------------------------------------------------------------------------------

    def first(self, limit: int, removable: bool = False) -> list[SpoolRecord]:
        """The records with the lowest ids of all files, in their order; `removable`: but for stuck files."""
        only: set[str] | None = None
        if removable and self._stuck:
            now = self._clock()
            self._stuck = {path: until for path, until in self._stuck.items() if until > now}
            only = set(self.paths()) - self._stuck.keys()
        runs = self._each(lambda file: file.first(limit), only=only)
        merged = heapq.merge(*runs, key=lambda one: one.id)
        return [one for one, _ in zip(merged, range(limit), strict=False)]

    def of_user(self, user_id: str) -> list[SpoolRecord]:
        """Everything of one user, in the order of the ids, each once."""
        if not self.paths():
            return []
        found = {one.id: one for part in self._each(lambda file: file.of_user(user_id)) for one in part}
        return [found[key] for key in sorted(found)]

    def of_ids(self, ids: Collection[str]) -> list[SpoolRecord]:
        """The records with these ids that are not in quarantine."""
        wanted = sorted(ids)
        return [one for found in self._each(lambda file: file.of_ids(wanted)) for one in found]

    def erasures(self) -> list[SpoolRecord]:
        """Every erasure that is still to be done."""
        return [one for found in self._each(lambda file: file.erasures()) for one in found]

    def quarantined(self, limit: int = 1000) -> list[Quarantined]:
        """What was set aside."""
        runs = self._each(lambda file: file.quarantined(limit))
        return sorted((one for run in runs for one in run), key=lambda one: one.record.id)[:limit]

    def counts(self) -> tuple[int, int]:
        """How many records, and how many in quarantine."""
        found = self._each(lambda file: file.counts())
        return sum(one[0] for one in found), sum(one[1] for one in found)

    def oldest(self) -> int | None:
        """When the oldest record was said, microseconds since 1970."""
        return min((at for at in self._each(lambda file: file.oldest()) if at is not None), default=None)

    def used_bytes(self) -> int:
        """What all files hold, as it was at most MEASURED_S ago."""
        now = self._clock()
        at, size = self._measured
        if now - at > MEASURED_S:
            size = sum(used for used in self._each(lambda file: file.used_bytes()))
            self._measured = (now, size)
        return size

    def grew(self, size: int) -> None:
        """So many bytes were appended since."""
        self._measured = (self._measured[0], self._measured[1] + size)

    # --- changing them --------------------------------------------------------------------------------

    def remove(self, records: Iterable[SpoolRecord]) -> None:
        """They are done. Raises SpoolUnavailable."""
        ids: dict[str, list[str]] = {}
        for one in records:
            ids.setdefault(one.file, []).append(one.id)
        self._change(lambda file: file.remove(ids[file.path]), set(ids))
        self._measured = (float("-inf"), 0)

    def quarantine(self, record: SpoolRecord, reason: str) -> None:
        """Set a record aside. Raises SpoolUnavailable."""
        self._change(lambda file: file.quarantine(record.id, reason), {record.file})

    def release(self) -> int:
        """Take back all that was set aside; how many records. Raises SpoolUnavailable."""
        return sum(self._change(lambda file: file.release()))

    def forget(self, user_id: str, at: int) -> int:
        """Drop what a user said until then, and what the logs remember of it. Raises SpoolUnavailable."""
        if not self.paths():
            return 0
        dropped = sum(self._change(lambda file: file.forget(user_id, at)))
        if dropped:
            self._change(lambda file: file.truncate_log())
        return dropped

    def truncate_logs(self) -> None:
        """Empty the logs of all files, where nobody is reading them."""
        self._each(lambda file: file.truncate_log())

    def _change(self, what: Callable[[SpoolFile], R], only: Collection[str] | None = None) -> list[R]:
        """Do it to every file, or to some; an error of any is told after all of them had their turn."""
        failed: dict[str, str] = {}
        done = self._each(what, failed, only)
        if failed:
            raise SpoolUnavailable("; ".join(f"{path}: {text}" for path, text in failed.items()))
        return done

    def _each(
        self,
        what: Callable[[SpoolFile], R],
        failed: dict[str, str] | None = None,
        only: Collection[str] | None = None,
    ) -> list[R]:
        """What each file answers; one that fails is left out, and told of once."""
        if self._pid != os.getpid():
            self.after_fork_in_child()
        results = []
        with self._lock:
            listed = self.paths()
            for gone in self._files.keys() - set(listed):
                self._files.pop(gone).close()
            for gone in self.unreadable.keys() - set(listed):
                self.unreadable.pop(gone)
            for path in listed:
                if only is not None and path not in only:
                    continue
                try:
                    if path not in self._files:
                        self._files[path] = SpoolFile(path)
                    results.append(what(self._files[path]))
                    if len(self._files) > OPEN_MAX:
                        self._files.pop(path).close()
                    self.unreadable.pop(path, None)
                except sqlite3.Error as error:
                    self._failed(path, error, failed)
        return results

    def _failed(self, path: str, error: sqlite3.Error, failed: dict[str, str] | None) -> None:
        file = self._files.pop(path, None)
        if file is not None:
            file.close()
        if not os.path.exists(path):
            return  # it was removed in between: all of it was done
        text = f"{type(error).__name__}: {error}"
        if failed is not None:
            failed[path] = text
            self._stuck[path] = self._clock() + STUCK_S
        if self.unreadable.get(path) != text:
            self.unreadable[path] = text
            log.error("%s cannot be used: %s", path, text)

    # --- life -----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    def before_fork(self) -> None:
        """Close every connection, if whoever uses them ends in time. The spool tells of forks."""
        if self._lock.before_fork():
            for file in self._files.values():
                file.close()
            self._files.clear()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._lock.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Begin anew."""
        for file in self._files.values():
            file.leave()
        self._files = {}
        self._lock.after_fork_in_child()
        self._pid = os.getpid()
