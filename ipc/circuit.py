"""One circuit: the table of its states, and the one method that writes a state.

A breaker has a circuit for the host and one for each isolated worker; both move by this table and by
nothing else. Neighbours: `vocabulary` (the states), `breaker` (which decides what happened). Knows no
outcomes, no permits, no clock and no chance: both are passed in.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from ipc.vocabulary import FOREVER, BreakerSettings, BreakerState

GENERATION_CODES: Final = 15
"""An outcome carries its generation as 1 to 15; generations this far apart look the same in it."""
GOLDEN: Final = 0.6180339887498949
"""Spreads one drawn chance over many uses: its multiples, less whole numbers, fill [0, 1) evenly."""
RAMP_FIRST: Final = 0.1
"""The share of calls that is let in when a ramp begins."""
NEVER: Final = float("-inf")
GROWTH_MAX: Final = 64
"""Steps of growth remembered; the open time has reached its maximum long before."""


class Event(enum.IntEnum):
    """What may happen to a circuit."""

    TRIP = 1
    """A rule about outcomes says that the dependency is down."""
    OPEN_TIME_OVER = 2
    TRIALS_PASSED = 3
    TRIAL_FAILED = 4
    FORCE_OPEN = 5
    DISABLE = 6
    METRICS_ONLY = 7
    RESET = 8
    ENABLE = 9
    """A manual state ends, by the verb or by itself."""


_C, _O, _H = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
_F, _D, _M = BreakerState.FORCED_OPEN, BreakerState.DISABLED, BreakerState.METRICS_ONLY

_ROWS: Final[dict[BreakerState, tuple[BreakerState, ...]]] = {
    # TRIP, OPEN_TIME_OVER, TRIALS_PASSED, TRIAL_FAILED, FORCE_OPEN, DISABLE, METRICS_ONLY, RESET, ENABLE
    _C: (_O, _C, _C, _C, _F, _D, _M, _C, _C),
    _O: (_O, _H, _O, _O, _F, _D, _M, _C, _O),
    _H: (_H, _H, _C, _O, _F, _D, _M, _C, _H),
    _F: (_F, _F, _F, _F, _F, _D, _M, _C, _H),
    _D: (_D, _D, _D, _D, _F, _D, _M, _C, _C),
    _M: (_M, _M, _M, _M, _F, _D, _M, _C, _C),
}

TABLE: Final[Mapping[tuple[BreakerState, Event], BreakerState]] = MappingProxyType(
    {(state, event): row[event - 1] for state, row in _ROWS.items() for event in Event}
)
"""Where each event leads from each state: every pair is present; staying is written down too."""


def diagram() -> str:
    """The table as text: a block per state, a line per way out of it. ARCHITECTURE.md shows it."""
    lines: list[str] = []
    for state in BreakerState:
        exits: dict[BreakerState, list[str]] = {}
        for event in Event:
            target = TABLE[state, event]
            if target is not state:
                exits.setdefault(target, []).append(event.name.lower().replace("_", " "))
        lines.append(state.name)
        for number, target in enumerate(sorted(exits)):
            branch = "└──" if number == len(exits) - 1 else "├──"
            lines.append(f"  {branch} {' | '.join(exits[target])} ──> {target.name}")
    return "\n".join(lines) + "\n"


def generation_code(generation: int) -> int:
    """The generation as an outcome word carries it, 1 to 15; 0 is left for local outcomes."""
    return generation % GENERATION_CODES + 1


def open_time_s(settings: BreakerSettings, growth: int, chance: float) -> float:
    """Seconds that a circuit stays open after `growth` failed recoveries; `chance` in [0, 1) is jitter."""
    grown = settings.recovery_timeout * settings.recovery_growth**growth
    return min(settings.recovery_timeout_max, grown) * (1.0 + settings.recovery_jitter * chance)


def ramp_share(left_s: float, length_s: float) -> float:
    """The share of calls that a ramp of that length lets in when so much of it is left: RAMP_FIRST to 1."""
    return 1.0 - (1.0 - RAMP_FIRST) * min(1.0, left_s / length_s)


class Circuit:
    """State, generation and times of one circuit, and what its present half-open period has seen.

    Attributes are read by everybody and written by the methods here alone.
    """

    __slots__ = (
        "_until",
        "awaited",
        "began",
        "generation",
        "growth",
        "growth_from",
        "had",
        "last_grant",
        "passed",
        "ramp_s",
        "ramp_until",
        "since",
        "state",
        "vouched",
    )

    def __init__(self, generation: int, now: float) -> None:
        self.state = BreakerState.CLOSED
        self.generation = generation
        self.since = now
        """When the generation began, s."""
        self._until = FOREVER
        self.awaited = NEVER
        """Until when a probe's next word is awaited, s: no open time ends before, unless it vouches."""
        self.vouched = FOREVER
        """Since when a probe vouches for the dependency that this open time refuses, s."""
        self.growth = 0
        """Failed recoveries that still lengthen the open time: n of the design."""
        self.growth_from = now
        """From when on time spent CLOSED takes growth back, s."""
        self.had: set[str] = set()
        """The parties that were given a permit in this half-open period."""
        self.began = now
        """When the half-open period was due, s: the open time was over, told or not."""
        self.last_grant = now
        """When the last permit was given, else when the period began, s."""
        self.passed: dict[str, int] = {}
        """Successful trials by party, of the half-open period that is or, when CLOSED, was the last."""
        self.ramp_until = self.ramp_s = 0.0
        """CLOSED by trials: when the ramp ends or ended, s, and how long it is; 0.0 = there is none."""

    @property
    def until(self) -> float:
        """When the state ends by itself, s; FOREVER = it does not."""
        if self.state is not BreakerState.OPEN:
            return self._until
        return max(self._until, min(self.awaited, self.vouched))

    def gate(self, awaited: float, vouched: bool, now: float) -> None:
        """A probe spoke and its next word is awaited until then (s; NEVER = there is none).

        While it vouches nobody waits for it; an opening that follows no failed recovery is over with that.
        """
        self.awaited = awaited
        if self.state is BreakerState.OPEN:
            self.vouched = now if vouched else FOREVER
            if vouched and not self.growth:
                self._until = min(self._until, now)

    def held(self, now: float) -> bool:
        """OPEN, and not by its own open time alone: a probe that does not vouch is awaited."""
        return self.state is BreakerState.OPEN and self.awaited > now and self.vouched == FOREVER

    def why_over(self) -> str:
        """Why the open time ends, in words."""
        if self.vouched < FOREVER:
            return "its probe passes, and the open time is over" if self.growth else "its probe passes"
        silent = self.awaited > self._until
        return "the open time is over, and its probe says nothing" if silent else "the open time is over"

    def fire(
        self, event: Event, generation: int, now: float, settings: BreakerSettings, chance: float
    ) -> BreakerState:
        """Move by the table and return the old state: the only place where a state is written.

        `generation` becomes current. A circuit that opens gets the end of its open time, with `chance`
        in [0, 1) as its jitter; other states end by themselves only when `extend` says so.
        """
        old, due = self.state, self.until
        self._settle_growth(event, now, settings)
        self.state = new = TABLE[old, event]
        self.generation = generation
        self.since = self.growth_from = now
        if new is BreakerState.HALF_OPEN:
            self.had.clear()
            self.began = self.last_grant = min(now, due)
        opens = new is BreakerState.OPEN
        self._until = now + open_time_s(settings, self.growth, chance) if opens else FOREVER
        self.vouched = FOREVER
        ramps = event is Event.TRIALS_PASSED and new is BreakerState.CLOSED and settings.ramp_s > 0.0
        self.climb(now + settings.ramp_s if ramps else 0.0, settings.ramp_s if ramps else 0.0)
        if new is not BreakerState.CLOSED or event is Event.RESET:
            self.passed.clear()
        return old

    def _settle_growth(self, event: Event, now: float, settings: BreakerSettings) -> None:
        """What time and this event do to the growth, before the state changes.

        It stops where the open time has reached its maximum: what cannot be felt need not be taken back.
        """
        self.settle_growth(settings.recovery_timeout, now)
        if event is Event.RESET:
            self.growth = 0
        elif self._failed_to_recover(event, now, settings):
            grown = settings.recovery_timeout * settings.recovery_growth**self.growth
            if grown < settings.recovery_timeout_max and self.growth < GROWTH_MAX:
                self.growth += 1

    def _failed_to_recover(self, event: Event, now: float, settings: BreakerSettings) -> bool:
        """A trial failed; or trials closed it, and it opens again before a first open time has passed."""
        if event is Event.TRIP and self.state is BreakerState.CLOSED:
            return bool(self.passed) and now - self.since < settings.recovery_timeout
        return event is Event.TRIAL_FAILED and self.state is BreakerState.HALF_OPEN

    def settle_growth(self, recovery_timeout: float, now: float) -> None:
        """Take one step of growth back for each full `recovery_timeout` (s) spent CLOSED until now."""
        if self.state is not BreakerState.CLOSED or not self.growth:
            self.growth_from = now
            return
        steps = math.floor((now - self.growth_from) / recovery_timeout)
        if steps > 0:
            self.growth = max(0, self.growth - steps)
            self.growth_from += steps * recovery_timeout

    def granted(self, party: str, now: float) -> None:
        """A permit of this period was given to `party`."""
        self.had.add(party)
        self.last_grant = now

    def passed_trial(self, party: str) -> int:
        """A trial of `party` succeeded; returns how many of all parties did in this period."""
        self.passed[party] = self.passed.get(party, 0) + 1
        return sum(self.passed.values())

    def passed_by_others(self, party: str) -> int:
        """Successful trials of this period that were not of `party`."""
        return sum(count for other, count in self.passed.items() if other != party)

    def extend(self, until: float) -> None:
        """The present state ends by itself at `until` instead."""
        self._until = until

    def climb(self, until: float, length_s: float) -> None:
        """CLOSED lets more and more in until then: a ramp of that length, begun here or elsewhere."""
        self.ramp_until, self.ramp_s = until, length_s

    def shift(self, delta: float) -> None:
        """Move every stored time by `delta` seconds."""
        self.since += delta
        self._until += delta
        self.awaited += delta
        self.ramp_until += delta if self.ramp_s else 0.0
        self.vouched += delta
        self.growth_from += delta
        self.began += delta
        self.last_grant += delta

    def to_plain(self) -> list[Any]:
        """As JSON values."""
        until = None if self._until == FOREVER else self._until
        return [
            int(self.state),
            self.generation,
            self.since,
            until,
            self.growth,
            self.growth_from,
            sorted(self.had),
            self.began,
            self.last_grant,
            sorted(self.passed.items()),
            None if self.awaited == NEVER else self.awaited,
            None if self.vouched == FOREVER else self.vouched,
            self.ramp_until,
            self.ramp_s,
        ]

    @classmethod
    def from_plain(cls, plain: list[Any]) -> Circuit:
        """The circuit that `to_plain` wrote."""
        state, generation, since, until, growth, growth_from, had, *rest = plain
        began, last_grant, passed, awaited, vouched, *ramp = rest
        circuit = cls(generation, since)
        circuit.state = BreakerState(state)
        circuit._until = FOREVER if until is None else until
        circuit.growth, circuit.growth_from = growth, growth_from
        circuit.had = set(had)
        circuit.began, circuit.last_grant = began, last_grant
        circuit.passed = dict(passed)
        circuit.awaited = NEVER if awaited is None else awaited
        circuit.vouched = FOREVER if vouched is None else vouched
        circuit.climb(*ramp)
        return circuit
