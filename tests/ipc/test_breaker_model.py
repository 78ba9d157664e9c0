"""The breaker beside the reference model: whatever happens to both, both must show the same.

`BREAKERD_HYPOTHESIS=long` in the environment makes a long run of it (minutes, many more examples).
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ipc.breaker import Breaker, Grant, Observation
from ipc.circuit import generation_code
from ipc.layout import unpack_ramp, unpack_row
from ipc.vocabulary import (
    FOREVER,
    BreakerSettings,
    BreakerState,
    CountWindow,
    OutcomeKind,
    TimeWindow,
    Verb,
)
from tests.ipc.reference import Model, Permit

LONG = os.environ.get("BREAKERD_HYPOTHESIS") == "long"
PARTIES = ["a", "b", "c", "d"]
QUICK = BreakerSettings(
    failure_threshold=3,
    failure_rate=0.5,
    window=TimeWindow(8.0),
    minimum_calls=4,
    slow_call_s=1.0,
    slow_call_rate=0.5,
    recovery_timeout=4.0,
    recovery_timeout_max=16.0,
    recovery_jitter=0.5,
    permitted_trials=3,
    successes_to_close=3,
    trial_timeout=7.0,
)
"""Powers of two, so that every time is exact and can be compared for equality."""
SETTINGS = [
    QUICK,
    replace(QUICK, window=CountWindow(6)),
    replace(QUICK, failure_threshold=None, minimum_calls=6, window=TimeWindow(30.0)),
    replace(QUICK, failure_rate=None, slow_call_rate=None, successes_to_close=2, permitted_trials=1),
    replace(QUICK, failure_threshold=4, recovery_growth=1.0, successes_to_close=1, permitted_trials=2),
    replace(QUICK, failure_threshold=1, window=CountWindow(1)),
    replace(QUICK, successes_to_close=2, ramp_s=8.0),
]
KINDS = [
    OutcomeKind.SUCCESS,
    OutcomeKind.FAILURE,
    OutcomeKind.SUCCESS,
    OutcomeKind.FAILURE,
    OutcomeKind.SLOW_SUCCESS,
    OutcomeKind.SLOW_FAILURE,
    OutcomeKind.CANCELLED_LATE,
    OutcomeKind.IGNORED,
    OutcomeKind.CANCELLED,
]
STEPS = [0.0, 1 / 512, 1 / 64, 1 / 8, 1 / 4, 1.0, 4.0, 8.0, 40.0]
LAGS = [0.0, 0.0, 0.0, 1 / 512, 1 / 16, 1 / 4, 3.0, 9.0, -2.0]
CHANCES = [0.0, 0.25, 0.5]

parties = st.sampled_from(PARTIES)
chances = st.sampled_from(CHANCES)


class Beside(RuleBasedStateMachine):
    """Everything that can happen to a breaker, done to both."""

    @initialize(chosen=st.sampled_from(SETTINGS), start=st.sampled_from([0.0, 1000.0]))
    def begin(self, chosen: BreakerSettings, start: float) -> None:
        """Two breakers with one clock."""
        self.now, self.asked, self.moved = start, 0, 0.0
        self.real = Breaker(chosen, start)
        self.model = Model(chosen, start)
        self.grants: list[tuple[str, int, Grant]] = []
        for party in PARTIES[:2]:
            self.joins(party)

    @property
    def there(self) -> float:
        """The time on the real breaker's clock."""
        return self.now + self.moved

    @rule(step=st.sampled_from(STEPS))
    def time_passes(self, step: float) -> None:
        """Nobody is told."""
        self.now += step
        self.model.now = self.now

    @rule(chance=chances)
    def advance(self, chance: float) -> None:
        """Both are told what time it is."""
        self.real.advance(self.there, chance)
        self.model.advance(chance)

    @rule(chance=chances)
    def wait(self, chance: float) -> None:
        """Go exactly to where the real breaker says that something happens."""
        due = self.real.next_time()
        if due < FOREVER:
            self.now = self.model.now = max(self.now, due - self.moved)
            self.advance(chance)

    @rule(
        party=parties,
        kind=st.sampled_from(KINDS),
        lag=st.sampled_from(LAGS),
        count=st.sampled_from([1, 1, 1, 2, 3, 5, 30]),
        chance=chances,
    )
    def call(self, party: str, kind: OutcomeKind, lag: float, count: int, chance: float) -> None:
        """Outcomes of calls that were admitted under the party's present generation."""
        code = generation_code(unpack_row(self.real.word(party))[1])
        self._observe(party, kind, code, self.now - lag, count, chance)

    @rule(party=parties, kind=st.sampled_from(KINDS), back=st.integers(1, 16), chance=chances)
    def call_of_another_generation(self, party: str, kind: OutcomeKind, back: int, chance: float) -> None:
        """An outcome that is older than the party's present generation; 15 back looks like new."""
        generation = max(0, unpack_row(self.real.word(party))[1] - back)
        self._observe(party, kind, generation_code(generation), self.now - 1.0, 1, chance)

    @rule(order=st.permutations(PARTIES), bad=st.integers(1, 4), calls=st.integers(1, 6), chance=chances)
    def traffic(self, order: list[str], bad: int, calls: int, chance: float) -> None:
        """Everybody calls in turn; the first `bad` of them fail."""
        for _ in range(calls):
            for place, party in enumerate(order):
                kind = OutcomeKind.FAILURE if place < bad else OutcomeKind.SUCCESS
                self.time_passes(1 / 512)
                self.call(party, kind, 0.0, 1, chance)

    def _observe(
        self, party: str, kind: OutcomeKind, code: int, end: float, count: int, chance: float
    ) -> None:
        seen = Observation(party, kind, code, -1, end + self.moved, count)
        self.real.observe(seen, self.there, chance)
        self.model.observe(party, kind, code, end, count, chance)

    @rule(party=parties, again=st.booleans())
    def ask(self, party: str, again: bool) -> None:
        """A question for a permit, or the last one once more."""
        self.asked += not again
        grant = self.real.ask(party, self.asked, self.there)
        self._same_grant(grant, self.model.ask(party, self.asked))
        if grant is not None:
            self.grants.append((party, self.asked, grant))

    def _same_grant(self, grant: Grant | None, permit: Permit | None) -> None:
        shown = None if grant is None else (grant.permit, grant.generation, grant.lease_until - self.moved)
        expected = None if permit is None else (permit.id, permit.generation, permit.until)
        assert shown == expected

    @precondition(lambda self: self.grants)
    @rule(which=st.integers(0, 5), kind=st.sampled_from(KINDS), chance=chances)
    def trial_ends(self, which: int, kind: OutcomeKind, chance: float) -> None:
        """One of the latest permits comes back with an outcome, perhaps for the second time."""
        party, _, grant = self.grants[-1 - which % len(self.grants)]
        code, low = generation_code(grant.generation), grant.permit % 64
        self.real.observe(Observation(party, kind, code, low, self.there, 1), self.there, chance)
        self.model.trial(party, low, code, kind, self.now, chance)

    @rule(order=st.permutations(PARTIES), good=st.integers(0, 4), chance=chances)
    def recovery(self, order: list[str], good: int, chance: float) -> None:
        """The open time passes, everybody asks, and the first `good` trials succeed."""
        self.wait(chance)
        for place, party in enumerate(order):
            kind = OutcomeKind.SUCCESS if place < good else OutcomeKind.FAILURE
            before = len(self.grants)
            self.ask(party, again=False)
            if len(self.grants) > before:
                self.trial_ends(0, kind, chance)

    @precondition(lambda self: self.grants)
    @rule()
    def give_back(self) -> None:
        """The answer with the latest permit could not be delivered."""
        party, _, grant = self.grants[-1]
        self.real.give_back(party, grant.permit, self.there)
        self.model.give_back(party, grant.permit)

    @rule(patience=st.sampled_from([0.5, 4.0, 16.0, -FOREVER]), good=st.booleans())
    def probe_speaks(self, patience: float, good: bool) -> None:
        """A probe says how the dependency is, and when it will say so again; -FOREVER = it never will."""
        self.real.gate(self.there + patience, good, self.there)
        self.model.probe(self.now + patience, good)

    @rule(chance=chances)
    def probe_trips(self, chance: float) -> None:
        """A probe has failed too often."""
        self.real.trip("its probe failed", self.there, chance)
        self.model.trip(chance)

    @rule(good=st.lists(st.booleans(), min_size=1, max_size=5), chance=chances)
    def probed_outage(self, good: list[bool], chance: float) -> None:
        """It opens, and a probe speaks once a second."""
        self.probe_trips(chance)
        for passes in good:
            self.probe_speaks(4.0, passes)
            self.time_passes(1.0)

    @rule(party=parties)
    def joins(self, party: str) -> None:
        """A worker comes."""
        self.real.join(party, self.there)
        self.model.here.add(party)

    @rule(party=parties)
    def leaves(self, party: str) -> None:
        """A worker dies."""
        self.real.leave(party, self.there)
        self.model.leave(party)

    @rule(verb=st.sampled_from(Verb), lasts=st.sampled_from([0.5, 4.0, FOREVER]))
    def command(self, verb: Verb, lasts: float) -> None:
        """An operator's verb."""
        self.real.command(verb, self.there + lasts, "0:root", "a reason", self.there)
        self.model.command(verb, self.now + lasts, "0:root", "a reason")

    @rule(
        threshold=st.sampled_from([None, 1, 2, 5]),
        trials=st.integers(1, 4),
        timeout=st.sampled_from([2.0, 4.0]),
        ramp=st.sampled_from([0.0, 4.0, 16.0]),
    )
    def configure(self, threshold: int | None, trials: int, timeout: float, ramp: float) -> None:
        """Other settings, the same window."""
        changed = replace(
            self.model.settings,
            failure_threshold=threshold,
            permitted_trials=trials,
            recovery_timeout=timeout,
            ramp_s=ramp,
        )
        self.real.configure(changed, self.there)
        self.model.configure(changed)

    @rule()
    def daemon_dies(self) -> None:
        """The real one goes on from what was kept of it."""
        kept = json.loads(json.dumps(self.real.to_plain(), allow_nan=False))
        untaken = self.real.take_transitions()
        again = Breaker.from_plain(self.real.settings, kept)
        again.transitions.extend(untaken)
        self.real = again

    @rule(steps=st.integers(-3, 3))
    def machine_reboots(self, steps: int) -> None:
        """The real one's clock jumps, by whole buckets of every window."""
        delta = 48.0 * steps
        self.real.shift(delta)
        self.moved += delta

    @invariant()
    def looks_the_same(self) -> None:
        """Every answer that can be read is the same."""
        if not hasattr(self, "real"):
            return
        real, model = self.real, self.model
        seen = [(move.scope, move.old, move.new, move.generation) for move in real.take_transitions()]
        assert seen == model.moves
        model.moves.clear()
        assert (real.opened_total, real.would_open_total) == (model.opened, model.would_open)
        assert sorted(real.isolated) == sorted(model.alone)
        assert sorted(real.leases) == sorted(permit.id for permit in model.live())
        assert real.host_run == len(model.host_run())
        assert (real.manual is None) == (model.manual is None)

    @invariant()
    def shows_the_same_words(self) -> None:
        """Told the time, both admit the same calls and offer the same permits."""
        if not hasattr(self, "real"):
            return
        # Reading tells no time; an unknown party's leaving does, and changes nothing else.
        self.real.give_back("", 0, self.there)
        for party in PARTIES:
            loop = self.model.alone.get(party, self.model.host)
            refuses = loop.state in {BreakerState.OPEN, BreakerState.FORCED_OPEN} and loop.over() < FOREVER
            state, generation, until, permits = unpack_row(self.real.word(party))
            assert (state, generation, permits) == (loop.state, loop.generation, self.model.may_have(party))
            if self.moved == 0.0:
                assert until == (loop.over() if refuses else 0.0)
        climbs = self.model.host.climbs if self.model.host.state is BreakerState.CLOSED else None
        shown = self.real.ramp
        lasts = climbs is not None and climbs[0] > self.now
        assert shown == ((climbs[0] + self.moved, climbs[1]) if climbs and lasts else None)
        if climbs and self.moved == 0.0:
            assert unpack_ramp(self.real.word("nobody")) == (math.ceil(climbs[0] * 16) / 16, climbs[1])
        window = self.model.window()
        totals = self.real.totals
        expected = len(window), sum(note.failed for note in window), sum(note.slow for note in window)
        assert (totals.calls, totals.failures, totals.slow) == expected

    @invariant()
    def keeps_its_limits(self) -> None:
        """Live permits never share their six bits, and generations only go up."""
        if not hasattr(self, "real"):
            return
        low = [permit % 64 for permit in self.real.leases]
        assert len(low) == len(set(low))
        generations = [circuit.generation for circuit in (self.real.host, *self.real.isolated.values())]
        assert all(0 <= generation <= self.model.generation for generation in generations)


TestBeside = Beside.TestCase
TestBeside.settings = settings(
    max_examples=5000 if LONG else 400,
    stateful_step_count=80 if LONG else 50,
    deadline=None,
    derandomize=not LONG,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
