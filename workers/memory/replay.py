"""Replay: what waits in the spool goes to the database, once in effect, and never faster than allowed.

A batch is read, inserted in one transaction (what is there already is left alone) and only then removed, so
that a death at any point repeats a step to no effect. One process of the host does it at a time, by a lease
that dies with it. Who calls `step` is another's matter: `replay_thread`, or a program made for it.
Neighbours: `spool`, a store, `spooled`. Waits nowhere and starts no thread.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from ipc import CircuitBreaker, CircuitOpenError
from workers.classify import Classification, classify
from workers.errors import CacheValueError, ErasureIncomplete, RecordError, SchemaError, SpoolError
from workers.kinds import ErrorType
from workers.memory.leases import MANAGED, Lease, MovingLock
from workers.memory.records import Conversation
from workers.memory.spool import Spool
from workers.memory.spool_file import Kind, SpoolRecord
from workers.memory.spooled import conversation_of, moment
from workers.redact import describe

BATCH_S: Final = 0.5
"""A batch is at most what the rate allows in this time."""
BACK_OFF_S: Final = 0.2
BACK_OFF_MAX_S: Final = 5.0
ELSEWHERE_S: Final = 1.0
"""How often one looks whether the lease of another process is free."""
ATTEMPTS_MAX: Final = 5
"""How often a record may fail alone, for no reason of the database's, before it is set aside."""
DEFERRED_S: Final = 2.0
"""When an erasure that could not be completed is tried again."""


class Store(Protocol):
    """What replay wants of a database."""

    def insert(self, conversations: Sequence[Conversation]) -> int:
        """Insert what is not there, all or nothing."""

    def erase(self, user_id: str, erased_at: datetime) -> None:
        """Erase a user."""


class Words(Protocol):
    """What replay tells other processes of: `Epochs`."""

    def stored(self, user_id: str) -> None:
        """Something of this user was committed."""

    def erased(self, user_id: str) -> None:
        """This user was erased."""
REFUSED: Final = ("sqlstate 22", "sqlstate 23", "sqlite CONSTRAINT", "sqlite MISMATCH", "sqlite TOOBIG")
"""What a database says of a value that it will never take."""


class Eraser(Protocol):
    """What replay wants of a cache."""

    def drop_user(self, user_id: str) -> None:
        """Forget a user."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step did."""

    applied: int = 0
    quarantined: int = 0
    wait_s: float = 0.0
    """Do not step again before that."""
    blocked: str = ""
    """Why it stopped: "elsewhere" (another process has the lease), "database", "spool"; "" = it did not."""


@dataclass(slots=True)
class Totals:
    """What this process has replayed so far."""

    applied: int = 0
    erased: int = 0
    quarantined: int = 0
    last_error: str = ""


class _Blocked(Exception):
    """The database does not take it now."""

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.wait_s = wait_s


def _nothing(_step: str) -> None:
    """No one watches."""


class Replayer:
    """Replays one spool into one database.

    `guard` is the breaker of the database, `at` is told of each step (for tests that die there). The cache
    is what an erasure is also applied to.
    """

    def __init__(
        self,
        spool: Spool,
        store: Store,
        guard: CircuitBreaker,
        rate_per_s: float,
        batch_max: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.spool, self.store, self.guard = spool, store, guard
        self.rate_per_s = rate_per_s
        self._blocked_at: float | None = None
        """Since when the database takes nothing, s of the clock; None = it does."""
        self.totals = Totals()
        self.cache: Eraser | None = None
        self.epochs: Words | None = None
        self.at: Callable[[str], object] = _nothing
        self._batch_max = max(1, min(batch_max, int(rate_per_s * BATCH_S)))
        self._clock = clock
        self._next = 0.0
        self._back_off_s = BACK_OFF_S
        self._attempts: dict[str, int] = {}
        self._deferred: dict[str, float] = {}
        self.after_fork()

    def after_fork(self) -> None:
        """This is a child: the lease is its parent's."""
        self._lock = threading.Lock()
        self._lease = Lease(self.spool.directory)
        self._managed = MovingLock(os.path.join(self.spool.directory, MANAGED))

    # --- the lease ------------------------------------------------------------------------------------

    def take_lease(self) -> bool:
        """Be the one who replays; False = another process is, or the directory cannot be used."""
        try:
            return os.path.isdir(self.spool.directory) and self._lease.take()
        except OSError as error:
            self.totals.last_error = f"{type(error).__name__}: {error}"
            return False

    @property
    def superseded(self) -> bool:
        """Whether a replayer that is made for it is at work in another process; costs a few system calls."""
        return self._managed.attended()

    def give_lease(self) -> None:
        """Let another process replay."""
        with self._lock:
            self._lease.give()

    def _reached(self, step: str) -> None:
        """Somewhere in a step: the lease is in use."""
        self._lease.move()
        self.at(step)

    # --- one step -------------------------------------------------------------------------------------

    def step(self) -> Progress:
        """Replay one batch. Raises nothing of the database's and nothing of the spool's."""
        with self._lock:
            now = self._clock()
            if now < self._next:
                return Progress(wait_s=self._next - now)
            if not self.take_lease():
                return Progress(wait_s=ELSEWHERE_S, blocked="elsewhere")
            before = (self.totals.applied + self.totals.erased, self.totals.quarantined)
            wait_s, blocked = 0.0, ""
            try:
                self._replay(self._due(now))
                self._back_off_s, self._blocked_at = BACK_OFF_S, None
            except _Blocked as stop:
                self._blocked_at = now if self._blocked_at is None else self._blocked_at
                wait_s, blocked = stop.wait_s, "database"
            except SpoolError as error:
                self.totals.last_error = str(error)
                wait_s, blocked = self._longer(), "spool"
            done = self.totals.applied + self.totals.erased - before[0]
            self._next = max(now, self._next) + max(wait_s, done / self.rate_per_s)
            return Progress(
                done, self.totals.quarantined - before[1], max(0.0, self._next - self._clock()), blocked
            )

    @property
    def blocked_s(self) -> float:
        """For how long the database has taken nothing from this process's replay, s; 0.0 = it does."""
        return 0.0 if self._blocked_at is None else max(0.0, self._clock() - self._blocked_at)

    def _due(self, now: float) -> list[SpoolRecord]:
        """The next batch, without what is deferred."""
        self._deferred = {key: until for key, until in self._deferred.items() if until > now}
        batch = self.spool.next_batch(self._batch_max + len(self._deferred), removable=True)
        self._reached("read")
        return [one for one in batch if one.id not in self._deferred]

    def _replay(self, batch: Sequence[SpoolRecord]) -> None:
        """In the order of the ids: runs of conversations together, erasures each for itself."""
        run: list[tuple[SpoolRecord, Conversation]] = []
        for record in batch:
            if record.kind is Kind.ERASURE and record.intact:
                self._insert(run)
                run = []
                self._erase(record)
                continue
            try:
                run.append((record, conversation_of(record)))
            except (CacheValueError, RecordError) as error:
                self._set_aside(record, str(error))
        self._insert(run)

    def _insert(self, run: Sequence[tuple[SpoolRecord, Conversation]]) -> None:
        """Insert a run; if that fails for a reason of its own, each of it alone. Raises _Blocked."""
        if not run:
            return
        try:
            self._store(run)
        except CircuitOpenError as refused:
            raise _Blocked(_until(refused)) from refused
        except Exception as error:
            found = classify(error, ErrorType.DATABASE_QUERY)
            self.totals.last_error = describe(error)
            if not _own_fault(error, found):
                raise _Blocked(self._longer()) from error
            if len(run) > 1:
                for one in run:
                    self._insert([one])
                return
            record = run[0][0]
            self._attempts[record.id] = self._attempts.get(record.id, 0) + 1
            if not _value_fault(error, found):
                if self._attempts[record.id] < ATTEMPTS_MAX:
                    raise _Blocked(self._longer()) from error
                self._defer(record, error)  # nobody knows why: the others need not wait for it
                return
            self._set_aside(record, f"{found.code}: {self.totals.last_error}")

    def _store(self, run: Sequence[tuple[SpoolRecord, Conversation]]) -> None:
        self.guard.call(self.store.insert, [conversation for _, conversation in run])
        self._reached("committed")
        if self.epochs is not None:
            for user_id in {record.user_id for record, _ in run}:
                self.epochs.stored(user_id)
        self.spool.done([record for record, _ in run])
        for record, _ in run:
            self._attempts.pop(record.id, None)
        self.totals.applied += len(run)
        self._reached("done")

    def _erase(self, record: SpoolRecord) -> None:
        """Complete an erasure, or defer it: others need not wait. Raises _Blocked."""
        try:
            self.spool.forget(record.user_id, record.at)
            self.guard.call(self.store.erase, record.user_id, moment(record.at))
            self._reached("erased")
            if self.epochs is not None:
                self.epochs.erased(record.user_id)
            if self.cache is not None:
                self.cache.drop_user(record.user_id)
        except CircuitOpenError as refused:
            if refused.breaker == self.guard.name:
                raise _Blocked(_until(refused)) from refused
            self._defer(record, refused)
            return
        except SpoolError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever it is, others must not wait for it)
            self._defer(record, error)
            return
        self.spool.done([record])
        self.spool.views.truncate_logs()
        self.totals.erased += 1
        self._reached("done")

    def _defer(self, record: SpoolRecord, error: Exception) -> None:
        self.totals.last_error = describe(error)
        self._deferred[record.id] = self._clock() + DEFERRED_S

    def _set_aside(self, record: SpoolRecord, reason: str) -> None:
        self.spool.quarantine(record, reason)
        self._attempts.pop(record.id, None)
        self.totals.quarantined += 1
        self._reached("quarantined")

    def _longer(self) -> float:
        """How long to wait now; twice as long the next time."""
        wait_s, self._back_off_s = self._back_off_s, min(BACK_OFF_MAX_S, self._back_off_s * 2)
        return wait_s


def _until(refused: CircuitOpenError) -> float:
    """When to ask the breaker again: it may be closed earlier than it said, by hand or by a probe."""
    return min(BACK_OFF_MAX_S, max(refused.retry_after_s, BACK_OFF_S))


def _own_fault(error: Exception, found: Classification) -> bool:
    """Whether a record, and not the state of the database, may be to blame."""
    if isinstance(error, SchemaError | ErasureIncomplete | TimeoutError):
        return False
    return _value_fault(error, found) or found.code == "unknown"


def _value_fault(error: Exception, found: Classification) -> bool:
    """Whether the database will never take this value: the one reason to set a record aside."""
    return isinstance(error, RecordError) or found.code.startswith(REFUSED)
