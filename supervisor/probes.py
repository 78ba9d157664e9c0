"""The actor that has probes asked: one question at a time for each prober, and each answer to the engine.

A prober is a process that somebody else starts, kills and replaces; here it is an end of a talk, which can
be silent, say nonsense or end at any moment. Every question has a number that no other life of the daemon
uses, so an answer to an earlier one is nobody's; a prober is asked first whether it is free.
Dies this actor or the daemon: what was asked is asked again by the next. Dies a prober: its end is seen
here, the program that it ran is killed as a group, and its probe is asked again.
Neighbours: `probe_schedule` (what is due), `talks` (sockets), `mind` (verdicts).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from supervisor.actor import Stage
from supervisor.connections import Connections, Request
from supervisor.facts import ProbeWait
from supervisor.messages import ProbeEnded
from supervisor.mind import Tell
from supervisor.probe_schedule import Schedule, Task
from supervisor.probe_watch import ERROR, FAILED, PASSED, Probing
from supervisor.settings_probe import LATE_S, ProbeTable

log = logging.getLogger("breakerd.probes")

PREPARE_S: Final = 15.0
"""How long a prober may load drivers before the time of its probe begins."""
SWEEPS_S: Final = (0.5, 3.0)
"""How long after the end of a prober, and after the begin of a daemon, strays are looked for: its end is
seen a moment before the kernel says that it is dead."""
KILL_AGAIN_S: Final = 1.0
"""How soon the nursery, whose queue may have been full, is asked again for a prober that has not ended."""
BY_HAND_S: Final = 10.0
"""How long somebody waits for a free prober."""
TEXT_MAX: Final = 500
DETAILS_MAX: Final = 16
NUMBERS: Final = 1 << 48
Key = tuple[str, int]
"""Title and pid: one life of a prober."""


@dataclass(frozen=True, slots=True)
class ProberCame:
    """A prober lives, and can be talked to."""

    key: Key


@dataclass(frozen=True, slots=True)
class ProberSaid:
    """One message of a prober: anything, for user's code runs in it."""

    key: Key
    data: bytes


@dataclass(frozen=True, slots=True)
class ProberEnded:
    """Its end of the talk is closed."""

    key: Key


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """These probes are in force."""

    probes: Mapping[str, ProbeTable]


@dataclass(frozen=True, slots=True)
class ProbeNow:
    """Somebody who may command wants to see what comes back."""

    name: str
    """Of a table that has a probe."""
    request: Request


@dataclass(frozen=True, slots=True)
class Look:
    """A few times a second."""


class Wire(Protocol):
    """How probers are reached. Nothing of it waits or raises; who was killed is told by ProberEnded."""

    def say(self, key: Key, data: bytes) -> bool:
        """Send one message; False = it cannot be sent."""

    def kill(self, key: Key) -> None:
        """Have the nursery kill this life of a prober."""

    def kill_group(self, group: int) -> None:
        """Kill a program that a probe has started, with all that it started."""

    def sweep(self) -> None:
        """Find and kill programs of dead probers that nobody was told of."""


@dataclass(slots=True)
class _Prober:
    """One life of a prober, as far as it is known here."""

    number: int
    """Of the question that it has not answered; 0 = it is free."""
    deadline: float
    task: Task | None = None
    """What it was asked; None = whether it is free."""
    started: float = 0.0
    begun: bool = False
    group: int = 0
    """The process group of the program that it runs; 0 = none."""


class Probes:
    """Owns the schedule and what every prober is at."""

    name = "probes"

    def __init__(
        self,
        openings: Callable[[], Iterable[Probing]],
        wire: Wire,
        clock: Callable[[], float],
        dice: Callable[[], float],
    ) -> None:
        self.stage: Stage
        self.connections: Connections
        self.schedule = Schedule(dice)
        self._openings = openings
        self._wire = wire
        self._clock = clock
        self._number = 1 + int(dice() * NUMBERS)
        self._probers: dict[Key, _Prober] = {}
        self._condemned: dict[Key, float] = {}
        """Who shall be killed and is not dead yet, and when the nursery was asked to last, s."""
        self._asking: dict[int, Request] = {}
        """Who waits for an answer, by ticket."""
        self._tickets = 0
        self._sweeps: list[float] = []
        """When strays are to be looked for, s."""
        self._sweep_later()

    def _sweep_later(self) -> None:
        now = self._clock()
        self._sweeps = [now + seconds for seconds in SWEEPS_S]

    @property
    def probers(self) -> tuple[str, ...]:
        """Titles of the probers that live."""
        return tuple(title for title, _ in self._probers)

    def waits(self) -> dict[str, ProbeWait]:
        """How long the probes of each table wait for a free prober."""
        return self.schedule.waits(self._clock())

    def receive(
        self, message: ProberCame | ProberSaid | ProberEnded | Reconfigured | ProbeNow | Look
    ) -> None:
        """One message, and then whatever can be asked now."""
        if isinstance(message, ProberSaid):
            self._said(message.key, message.data)
        elif isinstance(message, ProberCame):
            self._greet(message.key)
        elif isinstance(message, ProberEnded):
            self._ended(message.key)
        elif isinstance(message, Reconfigured):
            self.schedule.configure(message.probes, self._clock())
        elif isinstance(message, ProbeNow):
            self._wanted(message)
        else:
            self._look()
        self._ask()

    def restart(self) -> None:
        """Nobody knows any more who was asked what: everybody is asked whether he is free."""
        self.schedule.release()
        for ticket in list(self._asking):
            self._refuse(ticket, "busy", "the supervisor could not handle this; try again")
        for key in list(self._probers):
            self._greet(key)

    # --- asking -----------------------------------------------------------------------------------

    def _greet(self, key: Key) -> None:
        """A prober that begins, or is still at what another daemon asked: is it free?"""
        wait_s = PREPARE_S + self.schedule.timeout_max_s() + LATE_S
        self._put(key, _Prober(self._next(), self._clock() + wait_s), {})

    def _ask(self) -> None:
        """Give every free prober something to do."""
        now = self._clock()
        for key in [key for key, prober in self._probers.items() if not prober.number]:
            task = self.schedule.take(now)
            if task is None:
                return
            prober = _Prober(self._next(), now + PREPARE_S, task, now)
            self._put(key, prober, {"probe": task.table.asked(), "details": bool(task.tickets)})

    def _put(self, key: Key, prober: _Prober, told: dict[str, Any]) -> None:
        self._probers[key] = prober
        if not self._wire.say(key, json.dumps({"number": prober.number, **told}).encode()):
            del self._probers[key]
            self._condemn(key)
            if prober.task is not None:
                self.schedule.put_back(prober.task)

    def _condemn(self, key: Key) -> None:
        """Have it killed; that it has ended is seen by its end of the talk."""
        self._condemned[key] = self._clock()
        self._wire.kill(key)

    def _next(self) -> int:
        self._number += 1
        return self._number

    # --- what comes back --------------------------------------------------------------------------

    def _said(self, key: Key, data: bytes) -> None:
        prober = self._probers.get(key)
        if prober is None:
            return
        try:
            told = json.loads(data)
            number = told["number"]
            if number != prober.number:
                return  # an answer to another life's question
            if "verdict" in told:
                self._verdict(key, prober, _Told.read(told))
            elif "group" in told:
                prober.group = _group(told["group"])
            elif prober.task is not None and not prober.begun:
                prober.begun = True
                prober.deadline = self._clock() + prober.task.table.timeout_s + LATE_S
        except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError):
            log.warning("%s (pid %d) says what no prober says: it is replaced", *key)
            self._lose(key, ERROR, "its prober said what no prober says")

    def _verdict(self, key: Key, prober: _Prober, told: _Told) -> None:
        self._probers[key] = _Prober(0, 0.0)
        if prober.task is not None:
            self._conclude(key, prober, told)

    def _conclude(self, key: Key, prober: _Prober, told: _Told) -> None:
        """The engine is told what came back, and whoever wanted to see it."""
        task, now = prober.task, self._clock()
        assert task is not None
        self.schedule.ended(task, told.verdict, prober.started, now)
        ended = ProbeEnded(
            task.name,
            told.verdict,
            told.text,
            told.took_s,
            prober.started,
            task.table.digest,
            self.schedule.awaited_s(task.name, now),
        )
        self.stage.post("mind", Tell((ended,)))
        for ticket in task.tickets:
            request = self._asking.pop(ticket, None)
            if request is not None:
                self.connections.answer(
                    request.connection,
                    request.number,
                    {
                        "schema": 1,
                        "probe": task.name,
                        "kind": task.table.kind,
                        "verdict": told.verdict,
                        "text": told.text,
                        "took_s": told.took_s,
                        "waited_s": max(0.0, prober.started - task.due),
                        "details": told.details,
                        "prober": key[0],
                    },
                )

    def _ended(self, key: Key) -> None:
        """Its process is dead, or has closed its end, which is as good as that."""
        self._condemned.pop(key, None)
        self._sweep_later()
        if key in self._probers:
            self._lose(key, ERROR, "its prober ended while it asked; it is asked again", kill=False)

    def _look(self) -> None:
        """Time has passed: who is late, whose breaker has opened, who waited too long."""
        now = self._clock()
        if self.schedule.names():
            self.schedule.follow(self._openings(), now)
        for key, prober in list(self._probers.items()):
            if prober.number and now >= prober.deadline:
                self._late(key, prober)
        for key in [key for key, asked in self._condemned.items() if now - asked >= KILL_AGAIN_S]:
            self._condemn(key)
        if self._sweeps and now >= self._sweeps[0]:
            del self._sweeps[0]
            self._wire.sweep()
        for ticket in self.schedule.forget(now - BY_HAND_S):
            text = (
                "all probers are taken" if self._probers else "there is no prober: see supervisorctl status"
            )
            self._refuse(ticket, "busy", text)

    def _late(self, key: Key, prober: _Prober) -> None:
        """A hung prober is killed and replaced by the nursery."""
        log.warning("%s (pid %d) does not answer: it is killed and replaced", *key)
        if prober.task is None or not prober.begun:
            self._lose(key, ERROR, f"its prober was not ready within {PREPARE_S:g} s")
        else:
            self._lose(key, FAILED, f"no answer within {prober.task.table.timeout_s + LATE_S:g} s")

    def _lose(self, key: Key, verdict: str, text: str, kill: bool = True) -> None:
        """This life of a prober is over for us, and so is the program that it runs."""
        prober = self._probers.pop(key)
        if kill:
            self._condemn(key)
        if prober.group:
            self._wire.kill_group(prober.group)
        if prober.number and prober.task is not None:
            took_s = max(0.0, self._clock() - prober.started)
            self._conclude(key, prober, _Told(verdict, text, took_s))

    # --- by hand ----------------------------------------------------------------------------------

    def _wanted(self, message: ProbeNow) -> None:
        self._tickets += 1
        self._asking[self._tickets] = message.request
        if message.name not in self.schedule.names():
            self._refuse(self._tickets, "unknown", f"{message.name} has no probe any more")
        elif not self.schedule.want(message.name, self._tickets, self._clock()):
            self._refuse(self._tickets, "busy", "too many wait for a probe")

    def _refuse(self, ticket: int, code: str, text: str) -> None:
        request = self._asking.pop(ticket, None)
        if request is not None:
            self.connections.refuse(request.connection, request.number, code, text)


@dataclass(frozen=True, slots=True)
class _Told:
    """A verdict as it may be believed: it came from a process in which anybody's code runs."""

    verdict: str
    text: str
    took_s: float
    details: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> _Told:
        """Raises ValueError, TypeError or LookupError on what no prober says."""
        if told["verdict"] not in (PASSED, FAILED, ERROR):
            raise ValueError("verdict")
        took_s, details = float(told["took_s"]), told["details"]
        if not isinstance(details, dict) or not 0.0 <= took_s < math.inf:
            raise ValueError("details")
        figures = {str(key)[:40]: int(value) for key, value in list(details.items())[:DETAILS_MAX]}
        return cls(told["verdict"], str(told["text"])[:TEXT_MAX], took_s, figures)


def _group(value: Any) -> int:
    """A process group that may be killed. Raises ValueError on what is none."""
    if not isinstance(value, int) or not 1 < value < 1 << 31:
        raise ValueError("group")
    return value
