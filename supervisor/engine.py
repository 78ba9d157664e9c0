"""The whole mind of the supervisor: messages in, effects out. No I/O, no clock, no chance of its own.

Given the same messages with the same `now` and `chance` it does the same things, which is what makes
the journal a checkpoint: the state after a crash is the last snapshot with the later messages handled
again. Whoever calls `handle` puts the message into the journal before any effect leaves the process.
Neighbours: `messages` (what it is told and what it answers); `catalogue`, `roster`, `counting` and
`chronicle` (what it keeps); `mind` (who calls), `views` and `health` (who read it).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from ipc.breaker import Observation, Transition
from ipc.layout import ALONE
from ipc.vocabulary import OutcomeKind, Verb
from supervisor.catalogue import Catalogue
from supervisor.chronicle import Chronicle
from supervisor.counting import Counting
from supervisor.forgetting import forget_old, told_to_forget
from supervisor.host_breaker import HostBreaker
from supervisor.messages import (
    Answer,
    BreakerDeclared,
    ClassDeclared,
    Command,
    Configured,
    CounterDeclared,
    DaemonStarted,
    Forget,
    Message,
    Noted,
    OutcomeBatch,
    PermitAsked,
    PermitReturned,
    ProbeEnded,
    ProbesConfigured,
    Publish,
    Refused,
    Reloaded,
    Tick,
    WorkerForgotten,
    WorkerJoined,
    WorkerLeft,
    WorkerQuarantined,
)
from supervisor.metrics import KIND_NAMES
from supervisor.older import as_of_today
from supervisor.roster import Roster
from supervisor.turn import Effects, Turn
from supervisor.worker import ReadFrom, Worker

FOR_S_MAX: Final = 10 * 366 * 86_400.0
"""Seconds that a manual state may last, where it is to end at all."""
PLAIN_VERSION: Final = 5
"""Version of `to_plain`: raised with every change of what it writes."""
_VERBS: Final = frozenset(Verb)
_KINDS: Final = tuple(OutcomeKind(kind) if kind in KIND_NAMES else None for kind in range(16))


class Engine:
    """Every breaker, every count and every worker of this host. One thread owns it."""

    def __init__(self) -> None:
        self.incarnation = 0
        """Which life of the supervisor this is."""
        self.boot = 0
        self.catalogue = Catalogue()
        self.counting = Counting()
        self.roster = Roster(self.catalogue, self.counting)
        self.chronicle = Chronicle()
        self._due: dict[int, float] = {}
        self._next = math.inf

    @property
    def workers(self) -> dict[str, Worker]:
        """The attached workers by nonce."""
        return self.roster.workers

    @property
    def tombs(self) -> dict[str, float]:
        """The dead whose descriptors the nursery may still hold, with the time of death."""
        return self.roster.tombs

    # --- the one way in ---------------------------------------------------------------------------

    def handle(self, message: Message, now: float, chance: float) -> Effects:
        """Handle one message to its end and return what must happen, in order.

        `now` is seconds of CLOCK_MONOTONIC, `chance` a number in [0, 1) drawn for this message.
        """
        turn = Turn(now, chance, self.chronicle)
        if now >= self._next:
            self._advance(turn)
        if now >= self.catalogue.forget_due():
            forget_old(self.catalogue, turn)
        if now >= self.counting.forget_due():
            self.counting.forget_old(now)
        _HANDLERS[type(message)](self, message, turn)
        for breaker in turn.touched.values():
            if not breaker.settled:
                self._settle(breaker, turn)
        if turn.gone:
            self._drop(turn.gone)
        return turn.effects

    def next_time(self) -> float:
        """When (s of CLOCK_MONOTONIC) a Tick is needed at the latest; inf = never."""
        return min(self._next, self.catalogue.forget_due(), self.counting.forget_due())

    def _drop(self, numbers: list[int]) -> None:
        """These breakers are no more: they wait for no time."""
        for number in numbers:
            self._due.pop(number, None)
        self._next = min(self._due.values(), default=math.inf)

    def _advance(self, turn: Turn) -> None:
        """Let the time that has passed act on every breaker that waits for it."""
        for number in sorted(self._due):
            if self._due[number] <= turn.now:
                breaker = self.catalogue.by_number[number]
                breaker.breaker.advance(turn.now, breaker.chance(turn.chance))
                turn.touch(breaker)

    def _settle(self, breaker: HostBreaker, turn: Turn) -> None:
        """Tell what a touched breaker did, show its new words, and note when it needs time again."""
        for moved in breaker.breaker.take_transitions():
            self._tell(breaker, moved, turn)
        for worker, row, word in breaker.changed_words():
            turn.effects.append(Publish(worker, row, word))
        due = breaker.breaker.next_time()
        if due != self._due.get(breaker.number, math.inf):
            if math.isinf(due):
                del self._due[breaker.number]
            else:
                self._due[breaker.number] = due
            self._next = min(self._due.values(), default=math.inf)

    def _tell(self, breaker: HostBreaker, moved: Transition, turn: Turn) -> None:
        """One event for one transition, or for an opening that METRICS_ONLY kept from happening."""
        party = moved.scope or moved.party
        worker = self.workers.get(party)
        alone = f" for {worker.title if worker else party[:8]} alone" if moved.scope else ""
        if moved.old is moved.new:
            text = f"{breaker.name}{alone}: {moved.cause}"
        else:
            text = f"{breaker.name}{alone}: {moved.old.name} -> {moved.new.name}: {moved.cause}"
        turn.happened(
            "breaker",
            text,
            breaker.name,
            party,
            old=moved.old.name,
            new=moved.new.name,
            generation=str(moved.generation),
            scope="worker" if moved.scope else "host",
            cause=moved.cause,
        )

    # --- outcomes ---------------------------------------------------------------------------------

    def _outcomes(self, batch: OutcomeBatch, turn: Turn) -> None:
        """Count everything, then judge what is to be judged, in the order of its ends."""
        workers, now = self.workers, turn.now
        self.counting.batches += 1
        for taken in batch.taken:
            worker = workers.get(taken.worker)
            if worker is not None:
                self.counting.take(taken, worker, now)
        for seen in batch.judged:
            worker = workers.get(seen.worker)
            row = worker.rows.get(seen.row) if worker is not None else None
            kind = _KINDS[seen.kind & 15]
            if row is None or row.class_name is not None or kind is None:
                continue
            breaker = row.breaker
            breaker.breaker.observe(
                Observation(seen.worker, kind, seen.generation, seen.permit, seen.end, seen.count),
                now,
                breaker.chance(turn.chance),
            )
            turn.touched[breaker.number] = breaker

    # --- trials and commands ----------------------------------------------------------------------

    def _permit_asked(self, told: PermitAsked, turn: Turn) -> None:
        """A worker wants to run a trial. Whoever is not read any more gets none: no verdict would come."""
        breaker = self.roster.breaker(told.worker, told.row)
        if breaker is None:
            turn.effects.append(Refused("unknown", "this row was never declared by an attached worker"))
            return
        grant = None
        if not self.workers[told.worker].quarantine:
            grant = breaker.breaker.ask(told.worker, told.ask, turn.now)
        turn.touch(breaker)
        if grant is None:
            retry = breaker.retry_after_s(told.worker, turn.now) or 0.0
            value = {
                "permit": None,
                "generation": breaker.breaker.generation,
                "lease_s": 0.0,
                "retry_after_s": retry,
            }
        else:
            lease = max(0.0, grant.lease_until - turn.now)
            value = {
                "permit": grant.permit,
                "generation": grant.generation,
                "lease_s": lease,
                "retry_after_s": 0.0,
            }
        turn.effects.append(Answer(value))

    def _permit_returned(self, told: PermitReturned, turn: Turn) -> None:
        """The asker never got its permit: it is free again."""
        breaker = self.roster.breaker(told.worker, told.row)
        if breaker is not None:
            breaker.breaker.give_back(told.worker, told.permit, turn.now)
            turn.touch(breaker)

    def _commanded(self, told: Command, turn: Turn) -> None:
        """An authorised operator tells a breaker what to do."""
        breaker = self.catalogue.named.get(told.breaker)
        if breaker is None:
            turn.effects.append(Refused("unknown", f"there is no breaker {told.breaker}"))
            return
        if told.verb not in _VERBS or not (told.for_s is None or 0.0 < told.for_s <= FOR_S_MAX):
            turn.effects.append(Refused("invalid", f"{told.verb} for {told.for_s} s is no command"))
            return
        verb = Verb(told.verb)
        ends = verb in (Verb.ENABLE, Verb.RESET)
        until = math.inf if told.for_s is None or ends else turn.now + told.for_s
        breaker.breaker.command(verb, until, f"{told.uid}:{told.user}", told.reason, turn.now)
        turn.touch(breaker)
        expires = None if math.isinf(until) else until - turn.now
        turn.effects.append(
            Answer({"breaker": breaker.name, "state": breaker.state.name, "expires_in_s": expires})
        )
        lasting = "" if ends else " until it is changed" if expires is None else f" for {expires:g} s"
        turn.happened(
            "command",
            f"{told.user} (uid {told.uid}): {verb} {breaker.name}{lasting}: {told.reason or '(no reason)'}",
            breaker.name,
            uid=str(told.uid),
            user=told.user,
            verb=str(verb),
            reason=told.reason,
        )

    # --- the supervisor itself --------------------------------------------------------------------

    def _started(self, told: DaemonStarted, turn: Turn) -> None:
        """A new daemon serves, of this boot or the first of a new one."""
        if self.boot not in (0, told.boot):
            self.roster.bury_all(turn)
        self.incarnation = told.incarnation
        self.boot = told.boot
        self.catalogue.own = self.counting.own = told.uid
        turn.happened(
            "supervisor",
            f"breakerd serves, incarnation {told.incarnation}",
            event="started",
            incarnation=str(told.incarnation),
        )
        self.counting.lost.checkpoint_lost += len(told.lost)
        for sentence in told.lost:
            self.counting.note(turn.now, sentence)
            turn.happened("supervisor", sentence, event="lost")

    def _reloaded(self, told: Reloaded, turn: Turn) -> None:
        """The configuration of another file's text is in force, as the messages before this one said it."""
        who = f"{told.user} (uid {told.uid})" if told.uid >= 0 else told.user
        text = f"the configuration was reloaded, asked for by {who}: {told.changed}"
        turn.happened("supervisor", text, event="reloaded", uid=str(told.uid), user=told.user)

    # --- for those around it ----------------------------------------------------------------------

    def resolve(self, name: str) -> str:
        """The full name of a breaker, from its full or short one. Raises BreakerNotFound."""
        return self.catalogue.resolve(name)

    def publications(self, worker: str | None = None) -> list[Publish]:
        """Every row of every worker (or of one) as it stands: what a new daemon stores before it serves."""
        return [
            Publish(nonce, row, word)
            for breaker in self.catalogue.numbered
            for (nonce, row), word in breaker.shown.items()
            if worker is None or nonce == worker
        ] + [
            Publish(one.nonce, row, ALONE)
            for one in self.workers.values()
            for row, name in one.refused.items()
            if name and worker in (None, one.nonce)
        ]

    def reading(self, worker: str) -> ReadFrom:
        """Where the reading of this worker's segment continues. Raises KeyError for who is not attached."""
        return self.workers[worker].read_from()

    def row_name(self, worker: str, row: int) -> str | None:
        """The full name of the breaker that this row shows; None = no breaker's row."""
        breaker = self.roster.breaker(worker, row)
        return None if breaker is None else breaker.name

    # --- snapshots --------------------------------------------------------------------------------

    def shift(self, delta_s: float) -> None:
        """Move every time by `delta_s`: the snapshot is of a boot whose clock stood elsewhere."""
        self.catalogue.shift(delta_s)
        self.roster.shift(delta_s)
        self.counting.shift(delta_s)
        self.chronicle.shift(delta_s)
        self._look_ahead()

    def to_plain(self) -> dict[str, Any]:
        """The whole state as JSON values."""
        return {
            "version": PLAIN_VERSION,
            "incarnation": self.incarnation,
            "boot": self.boot,
            "catalogue": self.catalogue.to_plain(),
            "roster": self.roster.to_plain(),
            "counting": self.counting.to_plain(),
            "chronicle": self.chronicle.to_plain(),
        }

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Engine:
        """The engine that `to_plain` wrote. Raises ValueError, TypeError or LookupError on anything else."""
        plain = as_of_today(plain)
        if not isinstance(plain, dict) or plain.get("version") != PLAIN_VERSION:
            raise ValueError(f"not a snapshot of version {PLAIN_VERSION}")
        engine = cls()
        engine.incarnation = plain["incarnation"]
        engine.boot = plain["boot"]
        engine.catalogue = Catalogue.from_plain(plain["catalogue"])
        engine.counting = Counting.from_plain(plain["counting"])
        engine.roster = Roster.from_plain(plain["roster"], engine.catalogue, engine.counting)
        engine.chronicle = Chronicle.from_plain(plain["chronicle"])
        engine._look_ahead()
        return engine

    def _look_ahead(self) -> None:
        """Who waits for time follows from the rest."""
        waiting = ((breaker.number, breaker.breaker.next_time()) for breaker in self.catalogue.numbered)
        self._due = {number: due for number, due in waiting if not math.isinf(due)}
        self._next = min(self._due.values(), default=math.inf)


_HANDLERS: Final[dict[type[Any], Callable[[Engine, Any, Turn], None]]] = {
    WorkerJoined: lambda engine, told, turn: engine.roster.joined(told, turn),
    WorkerLeft: lambda engine, told, turn: engine.roster.left(told, turn),
    WorkerForgotten: lambda engine, told, _turn: engine.roster.forgotten(told),
    WorkerQuarantined: lambda engine, told, turn: engine.roster.quarantined(told, turn),
    BreakerDeclared: lambda engine, told, turn: engine.roster.declared(told, turn),
    ClassDeclared: lambda engine, told, turn: engine.roster.class_declared(told, turn),
    CounterDeclared: lambda engine, told, turn: engine.roster.counter_declared(told, turn),
    OutcomeBatch: Engine._outcomes,
    PermitAsked: Engine._permit_asked,
    PermitReturned: Engine._permit_returned,
    Command: Engine._commanded,
    Configured: lambda engine, told, turn: engine.catalogue.configure(told, turn),
    DaemonStarted: Engine._started,
    ProbesConfigured: lambda engine, told, turn: engine.catalogue.configure_probes(told, turn),
    ProbeEnded: lambda engine, told, turn: engine.catalogue.probe_ended(told, turn),
    Reloaded: Engine._reloaded,
    Forget: lambda engine, told, turn: told_to_forget(engine.catalogue, told, turn),
    Noted: lambda _engine, told, turn: turn.noted(told),
    Tick: lambda _engine, _told, _turn: None,
}
