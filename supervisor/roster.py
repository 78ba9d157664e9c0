"""Who is attached and what the rows of its segment mean; and the tombs of the dead.

A record is made before the hello is answered and lives as long as the process (its pidfd) does. When
the process is dead and its ring was drained, the record becomes a tomb: it keeps nothing but the
nonce, so that nothing of that worker can ever be counted again, until the nursery has dropped the
descriptors. Neighbours: `engine` (tells it), `worker`, `catalogue`, `counting`. Knows no outcome.
"""

from __future__ import annotations

from typing import Any, Final

from ipc.errors import SettingsError
from ipc.layout import ALONE, ROWS
from ipc.vocabulary import BreakerSettings, check_name
from supervisor.catalogue import Catalogue
from supervisor.counting import Counting
from supervisor.host_breaker import HostBreaker, read_declared
from supervisor.messages import (
    Answer,
    BreakerDeclared,
    ClassDeclared,
    CounterDeclared,
    Publish,
    Refused,
    Retire,
    WorkerForgotten,
    WorkerJoined,
    WorkerLeft,
    WorkerQuarantined,
)
from supervisor.turn import Turn
from supervisor.worker import Row, Worker

WORKERS_MAX: Final = 4096
"""Attached workers; a further one is told `full` and stays local."""
NAME_MAX: Final = 128
"""Characters of a refused breaker's name that are kept."""
TOMBS_MAX: Final = 65_536
"""Tombs kept; beyond it the oldest is forgotten, whose descriptors the nursery has long dropped."""


class Roster:
    """The living and the dead. It puts workers into breakers and takes them out again."""

    def __init__(self, catalogue: Catalogue, counting: Counting) -> None:
        self.workers: dict[str, Worker] = {}
        self.tombs: dict[str, float] = {}
        """Dead workers whose descriptors the nursery may still hold, and when they died."""
        self._catalogue = catalogue
        self._counting = counting

    def breaker(self, worker: str, row: int) -> HostBreaker | None:
        """The breaker that this row of this worker shows."""
        found = self.workers[worker].rows.get(row) if worker in self.workers else None
        return found.breaker if found is not None and found.class_name is None else None

    def joined(self, told: WorkerJoined, turn: Turn) -> None:
        """A worker says hello, for the first time or again: the same nonce is the same worker."""
        known = self.workers.get(told.worker)
        if told.worker in self.tombs:
            turn.effects.append(Refused("refused", "this attachment's process is dead"))
        elif known is not None:
            if known.inode != told.inode and known.inode and told.inode:
                turn.effects.append(Refused("refused", "another process holds this attachment"))
            else:
                turn.effects.append(Answer({"status": "resumed"}))
        elif len(self.workers) >= WORKERS_MAX:
            turn.effects.append(Refused("full", f"{WORKERS_MAX} workers are attached, which is the limit"))
        else:
            who = (told.worker, told.pid, told.inode, told.uid, told.user, told.name)
            worker = Worker(*who, told.namespace, told.software, turn.now)
            self.workers[told.worker] = worker
            turn.effects.append(Answer({"status": "new"}))
            turn.happened(
                "worker",
                f"{worker.title} of user {told.user} joined namespace {told.namespace}",
                worker=told.worker,
                event="joined",
                pid=str(told.pid),
            )

    def left(self, told: WorkerLeft, turn: Turn) -> None:
        """The process is dead and its ring was read: its record becomes a tomb."""
        worker = self.workers.pop(told.worker, None)
        if worker is not None:
            if not worker.quarantine:
                self._part(worker, turn)
            for breaker in worker.breakers().values():
                breaker.hide(worker.nonce)
                self._catalogue.choose(breaker, turn)
                if not breaker.shown:
                    self._catalogue.idle.rest(breaker.number, breaker.owner, turn.now)
            for key in worker.counters.values():
                self._counting.unused(key, turn.now)
            if told.segment_lost:
                self._counting.lost.segment_lost += 1
                self._counting.note(turn.now, f"the segment of {worker.title} was lost with its last words")
            self.tombs[told.worker] = turn.now
            if len(self.tombs) > TOMBS_MAX:
                del self.tombs[next(iter(self.tombs))]
            lost = "; its last words are lost" if told.segment_lost else ""
            turn.happened("worker", f"{worker.title} left{lost}", worker=told.worker, event="left")
        turn.effects.append(Retire(told.worker))

    def forgotten(self, told: WorkerForgotten) -> None:
        """The nursery dropped the descriptors of a dead worker: its tomb goes."""
        self.tombs.pop(told.worker, None)

    def quarantined(self, told: WorkerQuarantined, turn: Turn) -> None:
        """Its segment is not read any more: it has no part in any decision, its board is still written."""
        worker = self.workers.get(told.worker)
        if worker is None or worker.quarantine:
            return
        worker.quarantine = told.reason
        self._part(worker, turn)
        self._counting.note(turn.now, f"{worker.title} was quarantined: {told.reason}")
        turn.happened(
            "worker",
            f"{worker.title} is quarantined: {told.reason}",
            worker=told.worker,
            event="quarantined",
            reason=told.reason,
        )

    def _part(self, worker: Worker, turn: Turn) -> None:
        """Take the worker out of every breaker: its permits are free, its isolation ends."""
        for breaker in worker.breakers().values():
            breaker.breaker.leave(worker.nonce, turn.now)
            turn.touch(breaker)

    def declared(self, told: BreakerDeclared, turn: Turn) -> None:
        """A row of a worker's segment is this breaker; the same row again may bring other settings."""
        worker = self.workers.get(told.worker)
        if worker is None:
            return
        try:
            short = check_name(told.name)
        except SettingsError as error:
            self._refuse_breaker(worker, told, str(error), turn)
            return
        settings = self._declared_settings(worker, told, turn)
        breaker = self._catalogue.find_or_make(
            worker.namespace, short, settings or BreakerSettings(), worker.uid, turn
        )
        known = worker.rows.get(told.row)
        if breaker is None:
            self._refuse_breaker(worker, told, self._catalogue.full, turn)
        elif not self._free(worker, told.row) or (known is not None and known != Row(breaker)):
            self._refuse_row(worker, told.row, "the row is no row, or means something else already", turn)
        else:
            self._show(worker, told.row, breaker, settings, turn)

    def _declared_settings(self, worker: Worker, told: BreakerDeclared, turn: Turn) -> BreakerSettings | None:
        """The settings of a declaration, as far as they are known here; what is not used is an event.

        Its calls are guarded all the same: with what its peers declare, else with the defaults.
        """
        wrong, settings = "", None
        try:
            settings, unknown = read_declared(told.settings)
            if unknown:
                wrong = f"that only a newer supervisor knows: {', '.join(unknown)}"
        except SettingsError as error:
            wrong = f"that cannot be used: {error}"
        if wrong:
            text = f"{worker.title} declares {told.name} with settings {wrong}"
            turn.happened("worker", text, worker=worker.nonce, event="settings")
        return settings

    def _show(
        self, worker: Worker, row: int, breaker: HostBreaker, settings: BreakerSettings | None, turn: Turn
    ) -> None:
        """This row is that breaker from now on, and its worker has a say about the settings."""
        if settings is not None:
            breaker.declare(worker.nonce, settings)
        worker.refused.pop(row, None)
        if row not in worker.rows:
            worker.rows[row] = Row(breaker)
            breaker.show(worker.nonce, row)
            self._catalogue.idle.use(breaker.number)
            if not worker.quarantine:
                breaker.breaker.join(worker.nonce, turn.now)
        self._catalogue.choose(breaker, turn)
        turn.touch(breaker)

    def class_declared(self, told: ClassDeclared, turn: Turn) -> None:
        """A row counts one exception class of one of the worker's breakers."""
        worker = self.workers.get(told.worker)
        if worker is None:
            return
        of = worker.rows.get(told.breaker_row)
        if told.breaker_row in worker.refused and told.row not in worker.rows:
            worker.refused[told.row] = ""
            return
        if of is None or of.class_name is not None or not self._free(worker, told.row):
            self._refuse_row(worker, told.row, "it counts a class of a breaker that was never declared", turn)
            return
        wanted = Row(of.breaker, of.breaker.metrics.class_name(told.name))
        if worker.rows.setdefault(told.row, wanted) != wanted:
            self._refuse_row(worker, told.row, "the row means something else already", turn)

    def counter_declared(self, told: CounterDeclared, turn: Turn) -> None:
        """A row counts one kind of error in one operation."""
        worker = self.workers.get(told.worker)
        if worker is None:
            return
        key = self._counting.counter((worker.namespace, told.kind, told.operation), worker.uid, turn.now)
        if key is None:
            self._refuse_row(worker, told.row, "too many kinds of errors are counted", turn)
        elif not 0 <= told.row < ROWS or told.row in worker.rows:
            self._refuse_row(worker, told.row, "the row is no row, or means something else already", turn)
        elif told.row not in worker.counters:
            worker.counters[told.row] = key
            self._counting.used(key)
        elif worker.counters[told.row] != key:
            self._refuse_row(worker, told.row, "the row means something else already", turn)

    def _free(self, worker: Worker, row: int) -> bool:
        """Whether a row may be a breaker's or a class's."""
        return 0 <= row < ROWS and row not in worker.counters

    def _refuse_breaker(self, worker: Worker, told: BreakerDeclared, why: str, turn: Turn) -> None:
        """The host does not take this breaker: the row says so, and its process decides about it alone."""
        if self._free(worker, told.row) and told.row not in worker.rows:
            worker.refused[told.row] = told.name[:NAME_MAX]
            turn.effects.append(Publish(worker.nonce, told.row, ALONE))
        self._refuse_row(worker, told.row, why, turn)

    def _refuse_row(self, worker: Worker, row: int, why: str, turn: Turn) -> None:
        """A declaration that cannot be followed: what arrives on the row is counted as of no row."""
        turn.happened(
            "worker",
            f"a declaration of {worker.title} for row {row} is refused: {why}",
            worker=worker.nonce,
            event="refused",
        )

    # --- time and snapshots -----------------------------------------------------------------------

    def bury_all(self, turn: Turn) -> None:
        """After a reboot nobody of before is alive, and nothing holds their segments."""
        for worker in tuple(self.workers):
            self.left(WorkerLeft(worker, segment_lost=True), turn)
        turn.effects = [effect for effect in turn.effects if not isinstance(effect, Retire)]
        self.tombs.clear()

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the clock began anew."""
        for worker in self.workers.values():
            worker.since += delta_s
        for nonce in self.tombs:
            self.tombs[nonce] += delta_s

    def to_plain(self) -> list[Any]:
        """The records and tombs as JSON values."""
        return [
            [worker.to_plain() for worker in self.workers.values()],
            [[worker, died] for worker, died in self.tombs.items()],
        ]

    @classmethod
    def from_plain(cls, plain: list[Any], catalogue: Catalogue, counting: Counting) -> Roster:
        """The roster that `to_plain` wrote."""
        roster = cls(catalogue, counting)
        for values in plain[0]:
            worker = Worker.from_plain(values, catalogue.by_number)
            for key in worker.counters.values():
                counting.used(key)
            roster.workers[worker.nonce] = worker
        roster.tombs = dict(plain[1])
        return roster
