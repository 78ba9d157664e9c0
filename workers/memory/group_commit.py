"""Group commit: threads that put at the same time share one commit, so that they do not queue for the disk.

The first one to come leads: it commits what everybody has queued, wakes those whose records are in, and
hands the lead to one who came meanwhile. Before a commit it waits a moment for those whom it woke last, if
there were several: they are about to come again. Neighbours: `spool`. Knows no file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

T = TypeVar("T")

GATHER_S: Final = 0.0003
"""How long the leader waits for others: less than a commit takes."""


@dataclass(slots=True, eq=False)
class Ticket(Generic[T]):
    """What one thread puts."""

    records: Sequence[T]
    error: Exception | None = None
    settled: bool = False
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held until its thread has something to do: to go home, or to lead."""


class GroupCommit(Generic[T]):
    """`commit(tickets)` puts the records of all of them; it sets `error` in those that it refuses."""

    def __init__(
        self,
        commit: Callable[[list[Ticket[T]]], None],
        records_max: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._commit, self._records_max = commit, records_max
        self._clock, self._sleep = clock, sleep
        self.reset()

    def reset(self) -> None:
        """Begin anew: in a forked child nobody leads and nobody waits."""
        self._gate = threading.Lock()
        self._queue: list[Ticket[T]] = []
        self._leader: Ticket[T] | None = None
        self._woken = 0

    def put(self, records: Sequence[T]) -> None:
        """Put records, alone or with others. Raises what `commit` says of them."""
        ticket = Ticket(records)
        ticket.turn.acquire()
        with self._gate:
            self._queue.append(ticket)
            if self._leader is None:
                self._leader = ticket
        try:
            while not ticket.settled:
                if self._leader is ticket:
                    self._lead(ticket)
                else:
                    ticket.turn.acquire()
        finally:
            self._leave(ticket)
        if ticket.error is not None:
            raise ticket.error

    def _lead(self, ticket: Ticket[T]) -> None:
        """Commit until the leader's own records are in."""
        while not ticket.settled:
            self._gather()
            batch = self._batch()
            self._commit_all(batch)
            with self._gate:
                for one in batch:
                    if one in self._queue:  # else its thread was interrupted, and is gone
                        self._queue.remove(one)
                    one.settled = True
                self._woken = len(batch)
            for one in batch:
                if one is not ticket:
                    one.turn.release()

    def _commit_all(self, batch: list[Ticket[T]]) -> None:
        """Commit together; if that raises, each alone, so that one thread's records are nobody else's error.

        What was put before it raised is put again: the same record twice is one.
        """
        try:
            self._commit(batch)
        except Exception:  # noqa: BLE001 (told by the tickets below)
            for one in batch:
                one.error = None
                try:
                    self._commit([one])
                except Exception as error:  # noqa: BLE001 (its own thread raises it)
                    one.error = error

    def _gather(self) -> None:
        expected = self._woken
        if expected > 1:
            until = self._clock() + GATHER_S
            while len(self._queue) < expected and self._clock() < until:
                self._sleep(0)

    def _batch(self) -> list[Ticket[T]]:
        """Those who came first, as many as fit into one commit."""
        with self._gate:
            batch: list[Ticket[T]] = []
            size = 0
            for one in self._queue:
                if batch and size + len(one.records) > self._records_max:
                    break
                batch.append(one)
                size += len(one.records)
            return batch

    def _leave(self, ticket: Ticket[T]) -> None:
        """Go home, also when interrupted: whoever waits must not wait for one who is gone."""
        with self._gate:
            if ticket in self._queue:
                self._queue.remove(ticket)
            if self._leader is not ticket:
                return
            self._leader = self._queue[0] if self._queue else None
            if self._leader is not None:
                self._leader.turn.release()
