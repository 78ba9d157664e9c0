"""When a managed process is started, started again, given up or stopped: the rules of Erlang's supervisors.

A `Course` follows one process by the table of its states and says what is to be done now.
Neighbours: `settings_workers` (the rules as configured), `wards` (which does what is said here, and tells
what happened), `retreat` (stops many). Knows no process, no signal, no clock and no dice.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from supervisor.settings_workers import WorkerTable

NEVER: Final = float("inf")
DOUBLINGS_MAX: Final = 32
"""Restarts in a row after which the wait does not double any more: it has reached its limit long before."""


class WardState(enum.StrEnum):
    """How a managed process is."""

    STOPPED = "STOPPED"
    """Not wanted: never started, or stopped by an operator."""
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    """It has lived for start_s."""
    BACKOFF = "BACKOFF"
    """It ended; the next one waits a while."""
    STOPPING = "STOPPING"
    """It was asked to end, and has not yet."""
    EXITED = "EXITED"
    """It ended by itself, and its table does not ask for another."""
    FATAL = "FATAL"
    """It ended more than max_restarts times within restart_window_s."""


class WardEvent(enum.IntEnum):
    """What may happen to a managed process."""

    START = 1
    """Somebody wants it to run."""
    SETTLED = 2
    """It has lived for start_s."""
    AGAIN = 3
    """It ended, and another one follows."""
    DONE = 4
    """It ended, and that was all."""
    BEYOND = 5
    """It ended once too often."""
    DUE = 6
    """The wait before the next one is over."""
    STOP = 7
    """It shall end."""
    GONE = 8
    """It ended because it was asked to."""


class Act(enum.Enum):
    """What the caller has to do now."""

    NOTHING = 0
    FORK = 1
    """Start a process for this course."""
    TERMINATE = 2
    KILL = 3
    ESCALATE = 4
    """Stop everything in order: the level above decides."""


class _Then(enum.Enum):
    """What follows when a process ends."""

    JUDGED = 0
    """Its table decides by how it ended."""
    OVERRAN = 1
    """The same, and however it ended, it did not end well: it was over a limit."""
    STOPPED = 2
    STARTED = 3


_S, _A, _R = WardState.STOPPED, WardState.STARTING, WardState.RUNNING
_B, _P, _E, _F = WardState.BACKOFF, WardState.STOPPING, WardState.EXITED, WardState.FATAL

_ROWS: Final[dict[WardState, tuple[WardState, ...]]] = {
    # START, SETTLED, AGAIN, DONE, BEYOND, DUE, STOP, GONE
    _S: (_A, _S, _S, _S, _S, _S, _S, _S),
    _A: (_A, _R, _B, _E, _F, _A, _P, _A),
    _R: (_R, _R, _B, _E, _F, _R, _P, _R),
    _B: (_A, _B, _B, _B, _B, _A, _S, _B),
    _P: (_P, _P, _B, _E, _F, _P, _P, _S),
    _E: (_A, _E, _E, _E, _E, _E, _S, _E),
    _F: (_A, _F, _F, _F, _F, _F, _S, _F),
}

WARD_TABLE: Final[Mapping[tuple[WardState, WardEvent], WardState]] = MappingProxyType(
    {(state, event): row[event - 1] for state, row in _ROWS.items() for event in WardEvent}
)
"""Where each event leads from each state: every pair is present; staying is written down too."""

LIVING: Final = frozenset({WardState.STARTING, WardState.RUNNING, WardState.STOPPING})
"""The states in which there is a process."""


def ward_diagram() -> str:
    """The table as text: a block per state, a line per way out of it."""
    lines: list[str] = []
    for state in WardState:
        exits: dict[WardState, list[str]] = {}
        for event in WardEvent:
            if (target := WARD_TABLE[state, event]) is not state:
                exits.setdefault(target, []).append(event.name.lower())
        lines.append(state.name)
        for number, (target, events) in enumerate(exits.items(), 1):
            lines.append(
                f"  {'└──' if number == len(exits) else '├──'} {' | '.join(events)} ──> {target.name}"
            )
    return "\n".join(lines) + "\n"


def backoff_s(table: WorkerTable, restarts: int, chance: float) -> float:
    """Seconds before the restart that is the `restarts`-th of its window; `chance` in [0, 1) is jitter."""
    grown = table.backoff_s * 2.0 ** min(DOUBLINGS_MAX, restarts - 1)
    return min(table.backoff_max_s, grown) * (1.0 + table.backoff_jitter * chance)


class Course:
    """One managed process through all its lives. Attributes are read by everybody, written here alone."""

    __slots__ = ("_then", "_times", "restarts", "since", "state", "table", "until")

    def __init__(self, table: WorkerTable, now: float) -> None:
        self.table = table
        self.state = WardState.STOPPED
        self.since = now
        """When it came into this state, s."""
        self.until = NEVER
        """When `turn` has to be called at the latest, s."""
        self.restarts = 0
        """How often it was started again by its table's rules."""
        self._times: deque[float] = deque()
        """When it ended such that it was restarted, within the window."""
        self._then = _Then.JUDGED

    @property
    def living(self) -> bool:
        """True while there is a process."""
        return self.state in LIVING

    def start(self, now: float) -> Act:
        """Somebody wants it to run. One that is about to end is started again after that."""
        if self.state is WardState.STOPPING:
            self._then = _Then.STARTED
            return Act.NOTHING
        if not self.living:
            self._times.clear()
        return self._fire(WardEvent.START, now)

    def born(self, now: float) -> None:
        """The process that was asked for by FORK is there: its time begins now."""
        self.since, self.until = now, now + self.table.start_s

    def stop(self, now: float) -> Act:
        """It shall end, and stay so."""
        self._then = _Then.STOPPED
        return self._fire(WardEvent.STOP, now)

    def restart(self, now: float) -> Act:
        """End it and start it again, which is not counted; one that does not live is started."""
        if not self.living:
            return self.start(now)
        self._then = _Then.STARTED
        return self._fire(WardEvent.STOP, now)

    def replace(self, now: float) -> Act:
        """Kill it at once and start another, which is not counted. Nothing, if it is ending already."""
        if self.state not in (WardState.STARTING, WardState.RUNNING):
            return Act.NOTHING
        self._then = _Then.STARTED
        self._fire(WardEvent.STOP, now)
        self.until = NEVER
        return Act.KILL

    def overran(self, now: float) -> Act:
        """It is over its memory, or silent for too long: end it; this counts as a bad end."""
        if self.state not in (WardState.STARTING, WardState.RUNNING):
            return Act.NOTHING
        self._then = _Then.OVERRAN
        return self._fire(WardEvent.STOP, now)

    def adopt(self, table: WorkerTable, now: float) -> Act:
        """Go on by another table: restarted, unless an operator had stopped it."""
        down = self.state is WardState.STOPPED or (
            self.state is WardState.STOPPING and self._then is _Then.STOPPED
        )
        act = Act.NOTHING if down else self.restart(now)
        self.table = table
        return act

    def ended(self, now: float, well: bool, chance: float) -> Act:
        """The process is gone; `well` = its exit code was 0. `chance` in [0, 1) is for the wait."""
        then, self._then = self._then, _Then.JUDGED
        if self.state is WardState.STOPPING and then in (_Then.STOPPED, _Then.STARTED):
            self._fire(WardEvent.GONE, now)
            return self._fire(WardEvent.START, now) if then is _Then.STARTED else Act.NOTHING
        event = self._judge(now, well and then is not _Then.OVERRAN)
        self._fire(event, now)
        if event is WardEvent.AGAIN:
            self.restarts += 1
            self.until = now + backoff_s(self.table, len(self._times), chance)
        escalates = event is WardEvent.BEYOND and self.table.beyond == "escalate"
        return Act.ESCALATE if escalates else Act.NOTHING

    def turn(self, now: float) -> Act:
        """Time has passed."""
        if now < self.until:
            return Act.NOTHING
        if self.state is WardState.STOPPING:
            self.until = NEVER
            return Act.KILL
        return self._fire(WardEvent.DUE if self.state is WardState.BACKOFF else WardEvent.SETTLED, now)

    def _judge(self, now: float, well: bool) -> WardEvent:
        """What an end that nobody asked for means."""
        if self.table.restart == "temporary" or (self.table.restart == "transient" and well):
            return WardEvent.DONE
        self._times.append(now)
        while now - self._times[0] > self.table.restart_window_s:
            self._times.popleft()
        return WardEvent.BEYOND if len(self._times) > self.table.max_restarts else WardEvent.AGAIN

    def _fire(self, event: WardEvent, now: float) -> Act:
        """Move by the table: the only place where the state is written. Says what the new state asks for."""
        old = self.state
        self.state = new = WARD_TABLE[old, event]
        if new is old:
            return Act.NOTHING
        self.since, self.until = now, NEVER
        if new is WardState.STARTING:
            self.until = now + self.table.start_s
            return Act.FORK
        if new is WardState.STOPPING:
            self.until = now + self.table.stop_timeout_s
            return Act.TERMINATE
        return Act.NOTHING
