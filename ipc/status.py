"""What can be read of a breaker, and the parts that it is made of. Changes nothing.

Neighbours: `breaker` (which adds everything that happens to it), `layout` (the board word).
"""

from __future__ import annotations

from collections.abc import Mapping

from ipc import window as rolling
from ipc.circuit import Circuit
from ipc.circuits import Circuits
from ipc.evidence import Evidence
from ipc.facts import Manual, Totals, Transition
from ipc.layout import pack_ramp, pack_row
from ipc.permits import Lease
from ipc.trials import Trials
from ipc.vocabulary import BreakerSettings, BreakerState


class BreakerStatus:
    """The parts of one breaker, and how they are read; every time is as of the last call that told one."""

    __slots__ = (
        "_circuits",
        "_now",
        "_would_until",
        "evidence",
        "manual",
        "revision",
        "trials",
        "would_open_total",
    )

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        self._circuits = Circuits(settings, now)
        self.evidence = Evidence(settings)
        self.trials = Trials(self._circuits, self.evidence)
        self.manual: Manual | None = None
        self.would_open_total = 0
        """Openings that METRICS_ONLY kept from happening."""
        self.revision = 0
        """Goes up whenever a board word may have changed."""
        self._now = now
        self._would_until: dict[str, float] = {}
        """METRICS_ONLY: until when a scope would be open by now, so would not open again."""

    @property
    def settings(self) -> BreakerSettings:
        """The settings that it judges by."""
        return self._circuits.settings

    @property
    def transitions(self) -> list[Transition]:
        """What happened since the last `take_transitions`, in order."""
        return self._circuits.transitions

    @property
    def host(self) -> Circuit:
        """The circuit that every party follows which is not isolated."""
        return self._circuits.host

    @property
    def isolated(self) -> Mapping[str, Circuit]:
        """The circuits of isolated parties, each alone."""
        return self._circuits.isolated

    @property
    def opened_total(self) -> int:
        """How often the host's circuit opened, from CLOSED or from HALF_OPEN."""
        return self._circuits.opened_total

    @property
    def isolated_total(self) -> int:
        """How often a party was isolated."""
        return self._circuits.isolated_total

    @property
    def host_run(self) -> int:
        """Failures since the last success of anybody."""
        return self.evidence.host_run

    @property
    def totals(self) -> Totals:
        """What the shared window holds, as of the last time that this breaker was told."""
        window = self.evidence.window
        window.roll(self._now)
        totals = window.totals
        return Totals(rolling.calls(totals), rolling.failures(totals), rolling.slow(totals))

    @property
    def generation(self) -> int:
        """The host circuit's generation."""
        return self.host.generation

    @property
    def since(self) -> float:
        """When the host circuit's generation began, s."""
        return self.host.since

    @property
    def until(self) -> float:
        """When the host circuit's state ends by itself, s; FOREVER = it does not."""
        return self.host.until

    @property
    def ramp(self) -> tuple[float, float] | None:
        """When the host's ramp ends and how long it is, both in s; None = there is none, or it is over."""
        host = self.host
        return (host.ramp_until, host.ramp_s) if host.ramp_s and host.ramp_until > self._now else None

    @property
    def leases(self) -> Mapping[int, Lease]:
        """The live permits, over all circuits."""
        return self.trials.leases.live

    @property
    def trials_passed(self) -> int:
        """Successful trials of the host circuit's present, or last successful, half-open period."""
        return sum(self.host.passed.values())

    def state_of(self, party: str = "") -> BreakerState:
        """What this party's calls meet; "" = the host's circuit."""
        return self._circuits.of(party).state

    def word(self, party: str) -> int:
        """The board word for this party as of the last time that this breaker was told."""
        circuit = self._circuits.of(party)
        if circuit.state is BreakerState.CLOSED:
            return pack_ramp(circuit.generation, circuit.ramp_until, circuit.ramp_s)
        refuses = circuit.state is BreakerState.OPEN or circuit.state is BreakerState.FORCED_OPEN
        until = circuit.until if refuses else 0.0
        permits_left = self.trials.may_have(party, self._now)
        return pack_row(circuit.state, circuit.generation, until, permits_left)

    def next_time(self) -> float:
        """When `advance` must be called next, s; FOREVER = nothing happens by time alone."""
        return min(self._circuits.next_time(), self.trials.next_time(self._now))

    def take_transitions(self) -> list[Transition]:
        """The transitions since the last call, in order."""
        taken, self._circuits.transitions = self._circuits.transitions, []
        return taken
