"""All circuits of one breaker: the host's, one for each isolated party, one counter of generations.

Neighbours: `circuit` (one of them, and the table), `breaker` (which says what happens to which).
Knows no outcomes and no permits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ipc.circuit import Circuit, Event
from ipc.facts import Cause, Transition
from ipc.vocabulary import BreakerSettings, BreakerState

WAYS: Final[Mapping[BreakerState, tuple[Event, ...]]] = {
    BreakerState.CLOSED: (),
    BreakerState.OPEN: (Event.TRIP,),
    BreakerState.HALF_OPEN: (Event.TRIP, Event.OPEN_TIME_OVER),
    BreakerState.FORCED_OPEN: (Event.FORCE_OPEN,),
    BreakerState.DISABLED: (Event.DISABLE,),
    BreakerState.METRICS_ONLY: (Event.METRICS_ONLY,),
}
"""The events that lead from CLOSED to each state."""


class Circuits:
    """Who follows which circuit; every move of any of them takes the next generation and is noted."""

    __slots__ = (
        "generation",
        "host",
        "isolated",
        "isolated_total",
        "opened_total",
        "settings",
        "transitions",
    )

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        self.settings = settings
        self.host = Circuit(0, now)
        self.isolated: dict[str, Circuit] = {}
        self.generation = 0
        """The newest generation of any circuit."""
        self.transitions: list[Transition] = []
        self.opened_total = 0
        self.isolated_total = 0

    def of(self, party: str) -> Circuit:
        """The circuit that this party follows."""
        return self.isolated.get(party, self.host)

    def scope(self, party: str) -> str:
        """The name of that circuit: "" = the host's."""
        return party if party in self.isolated else ""

    def move(self, scope: str, event: Event, why: Cause, now: float, chance: float) -> None:
        """Let `event` happen to the circuit of `scope`; when the host's opens, everybody follows it.

        An isolated circuit that closes is dissolved: its party follows the host again.
        """
        circuit = self.isolated[scope] if scope else self.host
        self.generation += 1
        old = circuit.fire(event, self.generation, now, self.settings, chance)
        new = circuit.state
        if scope and new is BreakerState.CLOSED:
            del self.isolated[scope]
        elif not scope and (new is not BreakerState.CLOSED or event is Event.RESET):
            self.isolated.clear()
            self.opened_total += new is BreakerState.OPEN
        self.transitions.append(Transition(scope, old, new, self.generation, why.text, why.party))

    def isolate(self, party: str, now: float) -> None:
        """Give the party a circuit of its own, still CLOSED."""
        self.isolated[party] = Circuit(self.host.generation, now)
        self.isolated_total += 1

    def open_until(self, now: float) -> list[str]:
        """The scopes that are OPEN and whose open time is over at `now`."""
        over = [""] if self.host.state is BreakerState.OPEN and self.host.until <= now else []
        return over + [party for party, circuit in self.isolated.items() if circuit.until <= now]

    def next_time(self) -> float:
        """When the state of one of them ends by itself, s; FOREVER = none does."""
        return min((circuit.until for circuit in self.isolated.values()), default=self.host.until)

    def adopt(self, state: BreakerState, until: float, why: Cause, now: float) -> None:
        """Begin anew in a state that was last seen elsewhere; `until` (s) is when it ends by itself."""
        self.isolated.clear()
        self.host = Circuit(self.generation, now)
        for event in WAYS[state]:
            self.move("", event, why, now, chance=0.0)
        if state not in (BreakerState.CLOSED, BreakerState.HALF_OPEN):
            self.host.extend(until)

    def shift(self, delta: float) -> None:
        """Move every stored time by `delta` seconds."""
        self.host.shift(delta)
        for circuit in self.isolated.values():
            circuit.shift(delta)

    def to_plain(self) -> list[Any]:
        """As JSON values; transitions that nobody took are not kept."""
        isolated = [[party, circuit.to_plain()] for party, circuit in self.isolated.items()]
        return [self.host.to_plain(), isolated, self.generation, self.opened_total, self.isolated_total]

    @classmethod
    def from_plain(cls, settings: BreakerSettings, plain: list[Any]) -> Circuits:
        """The circuits that `to_plain` wrote."""
        circuits = cls(settings, 0.0)
        host, isolated, circuits.generation, circuits.opened_total, circuits.isolated_total = plain
        circuits.host = Circuit.from_plain(host)
        circuits.isolated = {party: Circuit.from_plain(circuit) for party, circuit in isolated}
        return circuits
