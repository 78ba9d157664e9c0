"""What a process decides by itself: all rows while nobody else does, and those that a supervisor refuses.

A supervisor that has no room for a breaker shows ALONE in its row. The process then protects the row as it
would without a supervisor, writes the row's words itself, and tells the outcomes as tallies, which the
supervisor counts as refused. Neighbours: `local` (the machine), `outlet`, `link` (says who decides).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ipc import layout as at
from ipc.breaker import Grant, Observation
from ipc.local import PARTY, LocalMachine
from ipc.logbook import warn
from ipc.outlet import Outlet
from ipc.vocabulary import BreakerSettings, BreakerState, OutcomeKind


class Declared(NamedTuple):
    """A row that is a breaker."""

    name: str
    settings: BreakerSettings


class Fallback(Outlet):
    """The deciding side of a link."""

    clock: Callable[[], float]
    chance: Callable[[], float]
    breakers: dict[int, Declared]
    machine: LocalMachine
    board: memoryview[int]
    holds: dict[int, tuple[float, int | None]]
    """Rows that are refused until then (s) although the supervisor's board may admit: they were opened here
    before it decided. And the generation that its board showed first."""
    local: bool
    """The local machine decides; else the supervisor."""
    fresh_until: float
    """When the link wants to be looked after, s: always before a stale heartbeat could go unseen."""

    def _refuse_none(self, board: memoryview[int]) -> None:
        self.refused = LocalMachine(self.chance, board)
        """Decides about the rows that the supervisor does not take. It writes their words on its board."""

    def failure_count(self, row: int) -> int:
        """Failures since the last success, of a row about which this process decides."""
        return self._judge(row).failure_count(row)

    def ask_here(self, row: int, ask: int, now: float) -> Grant | None:
        """A trial's permit from the local machine."""
        return self._gate.run(self._judge(row).ask, row, ask, now)

    def _feed(self, row: int, kind: OutcomeKind, generation: int, permit: int | None, end: float) -> bool:
        """Let a machine of ours judge what only the tallies hold."""
        seen = Observation(PARTY, kind, generation, -1 if permit is None else permit & 63, end, 1)
        machine = self._judge(row)
        machine.observe(row, seen, self.clock())
        self.fresh_until = min(self.fresh_until, machine.next_time())
        return True

    def decides(self, row: int) -> bool:
        """True if this process decides about this row, whoever decides about the others."""
        return self.local or row in self.refused

    def _judge(self, row: int) -> LocalMachine:
        return self.refused if not self.local and row in self.refused else self.machine

    def held_until(self, row: int, word: int, now: float) -> float:
        """Until when this row is refused for what was decided here before (s); 0.0 = it is not.

        What the supervisor decides later ends it: a breaker that has moved on, or that admits all.
        """
        until, first = self.holds.get(row, (0.0, None))
        if until <= now or self.decides(row):
            return 0.0
        state, generation, _, _ = at.unpack_row(word)
        if word and first is None:
            self.holds[row] = until, generation
        elif word and generation != first:
            return 0.0
        return 0.0 if state in (BreakerState.DISABLED, BreakerState.METRICS_ONLY) else until

    def release(self, row: int) -> None:
        """A verb was carried out: what was decided here before is over."""
        self.holds.pop(row, None)

    def retire(self, row: int, word: int) -> None:
        """Nobody means this row any more: it shows this word for ever to whoever still looks at it."""
        self._gate.run(self._retire, row, word)

    def _retire(self, row: int, word: int) -> bool:
        self.breakers.pop(row, None)
        self.refused.retire(row, word)
        self.machine.retire(row, word)
        self.board[row] = word
        return True

    def decide_alone(self, row: int) -> int:
        """The supervisor does not take this row: protect as without it. Gives the board's word of now."""
        if self._gate.run(self._decide_alone, row):
            text = "the supervisor has no room for breaker %s: this process decides about it alone"
            warn(text, self.breakers[row].name)
        return self.board[row]

    def _decide_alone(self, row: int) -> bool:
        """True if this is the first such row. Begins with what we knew of it before we were attached."""
        first = not list(self.refused)
        if self.board[row] == at.ALONE and not self.refused.move_here(self.refused, row):
            if not self.refused.move_here(self.machine, row):
                declared = self.breakers[row]
                self.refused.add(row, declared.name, declared.settings, 0, self.clock())
            return first
        return False

    def _put_alone(
        self, row: int, kind: OutcomeKind, generation: int, permit: int | None, end: float
    ) -> None:
        """An outcome of such a row: counted by the supervisor among what it refused, judged by us."""
        self.tally(row, kind)
        self._gate.run(self._feed, row, kind, generation, permit, end)
        self._tell()

    def _tell(self) -> None:
        """Log what the local machine decided; outside the gate, because handlers may be anything."""
        if not (self.machine.changes or self.refused.changes):
            return
        for change in self.machine.take_changes() + self.refused.take_changes():
            moved = change.transition
            text = "breaker %s: %s -> %s: %s (decided by this process alone)"
            warn(text, change.name or "without a name", moved.old.name, moved.new.name, moved.cause)
