"""A second breaker, written from the rules alone and as plainly as can be, to compare the real one with.

It keeps every outcome that it was ever told in one list and works each answer out from that list anew
(`notebook`). It is slow, imports nothing of `ipc` but the vocabulary, and shares no code with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ipc.vocabulary import (
    FAILURES,
    FOREVER,
    SLOW,
    SUCCESSES,
    BreakerSettings,
    BreakerState,
    OutcomeKind,
    Verb,
)
from tests.ipc.notebook import LONG_AGO, Note, Notebook

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
METRICS_ONLY = BreakerState.METRICS_ONLY


@dataclass
class Loop:
    """One circuit."""

    generation: int
    since: float
    state: BreakerState = CLOSED
    until: float = FOREVER
    n: int = 0
    n_from: float = 0.0
    had: set[str] = field(default_factory=set)
    began: float = 0.0
    last_grant: float = 0.0
    passed: list[str] = field(default_factory=list)
    heard: float = LONG_AGO
    """Until when the probe that was last heard has time for its next word."""
    good: float | None = None
    """Since when it has been passing often enough, in this open time."""

    climbs: tuple[float, float] | None = None
    """When its ramp ends, and how long it is."""

    def over(self) -> float:
        """When the state ends by itself: a probe that is not content keeps it, as long as it talks."""
        if self.state is not OPEN or self.heard <= self.until:
            return self.until
        return self.heard if self.good is None else max(self.until, min(self.good, self.heard))


@dataclass
class Permit:
    """One permit that was ever given."""

    party: str
    ask: int
    generation: int
    until: float
    id: int
    ended: bool = False
    undone: bool = False


class Model(Notebook):
    """The rules of a breaker, read aloud."""

    def __init__(self, settings: BreakerSettings, now: float) -> None:
        super().__init__(settings, now)
        self.generation = 0
        self.host = Loop(0, now, n_from=now, last_grant=now)
        self.alone: dict[str, Loop] = {}
        self.here: set[str] = set()
        self.permits: list[Permit] = []
        self.manual: tuple[str, str, float] | None = None
        self.moves: list[tuple[str, BreakerState, BreakerState, int]] = []
        self.would: dict[str, float] = {}
        self.opened = self.would_open = 0

    # --- outcomes -----------------------------------------------------------------------------------

    def observe(
        self, party: str, kind: OutcomeKind, code: int, end: float, count: int, chance: float
    ) -> None:
        """Outcomes without a permit, one after the other."""
        self.here.add(party)
        end = min(end, self.now)
        generation = self.host.generation
        judged = kind in FAILURES or kind in SUCCESSES
        if not judged or code != generation % 15 + 1 or (generation > 14 and end + 0.125 < self.host.since):
            return
        for _ in range(count):
            watching = self.host.state in {CLOSED, METRICS_ONLY} and self.host.generation == generation
            if watching and party not in self.alone and self.inside(end):
                self.notes.append(Note("call", party, kind in FAILURES, kind in SLOW, end))
                self.judge(party, kind in FAILURES, chance)

    def judge(self, party: str, failed: bool, chance: float) -> None:
        """Ask every rule after one call."""
        threshold = self.settings.failure_threshold
        if failed and threshold is not None:
            length, between = self.own_run(party)
            if len(self.host_run()) >= threshold:
                self.open_for_all(chance)
            elif length >= threshold and between:
                self.blame(party, chance)
        self.judge_rate(self.settings.failure_rate, [note.failed for note in self.window()], chance)
        self.judge_rate(self.settings.slow_call_rate, [note.slow for note in self.window()], chance)

    def judge_rate(self, limit: float | None, bad: list[bool], chance: float) -> None:
        """Open for all, or blame the worst worker, if the rate is reached."""
        calls = self.window()
        if limit is None or len(calls) < self.settings.minimum_calls or sum(bad) / len(calls) < limit:
            return
        whose = [(note.party, flag) for note, flag in zip(calls, bad, strict=True)]
        worst = min(
            {party for party, _ in whose},
            key=lambda name: (-whose.count((name, True)), sum(party == name for party, _ in whose), name),
        )
        rest = [flag for party, flag in whose if party != worst]
        if not rest or sum(rest) / len(rest) >= limit:
            self.open_for_all(chance)
        else:
            self.blame(worst, chance)

    def blame(self, party: str, chance: float) -> None:
        """Isolate one worker, unless that would be more than half of those with calls."""
        if party not in self.here:
            self.notes.append(Note("party", party))
            return
        apart = {party, *self.alone, *(who for who, until in self.would.items() if who and until > self.now)}
        seen = {note.party for note in self.window()} & self.here
        if 2 * len(apart) > len(seen | set(self.host.passed) | apart):
            self.open_for_all(chance)
        elif self.host.state is METRICS_ONLY:
            self.would_open_for(party)
        else:
            self.isolate(party, chance)

    def isolate(self, party: str, chance: float) -> None:
        """Give one worker an open circuit of its own."""
        self.notes.append(Note("party", party))
        self.alone[party] = Loop(self.host.generation, self.now, n_from=self.now)
        self.go(party, OPEN, chance)

    def open_for_all(self, chance: float) -> None:
        """A rule holds against the dependency."""
        if self.host.state is METRICS_ONLY:
            self.would_open_for("")
            return
        self.notes.append(Note("window"))
        self.go("", OPEN, chance)

    def would_open_for(self, party: str) -> None:
        """METRICS_ONLY counts what would have been, once per recovery timeout."""
        if self.would.get("", LONG_AGO) <= self.now and self.would.get(party, LONG_AGO) <= self.now:
            self.would[party] = self.now + self.settings.recovery_timeout
            self.would_open += 1
            self.moves.append((party, METRICS_ONLY, METRICS_ONLY, self.host.generation))

    # --- trials -------------------------------------------------------------------------------------

    def live(self) -> list[Permit]:
        """The permits that have not ended."""
        return [permit for permit in self.permits if not permit.ended]

    def may_have(self, party: str) -> bool:
        """Would `party` be given a permit now?"""
        loop = self.alone.get(party, self.host)
        if loop.state is not HALF_OPEN or len(self.live()) >= self.settings.permitted_trials:
            return False
        if party in self.alone:
            return True
        if party in loop.had and self.here - loop.had and self.now < loop.last_grant + 0.25:
            return False
        suspect = self.own_run(party)[0] > 0
        well = [other for other in self.here if not self.own_run(other)[0]]
        patience = min(self.settings.trial_timeout, self.settings.recovery_timeout / 4)
        vouched = len([other for other in loop.passed if other != party]) >= self.enough()
        return not (suspect and well and not vouched and self.now < loop.began + patience)

    def enough(self) -> int:
        """Trials of others that make a failed one its worker's own fault."""
        return max(1, self.settings.successes_to_close - 1)

    def ask(self, party: str, ask: int) -> Permit | None:
        """One question for a permit."""
        self.here.add(party)
        self.end_open_times()
        mine = [permit for permit in self.permits if permit.party == party]
        if mine and mine[-1].ask == ask and not mine[-1].undone:
            return None if mine[-1].ended else mine[-1]
        if not self.may_have(party):
            return None
        loop = self.alone.get(party, self.host)
        given = self.now + self.settings.trial_timeout + 1.0
        permit = Permit(party, ask, loop.generation, given, self.next_id())
        self.permits.append(permit)
        loop.had.add(party)
        loop.last_grant = self.now
        return permit

    def next_id(self) -> int:
        """The next number whose remainder by 64 no live permit has."""
        number = max((permit.id for permit in self.permits), default=0) + 1
        while any((permit.id - number) % 64 == 0 for permit in self.live()):
            number += 1
        return number

    def give_back(self, party: str, number: int) -> None:
        """The answer was never delivered."""
        for permit in self.live():
            if permit.id == number and permit.party == party:
                permit.ended = permit.undone = True
                loop = self.alone.get(party, self.host)
                if loop.generation == permit.generation:
                    loop.had.discard(party)

    def trial(self, party: str, low: int, code: int, kind: OutcomeKind, end: float, chance: float) -> None:
        """A trial's outcome."""
        self.here.add(party)
        end = min(end, self.now)
        for permit in self.live():
            if (permit.party, permit.id % 64, permit.generation % 15 + 1) == (party, low, code):
                permit.ended = True
                loop = self.alone.get(party, self.host)
                if loop.state is not HALF_OPEN or loop.generation != permit.generation:
                    return
                slow = kind in SLOW and self.settings.slow_call_rate is not None
                if kind in FAILURES or slow:
                    self.trial_failed(party, end, chance)
                elif kind in SUCCESSES:
                    self.trial_passed(party, end)

    def trial_passed(self, party: str, end: float) -> None:
        """Enough of these close the circuit."""
        loop = self.alone.get(party, self.host)
        loop.passed.append(party)
        self.notes.append(Note("trial" if loop is self.host else "well", party, end=end))
        if len(loop.passed) >= self.settings.successes_to_close:
            self.close("" if loop is self.host else party)

    def trial_failed(self, party: str, end: float, chance: float) -> None:
        """One of these opens the circuit, unless others vouch for the dependency."""
        if party in self.alone:
            self.go(party, OPEN, chance)
            return
        self.notes.append(Note("trial", party, failed=True, end=end))
        if len([other for other in self.host.passed if other != party]) >= self.enough():
            self.close("")
            self.isolate(party, chance)
        else:
            self.go("", OPEN, chance)

    def close(self, scope: str) -> None:
        """Recovered."""
        if not scope:
            self.notes.append(Note("closed"))
        self.go(scope, CLOSED)

    # --- states -------------------------------------------------------------------------------------

    def go(self, scope: str, new: BreakerState, chance: float = 0.0, reset: bool = False) -> None:
        """Write down a move."""
        settings, loop = self.settings, self.alone[scope] if scope else self.host
        over, old, loop.state = loop.over(), loop.state, new
        self.generation += 1
        self.moves.append((scope, old, new, self.generation))
        if old is CLOSED:
            self.settle(loop)
        relapsed = old is CLOSED and loop.passed and self.now - loop.since < settings.recovery_timeout
        if new is OPEN and (relapsed or old is HALF_OPEN):
            grown = settings.recovery_timeout * settings.recovery_growth**loop.n
            loop.n += grown < settings.recovery_timeout_max
        loop.n = 0 if reset else loop.n
        if new is HALF_OPEN:
            loop.had, loop.began = set(), min(self.now, over)
            loop.last_grant = loop.began
        loop.generation, loop.since, loop.n_from, loop.until = self.generation, self.now, self.now, FOREVER
        loop.good = loop.climbs = None
        if old is HALF_OPEN and new is CLOSED and settings.ramp_s and not reset:
            loop.climbs = self.now + settings.ramp_s, settings.ramp_s
        if new is OPEN:
            base = min(
                settings.recovery_timeout_max, settings.recovery_timeout * settings.recovery_growth**loop.n
            )
            loop.until = self.now + base * (1 + settings.recovery_jitter * chance)
            self.opened += not scope
        if new is not CLOSED or reset:
            loop.passed = []
        if not scope and (new is not CLOSED or reset):
            self.alone = {}
        if scope and new is CLOSED:
            del self.alone[scope]

    def settle(self, loop: Loop) -> None:
        """Each full recovery timeout that was spent closed takes one step of growth back."""
        while loop.n > 0 and self.now - loop.n_from >= self.settings.recovery_timeout:
            loop.n -= 1
            loop.n_from += self.settings.recovery_timeout

    def end_open_times(self) -> None:
        """Whoever was open for long enough is half-open."""
        for scope, loop in [("", self.host), *self.alone.items()]:
            if loop.state is OPEN and loop.over() <= self.now:
                self.go(scope, HALF_OPEN)

    def advance(self, chance: float) -> None:
        """Let time do what it does."""
        if self.manual is not None and self.manual[2] <= self.now:
            self.end_manual()
        for permit in sorted(self.live(), key=lambda permit: (permit.until, permit.id)):
            if permit.until <= self.now:
                permit.ended = True
                loop = self.alone.get(permit.party, self.host)
                if loop.state is HALF_OPEN and loop.generation == permit.generation:
                    self.trial_failed(permit.party, self.now, chance)
        self.end_open_times()

    def end_manual(self) -> None:
        """What follows each manual state."""
        state, self.manual = self.host.state, None
        if state is not METRICS_ONLY:
            self.forget_all()
        self.would = {}
        self.go("", HALF_OPEN if state is FORCED_OPEN else CLOSED)

    def probe(self, heard: float, good: bool) -> None:
        """A probe spoke; it has time until `heard` for its next word."""
        self.end_open_times()
        host = self.host
        host.heard = heard
        if host.state is OPEN and not good:
            host.good = None
        elif host.state is OPEN:
            host.good = self.now if host.good is None else host.good
            if host.n == 0:
                host.until = min(host.until, self.now)
        self.end_open_times()

    def trip(self, chance: float) -> None:
        """A probe has failed too often."""
        if self.host.state in {CLOSED, METRICS_ONLY}:
            self.open_for_all(chance)

    def forget_all(self) -> None:
        """Nothing that was seen so far counts any more."""
        self.notes.append(Note("all"))
        self.would = {}

    def command(self, verb: Verb, until: float, who: str, reason: str) -> None:
        """An operator's verb."""
        if verb is Verb.ENABLE:
            if self.manual is not None:
                self.end_manual()
            return
        if verb is Verb.RESET:
            self.manual = None
            self.forget_all()
            self.go("", CLOSED, reset=True)
            return
        target = {Verb.FORCE_OPEN: FORCED_OPEN, Verb.DISABLE: DISABLED, Verb.METRICS_ONLY: METRICS_ONLY}[verb]
        if self.host.state is not target:
            if (self.host.state, target) != (CLOSED, METRICS_ONLY):
                self.forget_all()
            self.go("", target)
        self.manual = who, reason, until
        self.host.until = until

    def configure(self, settings: BreakerSettings) -> None:
        """Other settings with the same window."""
        if self.host.state is CLOSED:
            self.settle(self.host)
        self.settings = settings

    def leave(self, party: str) -> None:
        """A worker is dead."""
        self.here.discard(party)
        self.alone.pop(party, None)
        self.host.had.discard(party)
        self.would.pop(party, None)
        self.notes.append(Note("left", party))
        for permit in self.permits:
            if permit.party == party:
                permit.ended = permit.undone = True
