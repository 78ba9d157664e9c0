"""When which probe is due, pure: intervals, the queue, and how long each has waited. No clock, no dice.

A probe is in the queue at most once, behind those that were due before; one that somebody wants to see goes
to the front. What waits there waits for a free prober: that is `probe_wait`, the time from due to asked.
Neighbours: `probes` (which asks what is taken from here), `settings_probe` (the tables). Knows no prober.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from ipc.circuit import NEVER
from supervisor.facts import ProbeWait
from supervisor.probe_watch import ERROR, PASSED, Probing
from supervisor.settings_probe import LATE_S, ProbeTable

BY_HAND_MAX: Final = 64
"""Probes that somebody waits for; beyond it one is refused."""


@dataclass(frozen=True, slots=True)
class Task:
    """One probe to be asked."""

    name: str
    """Of the breaker's table."""
    table: ProbeTable
    due: float
    """When it was due, s."""
    tickets: tuple[int, ...] = ()
    """Who waits for it; empty = the schedule."""


@dataclass(slots=True)
class _Row:
    """One table's place in the schedule."""

    table: ProbeTable
    due: float
    interval_s: float
    busy: bool = False
    """In the queue, or being asked."""
    bad: int = 0
    """Verdicts in a row that were no pass."""
    opened_at: float = NEVER
    wait: ProbeWait = field(default_factory=ProbeWait)


class Schedule:
    """All probes of the configuration. `dice` is drawn once for each time that is made."""

    def __init__(self, dice: Callable[[], float]) -> None:
        self._dice = dice
        self._rows: dict[str, _Row] = {}
        self._queue: deque[str] = deque()
        self._by_hand: dict[str, Task] = {}
        """In the order in which they were first wanted."""

    # --- what is configured, and what happens -----------------------------------------------------

    def configure(self, probes: Mapping[str, ProbeTable], now: float) -> None:
        """The tables in force; one that has not changed stays where it is, a new one is due soon."""
        before, self._rows = self._rows, {}
        for name, table in probes.items():
            known = before.get(name)
            if known is None or known.table.digest != table.digest:
                first = now + table.interval_s * table.jitter * self._dice()
                known = _Row(table, first, table.interval_s)
            self._rows[name] = known
        self._queue = deque(name for name in self._queue if name in self._rows and self._rows[name].busy)

    def follow(self, openings: Iterable[Probing], now: float) -> None:
        """Breakers opened: their probes come as often as at first, the next one soon. One that opened long
        ago, before this was configured or this daemon began, is due now: nobody has waited for it.
        """
        for told in openings:
            row = self._rows.get(told.table)
            if row is not None and told.open and told.opened_at > row.opened_at:
                row.opened_at = told.opened_at
                row.interval_s, row.bad = row.table.interval_s, 0
                row.due = min(row.due, max(now, told.opened_at + row.interval_s))

    def want(self, name: str, ticket: int, now: float) -> bool:
        """Somebody wants this probe now; False = too many do. Who wants the same one shares it."""
        waiting = self._by_hand.get(name)
        if waiting is None and len(self._by_hand) >= BY_HAND_MAX:
            return False
        tickets = (*waiting.tickets, ticket) if waiting is not None else (ticket,)
        due = waiting.due if waiting is not None else now
        self._by_hand[name] = Task(name, self._rows[name].table, due, tickets)
        return True

    def forget(self, before: float) -> tuple[int, ...]:
        """Nobody waits any longer for what was wanted before this time and was not asked; who did."""
        late = [task for task in self._by_hand.values() if task.due < before or task.name not in self._rows]
        for task in late:
            del self._by_hand[task.name]
        return tuple(ticket for task in late for ticket in task.tickets)

    # --- what is to be asked ----------------------------------------------------------------------

    def take(self, now: float) -> Task | None:
        """The next probe to be asked, for a prober that is free; None = none is due."""
        wanted = next((name for name in self._by_hand if name in self._rows), None)
        if wanted is not None:
            task = self._by_hand.pop(wanted)
            return Task(wanted, self._rows[wanted].table, task.due, task.tickets)
        self._fill(now)
        if not self._queue:
            return None
        name = self._queue.popleft()
        row = self._rows[name]
        waited_s = max(0.0, now - row.due)
        row.wait = ProbeWait(waited_s, max(row.wait.max_s, waited_s))
        return Task(name, row.table, row.due)

    def _fill(self, now: float) -> None:
        """Put into the queue what has become due, in the order in which it did."""
        due = [(row.due, name) for name, row in self._rows.items() if not row.busy and row.due <= now]
        for _, name in sorted(due):
            self._rows[name].busy = True
            self._queue.append(name)

    def ended(self, task: Task, verdict: str, started: float, now: float) -> None:
        """A verdict came: when is it due again? The interval counts from the start of one to that of the
        next; after `fall` verdicts in a row that were no pass it grows, after one from a dead prober at once.
        """
        row = self._rows.get(task.name)
        if row is None or row.table.digest != task.table.digest:
            return
        table = row.table
        if verdict == PASSED:
            row.bad, row.interval_s = 0, table.interval_s
        else:
            row.bad += 1
            if row.bad >= table.fall or verdict == ERROR:
                row.interval_s = min(2.0 * row.interval_s, table.interval_max_s)
        if task.tickets and row.busy:
            return  # the schedule's own is under way
        row.busy = False
        row.due = max(now, started + row.interval_s * (1.0 + table.jitter * self._dice()))

    def awaited_s(self, name: str, now: float) -> float:
        """Within how many seconds the next verdict must come: in twice the time that it ought to take, since
        on a busy machine a probe is late and not silent.
        """
        row = self._rows.get(name)
        if row is None:
            return 0.0
        return 2.0 * (max(0.0, row.due - now) + row.wait.last_s + row.table.timeout_s + LATE_S)

    def put_back(self, task: Task) -> None:
        """It could not be asked, for want of a prober: it is the next one."""
        row = self._rows.get(task.name)
        if task.tickets:
            self._by_hand = {task.name: task, **self._by_hand}
        elif row is not None and row.busy and task.name not in self._queue:
            self._queue.appendleft(task.name)

    def release(self) -> None:
        """Nothing is being asked any more, whatever was: all of it is due when it would be."""
        self._queue.clear()
        for row in self._rows.values():
            row.busy = False

    # --- what is shown ----------------------------------------------------------------------------

    def names(self) -> tuple[str, ...]:
        """Every table that has a probe."""
        return tuple(self._rows)

    def timeout_max_s(self) -> float:
        """The longest time that any probe may take."""
        return max((row.table.timeout_s for row in self._rows.values()), default=0.0)

    def waits(self, now: float) -> dict[str, ProbeWait]:
        """By table: the last wait, or the present one if it is longer, and the longest so far."""
        found = {name: row.wait for name, row in self._rows.items()}
        self._fill(now)
        for name in self._queue:
            present = max(0.0, now - self._rows[name].due)
            wait = found[name]
            found[name] = ProbeWait(max(wait.last_s, present), max(wait.max_s, present))
        return found
