"""Who may run a trial now: the parties of one breaker, their permits and their turns.

Neighbours: `permits` (the leases), `circuits` and `evidence` (read only: who is half-open, who was
failing), `breaker` (which owns all of them and judges how trials end). Knows no outcome and no clock.
"""

from __future__ import annotations

from typing import Any, Final

from ipc.circuit import Circuit
from ipc.circuits import Circuits
from ipc.evidence import Evidence
from ipc.facts import Grant
from ipc.permits import LEASE_GRACE_S, Lease, Leases
from ipc.vocabulary import BreakerSettings, BreakerState

TURN_S: Final = 0.25
"""After so many seconds without a grant a party may have a second permit before others had their first."""
PATIENCE_SHARE: Final = 0.25
"""Share of `recovery_timeout` for which a suspect leaves the trials to others (`trial_timeout` at most)."""


class Trials:
    """The permits of one breaker, over all its circuits, and the order in which parties get them."""

    __slots__ = ("circuits", "evidence", "leases", "members")

    def __init__(self, circuits: Circuits, evidence: Evidence) -> None:
        self.circuits = circuits
        self.evidence = evidence
        self.leases = Leases()
        self.members: set[str] = set()
        """The parties that use this breaker."""

    @property
    def settings(self) -> BreakerSettings:
        """The breaker's present settings."""
        return self.circuits.settings

    def ask(self, party: str, ask: int, now: float) -> Grant | None:
        """A permit for one trial of `party`, or None; the same `ask` again gets the same permit again."""
        if self.leases.answered(party, ask):
            known = self.leases.given(party)
            return None if known is None else Grant(known.permit, known.generation, known.until)
        circuit = self.circuits.of(party)
        if not self.may_have(party, now):
            return None
        until = now + self.settings.trial_timeout + LEASE_GRACE_S
        lease = self.leases.grant(party, ask, circuit.generation, until)
        circuit.granted(party, now)
        return Grant(lease.permit, lease.generation, until)

    def give_back(self, party: str, permit: int) -> None:
        """This grant never reached its party: as if it had not been."""
        lease = self.leases.undo(party, permit)
        if lease is not None and lease.generation == self.circuits.of(party).generation:
            self.circuits.of(party).had.discard(party)

    def current(self, lease: Lease) -> Circuit | None:
        """The half-open circuit whose period gave this lease, if that period still lasts."""
        circuit = self.circuits.of(lease.party)
        lasts = circuit.state is BreakerState.HALF_OPEN and circuit.generation == lease.generation
        return circuit if lasts else None

    def may_have(self, party: str, now: float) -> bool:
        """True if `party` would get a permit now.

        A second permit waits for those who had none yet. And who was failing lets those go first who were
        not: else the one bad worker, which calls most, would fail every first trial, and a wrong opening
        would never heal.
        """
        circuit = self.circuits.of(party)
        if circuit.state is not BreakerState.HALF_OPEN or len(self.leases) >= self.settings.permitted_trials:
            return False
        if circuit is not self.circuits.host:
            return True
        if party in circuit.had and now < circuit.last_grant + TURN_S:
            if self.members.difference(circuit.had):
                return False
        return not (party in self.evidence.runs and self._others_come_first(party, now))

    def _others_come_first(self, party: str, now: float) -> bool:
        # Every party with a run is a member, so there are others exactly if there are more members than runs.
        if now >= self._patience_end() or len(self.members) <= len(self.evidence.runs):
            return False
        return self.circuits.host.passed_by_others(party) < self.vouchers

    def _patience_end(self) -> float:
        settings = self.settings
        return self.circuits.host.began + min(
            settings.trial_timeout, PATIENCE_SHARE * settings.recovery_timeout
        )

    @property
    def vouchers(self) -> int:
        """Trials of others that must have passed for a failed one to be its worker's own fault."""
        return max(1, self.settings.successes_to_close - 1)

    def leave(self, party: str) -> None:
        """The party is dead: its permits are free, and nobody waits for it."""
        self.members.discard(party)
        self.leases.abandon(party)
        self.circuits.host.had.discard(party)

    def next_time(self, now: float) -> float:
        """When a permit expires or a turn begins next, s; FOREVER = never."""
        host, times = self.circuits.host, [self.leases.next_expiry()]
        if host.state is BreakerState.HALF_OPEN:
            turns = host.last_grant + TURN_S, self._patience_end()
            times += [time for time in turns if time > now]
        return min(times)

    def to_plain(self) -> list[Any]:
        """As JSON values."""
        return [self.leases.to_plain(), sorted(self.members)]

    def restore(self, plain: list[Any]) -> None:
        """Put back what `to_plain` wrote."""
        leases, members = plain
        self.leases = Leases.from_plain(leases)
        self.members = set(members)
