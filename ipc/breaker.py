"""The breaker: what outcomes, trials, commands and time do to its circuits. Pure: no clock, no chance.

The engine holds one per name and feeds it with many parties (worker nonces); a worker that is on its
own holds one with a single party. Neighbours: `circuits` (states), `evidence` (rules about outcomes),
`trials` (permits), `status` (what can be read of it). Knows no process, no segment and no socket.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ipc import window as rolling
from ipc.circuit import Circuit, Event, generation_code
from ipc.circuits import Circuits
from ipc.evidence import ORDER_SLACK_S, Evidence, Finding
from ipc.facts import Cause, Grant, Manual, Observation, Totals, Transition
from ipc.permits import PERMIT_CODES, Lease
from ipc.status import BreakerStatus
from ipc.trials import Trials
from ipc.vocabulary import FOREVER, MANUAL_STATES, BreakerSettings, BreakerState, OutcomeKind, Verb

__all__ = ["Breaker", "Grant", "Lease", "Manual", "Observation", "Totals", "Transition"]

FIRST_AMBIGUOUS: Final = 15
"""From this generation on the code in an outcome may be that of an older generation."""

_JUDGED: Final = frozenset({BreakerState.CLOSED, BreakerState.METRICS_ONLY})
_FLAGS: Final[Mapping[int, int]] = {
    OutcomeKind.SUCCESS: 0,
    OutcomeKind.FAILURE: rolling.FAILED,
    OutcomeKind.CANCELLED_LATE: rolling.FAILED,
    OutcomeKind.SLOW_SUCCESS: rolling.SLOW,
    OutcomeKind.SLOW_FAILURE: rolling.SLOW | rolling.FAILED,
}
"""Every other kind is neither success nor failure."""
_MANUAL: Final = {
    Verb.FORCE_OPEN: (Event.FORCE_OPEN, BreakerState.FORCED_OPEN),
    Verb.DISABLE: (Event.DISABLE, BreakerState.DISABLED),
    Verb.METRICS_ONLY: (Event.METRICS_ONLY, BreakerState.METRICS_ONLY),
}


class Breaker(BreakerStatus):
    """One breaker with all its circuits. Times are seconds of one monotonic clock, passed in as `now`.

    `chance` in [0, 1) is the jitter of an open time that may begin. What can be read: `BreakerStatus`.
    """

    __slots__ = ()

    # --- outcomes -----------------------------------------------------------------------------------

    def observe(self, seen: Observation, now: float, chance: float) -> None:
        """Judge outcomes; those of another generation, or too old for the window, decide nothing."""
        self._now = now = max(now, self._now)
        party, flags, host = seen.party, _FLAGS.get(seen.kind), self._circuits.host
        if party not in self.trials.members:
            self.join(party, now)
        if seen.permit >= 0:
            self._trial_ended(seen, flags, chance)
            return
        if flags is None or host.state not in _JUDGED or party in self.isolated:
            return
        generation, end = host.generation, min(seen.end, now)
        if generation_code(generation) != seen.generation:
            return
        if generation >= FIRST_AMBIGUOUS and end + ORDER_SLACK_S < host.since:
            return
        evidence, left = self.evidence, seen.count
        evidence.window.roll(now)
        if not evidence.window.holds(end):
            return
        if not flags and evidence.quiet():
            evidence.add(party, flags, left, end)
            return
        step = evidence.step(flags, left)
        while left > 0 and host.generation == generation and party not in self.isolated:
            evidence.add(party, flags, step, end)
            left -= step
            found = self._judge(party, flags, chance)
            step = evidence.step(flags, left) if found or flags else left

    def _judge(self, party: str, flags: int, chance: float) -> bool:
        """Ask the rules after an outcome; True if one of them held."""
        evidence, found = self.evidence, False
        if flags & rolling.FAILED:
            finding = evidence.of_runs(party)
            if finding is not None:
                self._act(finding, party, chance)
                found = True
        if not any(evidence.window.totals[1:]):
            return found
        for flag in (rolling.FAILED, rolling.SLOW):
            finding = evidence.of_rate(flag)
            if finding is not None:
                self._act(finding, party, chance)
                found = True
        return found

    def _act(self, finding: Finding, decider: str, chance: float) -> None:
        """Open for all or isolate, as a rule found; in METRICS_ONLY only say so."""
        party, cause = finding.party, finding.cause
        if party and party not in self.trials.members:
            # It has left: there is nobody to isolate, and what it did says nothing about the others.
            self.evidence.set_apart(party)
            return
        if party and self._too_many_with(party):
            party, cause = "", f"{cause}; more than half of the workers would be isolated"
        if self.host.state is BreakerState.METRICS_ONLY:
            self._would(party, Cause(cause, decider))
        elif party:
            self._isolate(party, cause, chance)
        else:
            self.evidence.opened()
            self._move("", Event.TRIP, Cause(cause, decider), chance)

    def _too_many_with(self, party: str) -> bool:
        """True if with `party` more than half of the workers that have calls would be isolated.

        A worker whose trial passed in the last half-open period has had a call, though the window is new.
        """
        apart = {other for other, until in self._would_until.items() if other and until > self._now}
        apart.update(self.isolated)
        apart.add(party)
        seen = self.trials.members.intersection(self.evidence.window.parties)
        return 2 * len(apart) > len(seen.union(self.host.passed, apart))

    def _would(self, party: str, why: Cause) -> None:
        """METRICS_ONLY: note an opening that did not happen, as rarely as it could have happened."""
        if max(self._would_until.get(scope, self._now) for scope in ("", party)) > self._now:
            return
        self._would_until[party] = self._now + self.settings.recovery_timeout
        self.would_open_total += 1
        state = BreakerState.METRICS_ONLY
        text = f"would have opened{' for this worker alone' if party else ''}: {why.text}"
        self.transitions.append(Transition(party, state, state, self.generation, text, why.party))

    def _isolate(self, party: str, cause: str, chance: float) -> None:
        self.evidence.set_apart(party)
        self._circuits.isolate(party, self._now)
        self._move(party, Event.TRIP, Cause(cause, party), chance)

    # --- trials -------------------------------------------------------------------------------------

    def ask(self, party: str, ask: int, now: float) -> Grant | None:
        """A permit for one trial of `party`, or None; the same `ask` again gets the same permit again."""
        self._now = now = max(now, self._now)
        if party not in self.trials.members:
            self.join(party, now)
        self._end_open_times()
        grant = self.trials.ask(party, ask, now)
        if grant is not None:
            self.revision += 1
        return grant

    def give_back(self, party: str, permit: int, now: float) -> None:
        """Nobody holds this permit, its answer could not be delivered: free at once, without verdict."""
        self._now = max(now, self._now)
        self.revision += 1
        self.trials.give_back(party, permit)

    def _trial_ended(self, seen: Observation, flags: int | None, chance: float) -> None:
        """A trial's outcome frees its permit; it decides only in the half-open period that gave it."""
        lease = self.trials.leases.find(seen.party, seen.permit % PERMIT_CODES)
        if lease is None or generation_code(lease.generation) != seen.generation:
            return
        self.trials.leases.end(lease)
        self.revision += 1
        circuit = self.trials.current(lease)
        if circuit is None or flags is None:
            return
        too_slow = flags & rolling.SLOW and self.settings.slow_call_rate is not None
        if flags & rolling.FAILED or too_slow:
            text = "a trial failed" if flags & rolling.FAILED else "a trial was slow"
            self._trial_failed(circuit, Cause(text, seen.party), min(seen.end, self._now), chance)
        else:
            self._trial_passed(circuit, seen.party, min(seen.end, self._now))

    def _trial_passed(self, circuit: Circuit, party: str, end: float) -> None:
        passed = circuit.passed_trial(party)
        if circuit is self.host:
            self.evidence.success(party, end)
        else:
            self.evidence.end_run(party)
        if passed >= self.settings.successes_to_close:
            trials = "1 trial" if passed == 1 else f"{passed} trials"
            self._close(self._circuits.scope(party), Cause(f"{trials} succeeded", party))

    def _trial_failed(self, circuit: Circuit, why: Cause, end: float, chance: float) -> None:
        """Open again; or, where others have passed, it was this worker alone: a wrong opening heals."""
        party = why.party
        if circuit is not self.host:
            self._move(party, Event.TRIAL_FAILED, why, chance)
            return
        self.evidence.failure(party, 1, end)
        passed = circuit.passed_by_others(party)
        if passed < self.trials.vouchers:
            self._move("", Event.TRIAL_FAILED, why, chance)
            return
        self._close("", Cause(f"{passed} trials of others succeeded", party))
        self._isolate(party, f"{why.text} while {passed} of others succeeded", chance)

    def _close(self, scope: str, why: Cause) -> None:
        if not scope:
            self.evidence.closed()
        self._move(scope, Event.TRIALS_PASSED, why)

    # --- parties ------------------------------------------------------------------------------------

    def join(self, party: str, now: float) -> None:
        """A worker uses this breaker from now on; one that is observed or asks has joined by that."""
        self._now = max(now, self._now)
        self.revision += 1
        self.trials.members.add(party)

    def leave(self, party: str, now: float) -> None:
        """A worker is dead: its permits are free, its isolation and run are gone, its window part stays."""
        self._now = max(now, self._now)
        self.revision += 1
        self.trials.leave(party)
        self._circuits.isolated.pop(party, None)
        self.evidence.end_run(party)
        self._would_until.pop(party, None)

    # --- time ---------------------------------------------------------------------------------------

    def advance(self, now: float, chance: float) -> None:
        """Let time pass: manual states end, permits expire (a failed trial), open times are over."""
        self._now = now = max(now, self._now)
        self.revision += 1
        if self.manual is not None and self.manual.until <= now:
            self._enable(Cause(f"the time of {self.host.state.name} is over"))
        for lease in self.trials.leases.expired(now):
            self.trials.leases.end(lease)
            circuit = self.trials.current(lease)
            if circuit is not None:
                self._trial_failed(circuit, Cause("a trial did not end in time", lease.party), now, chance)
        self._end_open_times()

    def _end_open_times(self) -> None:
        for scope in self._circuits.open_until(self._now):
            circuit = self.isolated[scope] if scope else self.host
            self._move(scope, Event.OPEN_TIME_OVER, Cause(circuit.why_over()))

    # --- a probe's word -----------------------------------------------------------------------------

    def gate(self, awaited: float, vouched: bool, now: float) -> None:
        """What a probe says of the dependency: the host's open time does not end before `awaited` (s).

        `vouched`: it has passed often enough since this opening; then the open time alone decides, and at
        once where it is the first. It never closes. Isolated workers are not its matter.
        """
        self._now = now = max(now, self._now)
        self._end_open_times()
        self.host.gate(awaited, vouched, now)
        if self.host.state is BreakerState.OPEN:
            self.revision += 1
            self._end_open_times()

    def trip(self, cause: str, now: float, chance: float) -> None:
        """Open for all before traffic finds out; in METRICS_ONLY only say so, in other states nothing."""
        self._now = max(now, self._now)
        if self.host.state in _JUDGED:
            self._act(Finding("", cause), "", chance)

    # --- commands -----------------------------------------------------------------------------------

    def command(self, verb: Verb, until: float, who: str, reason: str, now: float) -> None:
        """Do what an operator says; a manual state ends at `until` (s; FOREVER = by a verb only)."""
        self._now = max(now, self._now)
        self.revision += 1
        why = Cause(f"{verb} by {who}: {reason}" if reason else f"{verb} by {who}")
        if verb is Verb.ENABLE:
            if self.manual is not None:
                self._enable(why)
            return
        if verb is Verb.RESET:
            self.manual = None
            self._start_again()
            self._move("", Event.RESET, why)
            return
        event, target = _MANUAL[verb]
        self.manual = Manual(who, reason, until)
        if self.host.state is not target:
            if target is not BreakerState.METRICS_ONLY or self.host.state is not BreakerState.CLOSED:
                self._start_again()
            self._move("", event, why)
        self.host.extend(until)

    def _enable(self, why: Cause) -> None:
        """The manual state ends; only METRICS_ONLY has fed the window, which then goes on."""
        self.manual = None
        if self.host.state is not BreakerState.METRICS_ONLY:
            self._start_again()
        self._would_until.clear()
        self._move("", Event.ENABLE, why)

    def _start_again(self) -> None:
        self.evidence.clear()
        self._would_until.clear()

    def adopt(self, state: BreakerState, until: float, now: float) -> None:
        """Begin in the state that was last seen elsewhere, with nothing known: for a worker on its own.

        OPEN ends at `until` (s), and so does a manual state; FOREVER = not by itself.
        """
        self._now = max(now, self._now)
        self.revision += 1
        self._start_again()
        self.manual = Manual("supervisor", "", until) if state in MANUAL_STATES else None
        self._circuits.adopt(state, until, Cause("as the supervisor last published it"), self._now)

    def configure(self, settings: BreakerSettings, now: float) -> None:
        """Go on with other settings: windows, states, growth and permits are kept."""
        self._now = now = max(now, self._now)
        self.revision += 1
        self.host.settle_growth(self.settings.recovery_timeout, now)
        self._circuits.settings = settings
        self.evidence.configure(settings, now)

    def _move(self, scope: str, event: Event, why: Cause, chance: float = 0.0) -> None:
        self.revision += 1
        self._circuits.move(scope, event, why, self._now, chance)

    # --- keeping ------------------------------------------------------------------------------------

    def shift(self, delta: float) -> None:
        """Move every stored time by `delta` seconds: the clock began anew."""
        self._now += delta
        self._circuits.shift(delta)
        self.evidence.shift(delta)
        self.trials.leases.shift(delta)
        self._would_until = {scope: until + delta for scope, until in self._would_until.items()}
        if self.manual is not None:
            self.manual = Manual(self.manual.who, self.manual.reason, self.manual.until + delta)

    def to_plain(self) -> list[Any]:
        """Everything but the settings and transitions that nobody took, as JSON values."""
        manual = self.manual
        kept = None
        if manual is not None:
            kept = [manual.who, manual.reason, None if manual.until == FOREVER else manual.until]
        would = [self.would_open_total, sorted(self._would_until.items())]
        parts = [self._circuits.to_plain(), self.evidence.to_plain(), self.trials.to_plain()]
        return [self._now, *parts, kept, would]

    @classmethod
    def from_plain(cls, settings: BreakerSettings, plain: list[Any]) -> Breaker:
        """The breaker that `to_plain` wrote."""
        now, circuits, evidence, trials, manual, (would_open_total, would_until) = plain
        breaker = cls(settings, now)
        breaker._circuits = Circuits.from_plain(settings, circuits)
        breaker.evidence = Evidence.from_plain(settings, evidence)
        breaker.evidence.configure(settings, now)
        breaker.trials = Trials(breaker._circuits, breaker.evidence)
        breaker.trials.restore(trials)
        if manual is not None:
            who, reason, until = manual
            breaker.manual = Manual(who, reason, FOREVER if until is None else until)
        breaker.would_open_total, breaker._would_until = would_open_total, dict(would_until)
        return breaker
