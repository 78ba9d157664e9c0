"""The supervisor of one process by itself: the same state machine, fed from the process's own ring.

It decides where no supervisor does: never attached, or attached and the heartbeat is stale. It starts
from the last board words, lets one trial run at a time, and publishes on a board of its own.
Neighbours: `breaker` (the rules), `ring` (what was put), `link` (which calls it, under its gate, and
passes the time). Knows no clock, no lock and no socket.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, NamedTuple

from ipc import layout as at
from ipc.breaker import Breaker, Grant, Observation, Transition
from ipc.circuit import NEVER, generation_code
from ipc.ring import NO_EPOCH, Part, slices
from ipc.vocabulary import FOREVER, BreakerSettings, BreakerState, OutcomeKind, Verb

WHO: Final = "this process"
"""Who commands a local breaker."""
PARTY: Final = "self"
"""The one party of a local breaker."""
LOCAL_MARK: Final = at.PERMITS_BIT
"""Set in every local board word but a half-open one, so that it never equals a supervisor's word."""
STEP_S: Final = 1.0 / at.END_STEPS_PER_S
"""Ends are told in these steps; the machine's own time moves in them too, so that an outcome that was
put after a decision never looks older than it."""

AHEAD: Final = 64
"""Words of a run that are compared at once."""
_RUN: Final = 22
"""Words that agree from this bit on are of one code, generation, row and eighth of a second."""


class Change(NamedTuple):
    """A state change or a would-be opening of one local breaker, to be logged."""

    name: str
    transition: Transition


def on_grid(now: float) -> float:
    """`now` rounded down to a step of an end."""
    return now // STEP_S * STEP_S


def _forced_here(breaker: Breaker) -> bool:
    """True if this process was told to admit nothing; what a supervisor was told it knows itself."""
    manual = breaker.manual
    return breaker.state_of() is BreakerState.FORCED_OPEN and manual is not None and manual.who == WHO


class LocalMachine:
    """The local breakers of one link, by row; `board` is what admission reads while they decide."""

    __slots__ = ("_breakers", "_chance", "_codes", "_names", "_next", "_told", "board", "changes", "states")

    def __init__(self, chance: Callable[[], float], board: memoryview[int] | None = None) -> None:
        memory = memoryview(bytearray(8 * at.ROWS)) if board is None else board.cast("B")
        self.board, self.states = memory.cast("Q"), memory.cast("d")
        self.changes: list[Change] = []
        """What happened since somebody took it."""
        self._breakers: dict[int, Breaker] = {}
        self._names: dict[int, str] = {}
        self._codes: dict[int, int] = {}
        """The supervisor's generation code that is current while a row is still as it was taken over."""
        self._told: set[int] = set()
        """Rows whose outcomes are told by `observe` alone: what the ring has of them is of before."""
        self._next = FOREVER
        """Nothing is due before this, s. While a breaker is told something it is NEVER, and it stays so if an
        exception comes in between: then all are looked at."""
        self._chance = chance

    def add(self, row: int, name: str, settings: BreakerSettings, word: int, now: float) -> None:
        """Decide about this row from now on, starting from its last board word (0 = none was seen).

        What ended in the window before now and was never judged still counts, so it begins long ago.
        """
        if row in self._breakers:
            return
        known, self._next = self._next, NEVER
        state, generation, until, _ = at.unpack_row(word)
        breaker = Breaker(replace(settings, permitted_trials=1), 0.0)
        self._breakers[row], self._names[row] = breaker, name
        self._codes[row] = generation_code(generation)
        self._take_over(breaker, state, until, on_grid(now))
        if state is BreakerState.CLOSED:
            breaker.host.climb(*at.unpack_ramp(word))
        breaker.take_transitions()  # taking over is no change of state
        self._publish(row, breaker)
        self._next = min(known, breaker.next_time())

    def _take_over(self, breaker: Breaker, state: BreakerState, until: float, now: float) -> None:
        """Put a new breaker into the state in which the board left it; the first trials are spread."""
        spread = breaker.settings.recovery_jitter * breaker.settings.recovery_timeout * self._chance()
        if state is BreakerState.OPEN:
            breaker.adopt(state, max(until, now) + spread, now)
        elif state is BreakerState.HALF_OPEN:
            breaker.adopt(BreakerState.OPEN, now + spread, now)
        elif state is not BreakerState.CLOSED:
            breaker.adopt(state, until or FOREVER, now)

    def move_here(self, other: LocalMachine, row: int) -> bool:
        """Decide about a row as another machine did, with all that it has seen; False = it knows none."""
        breaker = other._breakers.get(row)
        if breaker is None:
            return False
        self._breakers[row], self._names[row] = breaker, other._names[row]
        self._told.add(row)
        self._publish(row, breaker)
        self._next = min(self._next, breaker.next_time())
        return True

    def retire(self, row: int, word: int) -> None:
        """Decide about this row no more; its board shows this word from now on."""
        self._breakers.pop(row, None)
        self.board[row] = word

    def __contains__(self, row: int) -> bool:
        """Whether it decides about this row."""
        return row in self._breakers

    def __iter__(self) -> Iterator[int]:
        """The rows that it decides about."""
        return iter(tuple(self._breakers))

    def take(self, parts: list[Part], now: float) -> None:
        """Judge what the process put, in the order in which it did."""
        for part in parts:
            for epoch, words in slices(part):
                self._take_block(float(epoch) if epoch != NO_EPOCH else None, words, now)

    def _take_block(self, epoch: float | None, words: list[int], now: float) -> None:
        """Words of one block; a run of equal quick successes within an eighth of a second is one step."""
        index, last = 0, len(words)
        while index < last:
            word = words[index]
            count = 1
            if word >> at.CODE_SHIFT == at.FAST_SUCCESS:
                ahead = words[index : index + AHEAD]
                if min(ahead) >> _RUN == max(ahead) >> _RUN:  # so is everything in between
                    count = len(ahead)
                while index + count < last and words[index + count] >> _RUN == word >> _RUN:
                    count += 1
                word = words[index + count - 1]
            index += count
            code = at.CODES[word >> at.CODE_SHIFT]
            if code is not None and code.kind is not OutcomeKind.COUNT:
                end = now if epoch is None else epoch + (word >> at.END_SHIFT & at.END_MASK) * STEP_S
                generation = word >> at.GENERATION_SHIFT & 15
                permit = -1 if code.permit is None else code.permit
                seen = Observation(PARTY, code.kind, generation, permit, end, count)
                row = word >> at.ROW_SHIFT & at.ROW_MASK
                if row not in self._told:
                    self.observe(row, seen, now)

    def observe(self, row: int, seen: Observation, now: float) -> None:
        """Judge one outcome (or a run of them). Generation code 0 is of this machine's own admissions."""
        breaker = self._breakers.get(row)
        if breaker is None:
            return
        own = generation_code(breaker.generation)
        if seen.generation == 0 or seen.generation == self._codes.get(row):
            seen = replace(seen, generation=own)
        known, self._next = self._next, NEVER
        breaker.observe(seen, on_grid(now), self._chance())
        self._settle(row, breaker)
        self._next = min(known, breaker.next_time())

    def advance(self, now: float) -> None:
        """Let time pass: open times, leases and manual states end."""
        now = on_grid(now)
        if now < self._next:
            return
        soonest = FOREVER
        for row, breaker in self._breakers.items():
            if breaker.next_time() <= now:
                breaker.advance(now, self._chance())
                self._settle(row, breaker)
            soonest = min(soonest, breaker.next_time())
        self._next = soonest

    def next_time(self) -> float:
        """When `advance` may have something to do, at the earliest; FOREVER = never."""
        return self._next

    def ask(self, row: int, ask: int, now: float) -> Grant | None:
        """A permit for a trial, or None."""
        breaker = self._breakers[row]
        known, self._next = self._next, NEVER
        grant = breaker.ask(PARTY, ask, on_grid(now))
        self._settle(row, breaker)
        self._next = min(known, breaker.next_time())
        return grant

    def command(self, row: int, verb: Verb, until: float, reason: str, now: float) -> None:
        """What an operator's verb does; `until` FOREVER = until it is changed."""
        breaker = self._breakers[row]
        known, self._next = self._next, NEVER
        breaker.command(verb, until, WHO, reason, on_grid(now))
        self._settle(row, breaker)
        self._next = min(known, breaker.next_time())

    def failure_count(self, row: int) -> int:
        """Failures since the last success."""
        breaker = self._breakers.get(row)
        return breaker.host_run if breaker else 0

    def generation(self, row: int) -> int:
        """The generation of a row's local breaker."""
        return self._breakers[row].generation

    def open_until(self) -> dict[int, float]:
        """The rows that admit nothing and when that ends: kept when a supervisor takes over."""
        return {
            row: breaker.until
            for row, breaker in self._breakers.items()
            if breaker.state_of() is BreakerState.OPEN or _forced_here(breaker)
        }

    def take_changes(self) -> list[Change]:
        """What happened since the last call."""
        taken, self.changes = self.changes, []
        return taken

    def _settle(self, row: int, breaker: Breaker) -> None:
        """Publish, and keep what happened for the log."""
        for transition in breaker.take_transitions():
            self._codes.pop(row, None)
            self.changes.append(Change(self._names[row], transition))
        self._publish(row, breaker)

    def _publish(self, row: int, breaker: Breaker) -> None:
        word = breaker.word(PARTY)
        if word >> 61 != BreakerState.HALF_OPEN:
            word |= LOCAL_MARK
        self.board[row] = word
