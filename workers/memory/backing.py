"""What the managers stand on: the spool and its replay, the epochs, the breakers, the error handler.

Neighbours: `manager` (who talks to database and cache), `recall` (how answers come
together). Everything here is quick but for the disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from datetime import datetime
from typing import Any, Final

from ipc import CircuitBreaker
from workers.classify import Classification, counts_as_failure
from workers.errors import ClosedError, RecordError, SpoolError
from workers.handler import MemoryErrorHandler
from workers.kinds import Area, ErrorType, Origin
from workers.memory.config import MemoryConfig
from workers.memory.epochs import EPOCHS, Epochs
from workers.memory.locks import KeyLocks
from workers.memory.records import Conversation, Deletion, StoreOutcome, StoreResult
from workers.memory.replay import REFUSED, Replayer
from workers.memory.replay_thread import ReplayThread
from workers.memory.spool import Spool
from workers.memory.spooled import erasure_of, micros, record_of
from workers.memory.store import Store
from workers.retry import RetrySettings, Schedule

FLIGHTS: Final = "flights.lock"
PASSING: Final = RetrySettings(base_s=0.02, wait_max_s=0.2, deadline_s=2.0)
"""How long a transaction that lost against another one is tried again."""
RETRIES_MAX: Final = 3
BLOCKED_S: Final = 10.0
"""Replay that reaches no database for longer is a fault that somebody must mend."""
OLDEST_S: Final = 300.0
"""So is a record that has waited longer: whoever should replay it does not."""
FLUSH_S: Final = 10.0
OF_A_LAYER: Final = re.compile(r"memory\.[0-9a-f]{16}\.(database|cache)")
"""A breaker's name that was made of a database or a cache."""

log: Final = logging.getLogger("breakerd.memory")


def breaker_of(handler: MemoryErrorHandler, area: Area, name: str, given: str = "") -> CircuitBreaker:
    """The breaker of a database or a cache, by `name`, or by the name that the configuration gives.

    The handler knows it as its area's, if that is free. What the application has assigned there is used
    instead, but for the breaker of another memory layer.
    """
    breakers = handler.circuit_breakers
    there = breakers.get(area.value)
    if there is None:
        there = breakers[area.value] = CircuitBreaker(given or name, is_failure=counts_as_failure)
    theirs = OF_A_LAYER.fullmatch(there.name) if there.name != name else None
    fits = there.name == given if given else theirs is None
    return there if fits else handler.get_circuit_breaker(given or name)


class Backing:
    """The parts of a manager that are not database and cache.

    `remote`: whether the cache is one that every process shares. One of this process's own is not used where
    no other process could tell it of an erasure.
    """

    def __init__(self, config: MemoryConfig, handler: MemoryErrorHandler, store: Store, remote: bool) -> None:
        self.config, self.handler = config, handler
        self.database = breaker_of(handler, Area.DATABASE, config.database_breaker, config.breaker)
        self.cache = breaker_of(handler, Area.CACHE, config.cache_breaker)
        self.spool = Spool(config.spool_directory, config.spool_max_bytes)
        with contextlib.suppress(OSError):
            self.spool.make_directory()  # where it cannot be, every put says so
        self.epochs = Epochs(os.path.join(config.spool_directory, EPOCHS))
        self.caching = remote or self.epochs.shared
        if not self.epochs.shared:
            log.warning("processes cannot tell each other what they store and erase: %s", self.epochs.error)
        self.locks = KeyLocks(os.path.join(config.spool_directory, FLIGHTS))
        self.replayer = Replayer(
            self.spool, store, self.database, config.replay_rate_per_s, config.replay_batch_max
        )
        self.replayer.epochs = self.epochs
        self.thread = ReplayThread(self.replayer)
        self.wall = time.time
        self.closed = False
        self._refusing = False
        self._rescued: set[str] = set()
        """Ids of what the spool has taken while a call was still at it."""
        self.look_after()

    def refuse_calls(self) -> None:
        """From now on `check_open` raises; what is under way goes on."""
        self._refusing = True

    def check_open(self) -> None:
        """Raises ClosedError after `refuse_calls` and `close`."""
        if self.closed or self._refusing:
            raise ClosedError("this memory manager is closed")

    def look_after(self) -> None:
        """If anything waits in the spool, whoever put it there, see that it is replayed."""
        if not self.spool.is_empty:
            self.thread.look()

    # --- storing --------------------------------------------------------------------------------------

    def schedule(self) -> Schedule:
        """How a transaction that lost against another one is tried again."""
        around = self.handler.surroundings
        return Schedule(RETRIES_MAX, PASSING, around.clock, around.chance, around.clock())

    def passes(self, found: Classification) -> bool:
        """Whether it was only in the way of another transaction."""
        return found.retriable and not found.counts and not found.rejected

    def stored(self, conversation: Conversation, inserted: int) -> StoreResult:
        """The database has committed it."""
        self._rescued.discard(conversation.id)
        if not inserted:
            return StoreResult(StoreOutcome.REJECTED, conversation.id, "erased: the user was just deleted")
        self.epochs.stored(conversation.user_id)
        self.look_after()
        return StoreResult(StoreOutcome.STORED, conversation.id)

    def invalid(self, error: RecordError) -> StoreResult:
        """It can be stored nowhere."""
        self.handler.record(error, "store_conversation", ErrorType.MEMORY_STORAGE)
        return StoreResult(StoreOutcome.REJECTED, "", f"invalid: {error}")

    def not_stored(self, conversation: Conversation, error: Exception, found: Classification) -> StoreResult:
        """The database did not take it, or did not say so: keep it. Writes to the disk."""
        if conversation.id in self._rescued:
            self._rescued.discard(conversation.id)
            return StoreResult(StoreOutcome.SPOOLED, conversation.id, found.code)
        if isinstance(error, RecordError) or (
            found.origin is Origin.CALLER and found.code.startswith(REFUSED)
        ):
            return StoreResult(StoreOutcome.REJECTED, conversation.id, f"refused: {found.code}")
        try:
            self.spool.put(record_of(conversation))
        except SpoolError as failed:
            self.handler.record(failed, "spool", ErrorType.MEMORY_STORAGE)
            return StoreResult(StoreOutcome.REJECTED, conversation.id, f"{failed.reason}: {failed}")
        self.thread.wake()
        return StoreResult(StoreOutcome.SPOOLED, conversation.id, found.code)

    def rescue(self, conversation: Conversation) -> bool:
        """Spool what a cancelled call is still storing; whether it is kept. Writes to the disk."""
        try:
            self.spool.put(record_of(conversation))
        except SpoolError as failed:
            self.handler.record(failed, "spool", ErrorType.MEMORY_STORAGE)
            return False
        self._rescued.add(conversation.id)
        self.thread.wake()
        return True

    def not_rescued(self, conversation: Conversation) -> None:
        """Its call will not come to an end: only the spool has it."""
        self._rescued.discard(conversation.id)

    # --- erasing --------------------------------------------------------------------------------------

    def erased(self, user_id: str, at: datetime) -> None:
        """The database has erased the user: so do the epochs and the spool. Raises SpoolError."""
        self.epochs.erased(user_id)
        self.spool.forget(user_id, micros(at))

    def not_erased(self, user_id: str, at: datetime) -> Deletion:
        """Not everything could be erased: keep the wish. Writes to the disk."""
        try:
            self.spool.put(erasure_of(user_id, at))
        except SpoolError as failed:
            self.handler.record(failed, "spool", ErrorType.MEMORY_STORAGE)
            return Deletion.REJECTED
        self.epochs.erased(user_id)
        with contextlib.suppress(SpoolError):
            self.spool.forget(user_id, micros(at))  # replay does it again
        self.thread.wake()
        return Deletion.ACCEPTED

    # --- what is known --------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """The handler's report, and what spool and replay do; no dependency is asked. Reads the disk.

        Not healthy either: records set aside, a replay that is blocked, a record that has waited too long.

        `managed`: another process is there only to replay; what it did is in its log, not here.
        """
        report = self.handler.get_health_report()
        spool, totals = self.spool, self.replayer.totals
        pending, quarantined = spool.views.counts()
        used, oldest = spool.views.used_bytes(), spool.views.oldest()
        incidents = spool.incidents
        takes = used < spool.max_bytes and not incidents.refusing
        oldest_s = None if oldest is None else max(0.0, self.wall() - oldest / 1e6)
        blocked_s = self.replayer.blocked_s
        report["memory"] = {
            "spool": {
                "takes_writes": takes,
                "pending": pending,
                "quarantined": quarantined,
                "bytes": used,
                "bytes_max": spool.max_bytes,
                "oldest_s": oldest_s,
                "tails_cut": incidents.tails_cut,
                "damaged_files": len(spool.views.damaged()),
                "unreadable_files": dict(spool.views.unreadable),
                "last_error": incidents.last_error,
            },
            "replay": {
                "managed": self.replayer.superseded,
                "applied": totals.applied,
                "erased": totals.erased,
                "quarantined": totals.quarantined,
                "rate_per_s": self.replayer.rate_per_s,
                "eta_s": pending / self.replayer.rate_per_s,
                "blocked_s": blocked_s,
                "last_error": totals.last_error,
            },
            "cache": {
                "in_use": self.caching,
                "epochs_shared": self.epochs.shared,
                "last_error": self.epochs.error,
            },
        }
        arrives = not quarantined and blocked_s <= BLOCKED_S and (oldest_s or 0.0) <= OLDEST_S
        report["is_healthy"] = bool(report["is_healthy"] and takes and arrives)
        return report

    def release_quarantine(self) -> int:
        """Try again what was set aside; how many records. Raises SpoolUnavailable. Writes to the disk."""
        released = self.spool.release()
        if released:
            self.thread.wake()
        return released

    def flush(self, timeout_s: float) -> bool:
        """Wait until the spool is empty but for what is set aside; False = it is not. Waits."""
        return self.spool.is_empty or self.thread.drain(timeout_s)

    def close(self) -> None:
        """End the thread and let go of the files; what is in the spool stays there."""
        if not self.closed:
            self.closed = True
            self.thread.close()
            self.spool.close()
            self.locks.close()
            self.epochs.close()
