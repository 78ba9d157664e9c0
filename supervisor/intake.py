"""Reads every attached segment and makes one batch of what is new. Owned by the daemon's loop.

A drain takes what is there, in bounded portions; nothing of it is acted on here. A worker is told that
its words were read (`publish_committed`) only when the owner says that the batch is in the journal;
until then this daemon, after a failure, or the next one reads the same words again.
Neighbours: `intake_actor` (the owner), `source` (one segment), `decode` (words -> counts and runs).
Knows no clock, no socket and no breaker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

from ipc import layout as at
from ipc.segment import Segment
from supervisor.decode import Counted, judge
from supervisor.limits import Limits, limits_of
from supervisor.messages import Message, OutcomeBatch, Taken, WorkerQuarantined
from supervisor.source import INVALID_DRAINS_MAX, NEVER, Portion, Source
from supervisor.worker import ReadFrom, Worker

DRAIN_BATCH_MAX: Final = 4096
"""Words taken from one segment in one drain; the rest comes with the next."""
DRAIN_WORDS_MAX: Final = 65_536
"""Words taken in one drain from all segments together: it bounds how long the loop is held."""


class Known(Protocol):
    """What is asked of the engine."""

    @property
    def workers(self) -> Mapping[str, Worker]:
        """The records of the attached workers by nonce."""


class Intake:
    """All segments that are here."""

    def __init__(self, engine: Known) -> None:
        self.sources: dict[str, Source] = {}
        self.more = False
        """True if the last drain left words behind: drain again as soon as it is committed."""
        self.engine = engine
        """Told again when the mind had to build another."""
        self._read: list[Source] = []
        """The sources that are not quarantined."""
        self._ticks = 0
        self._limits: dict[str, tuple[int, int, Mapping[int, Limits]]] = {}
        """By worker: the tick and the number of rows with which they were found, and its limits."""

    def add(self, worker: str, segment: Segment, reading: ReadFrom) -> None:
        """Read this segment from there on, unless the engine knows it as quarantined."""
        source = self.sources[worker] = Source(worker, segment, reading)
        known = self.engine.workers.get(worker)
        source.quarantined = known is not None and bool(known.quarantine)
        self._settle()

    def remove(self, worker: str) -> None:
        """Forget this segment."""
        self.sources.pop(worker, None)
        self._limits.pop(worker, None)
        self._settle()

    def seek(self, worker: str, reading: ReadFrom) -> None:
        """Go back to where the engine stands: what was read and not committed is read again.

        A quarantine that was told meanwhile may be lost with it, and is told again.
        """
        source = self.sources[worker]
        source.seek(reading)
        source.quarantined = source.quarantined and not source.invalid_drains
        self._settle()

    def _settle(self) -> None:
        self._read = [source for source in self.sources.values() if not source.quarantined]

    # --- reading ----------------------------------------------------------------------------------

    def drain(self, now: float) -> tuple[list[Message], OutcomeBatch | None]:
        """What is new: messages to be handled before the batch, and the batch; all in one commit."""
        busy: list[Source] = []
        for source in self._read:
            words = source.words
            if (
                words[source.next_slot] != source.next_word
                or words[at.W_CHANGES] != source.changes
                or words[at.W_DECLARED] != source.declared
            ):
                busy.append(source)
        self.more = False
        if not busy:
            return [], None
        limit = max(at.BLOCK, min(DRAIN_BATCH_MAX, DRAIN_WORDS_MAX // len(busy)))
        messages: list[Message] = []
        portions: list[tuple[Source, Portion]] = []
        for source in busy:
            if source.invalid_drains >= INVALID_DRAINS_MAX:
                messages.append(self._quarantine(source))
                continue
            source.ring()
            portions.append((source, source.read(limit)))
            self.more = source.settle() or self.more
        return messages, self._batch(portions, messages, now)

    def drain_dead(self, worker: str, now: float) -> tuple[list[Message], OutcomeBatch | None]:
        """As `drain`, for the last time, of a worker whose process is gone; nothing if it is quarantined."""
        source = self.sources.get(worker)
        messages: list[Message] = []
        if source is None or source.quarantined:
            return messages, None
        portion = source.read_last()
        return messages, self._batch([(source, portion)], messages, now)

    def look_for_holes(self) -> None:
        """Once a tick, before a drain."""
        self._ticks += 1
        for source in self._read:
            source.look_for_holes()

    def _quarantine(self, source: Source) -> WorkerQuarantined:
        """Read this segment no more; what was already read of it stays counted."""
        source.quarantined = True
        self._settle()
        reason = f"{source.invalid_drains} drains of its segment found words that no worker writes"
        return WorkerQuarantined(source.worker, reason)

    def _batch(
        self, portions: list[tuple[Source, Portion]], messages: list[Message], now: float
    ) -> OutcomeBatch | None:
        """The batch of these portions; None if nothing in them is to be remembered."""
        counted = [
            Counted(source.worker, number, now, self._limits_of(source.worker))
            for number, (source, _) in enumerate(portions)
        ]
        for one, (_, portion) in zip(counted, portions, strict=True):
            one.scan(portion.parts)
            messages += portion.messages
        judged = judge(counted, [source.names for source, _ in portions], now)
        taken: list[Taken] = []
        for one, (source, portion) in zip(counted, portions, strict=True):
            invalid = one.invalid + portion.invalid
            if invalid:
                source.invalid_drains += 1
                if source.invalid_drains >= INVALID_DRAINS_MAX:
                    # The quarantine is told by the next drain, after what was read of it is counted.
                    source.next_word = NEVER
                    self.more = True
            if source.told() or portion.parts or portion.tallies or invalid:
                taken.append(_taken(source, one, portion, invalid))
        return OutcomeBatch(tuple(taken), judged) if taken else None

    def _limits_of(self, worker: str) -> Mapping[int, Limits]:
        """The limits that are in force for rows of this worker and not its own, as old as the last tick."""
        record = self.engine.workers.get(worker)
        if record is None:
            return {}
        tick, rows, limits = self._limits.get(worker, (-1, 0, {}))
        if tick != self._ticks or rows != len(record.rows):
            limits = limits_of(record)
            self._limits[worker] = self._ticks, len(record.rows), limits
        return limits

    # --- telling ----------------------------------------------------------------------------------

    def publish_committed(self, worker: str) -> None:
        """The batch with this worker's words is in the journal: their slots may be written again.

        Whoever dies before this store: the next daemon stores the same position when it starts.
        """
        source = self.sources.get(worker)
        if source is not None:
            source.words[at.W_COMMITTED] = source.reader.committed

    def heartbeat(self, now_ns: int) -> None:
        """Tell every worker that the loop turns (ns of CLOCK_MONOTONIC)."""
        for source in self.sources.values():
            source.words[at.W_HEARTBEAT] = now_ns


def _taken(source: Source, one: Counted, portion: Portion, invalid: int) -> Taken:
    reader = source.reader
    return Taken(
        source.worker,
        reader.position,
        reader.epoch,
        tuple(reader.holes),
        source.declared,
        reader.take_gaps(),
        invalid,
        tuple((row, int(kind), local, count) for (row, kind, local), count in one.counts.items()),
        tuple((row, tuple(buckets.items())) for row, buckets in one.durations.items()),
        tuple(portion.tallies),
    )
