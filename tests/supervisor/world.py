"""A host in virtual time, driven by a seed: callers, a dependency, its probe, and what may go wrong.

It knows what must come true and by when, and says so after each step: `World.step` raises AssertionError
where a breaker stays where it is for longer than its settings allow. Neighbours: `test_engine_liveness`.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Final

from ipc.circuit import generation_code, ramp_share
from ipc.layout import PERMITS_BIT, unpack_ramp, unpack_row
from ipc.permits import LEASE_GRACE_S
from ipc.trials import PATIENCE_SHARE, TURN_S
from ipc.vocabulary import BreakerSettings, BreakerState, OutcomeKind
from supervisor.engine import Engine
from supervisor.messages import (
    Answer,
    BreakerDeclared,
    Judged,
    Message,
    OutcomeBatch,
    PermitAsked,
    ProbeEnded,
    ProbeRule,
    ProbesConfigured,
    Publish,
    Tick,
    WorkerJoined,
    WorkerLeft,
)

TICK_S: Final = 0.02
SLACK_S: Final = 3 * TICK_S
OPEN, HALF_OPEN = BreakerState.OPEN, BreakerState.HALF_OPEN


@dataclass
class Caller:
    """A worker that calls every `period` seconds and obeys its board."""

    nonce: str
    period: float
    due: float
    asks: int = 0


@dataclass(order=True)
class Trial:
    """A trial in flight; `end` inf = its holder hangs for ever."""

    end: float
    caller: str = field(compare=False)
    permit: int = field(compare=False)
    code: int = field(compare=False)


@dataclass
class Probe:
    """How the probe of the dependency is asked, and what is wrong with it."""

    interval: float
    interval_max: float
    rise: int
    preventive: bool = False
    fault: str = ""
    """"" = it tells the truth; fails, error, silent."""
    took: float = 0.05
    due: float = 0.0
    pause: float = 0.0
    opened: float = float("-inf")
    heard: float = float("-inf")
    """When it last said passed or failed."""

    @property
    def patience(self) -> float:
        """For how long it is awaited."""
        return self.interval_max * 1.1 + self.took + 1.0


class World:
    """One breaker with its callers. `up`: the dependency answers; `trouble`: how often holders fail."""

    def __init__(self, seed: int, probe: Probe | None = None, trouble: float = 0.0) -> None:
        self.dice = random.Random(seed)
        self.settings = self._settings()
        self.engine, self.now = Engine(), 100.0
        self.up, self.trouble, self.quiet = True, trouble, False
        self.probe = probe
        self.board: dict[str, int] = {}
        self.callers: dict[str, Caller] = {}
        self.trials: list[Trial] = []
        self.deaths = 0
        self.state, self.since, self.offered = BreakerState.CLOSED, self.now, self.now
        if probe is not None:
            rule = ProbeRule("database", probe.rise, 2, probe.preventive, probe.patience)
            self.say(ProbesConfigured((rule,)))
        for _ in range(self.dice.randint(1, 5)):
            self.join()

    def _settings(self) -> BreakerSettings:
        dice = self.dice
        return BreakerSettings(
            failure_threshold=dice.randint(1, 5),
            recovery_timeout=dice.choice((0.25, 0.5, 1.0, 2.0)),
            recovery_growth=dice.choice((1.0, 2.0, 3.0)),
            recovery_timeout_max=dice.choice((2.0, 4.0)),
            recovery_jitter=dice.choice((0.0, 0.1, 0.5)),
            permitted_trials=dice.randint(1, 4),
            successes_to_close=dice.randint(1, 4),
            trial_timeout=dice.choice((0.25, 1.0)),
            ramp_s=dice.choice((0.0, 0.0, 3.0)),
        )

    # --- what must come true, by when -----------------------------------------------------------------

    @property
    def open_max(self) -> float:
        """The longest open time."""
        return self.settings.recovery_timeout_max * (1.0 + self.settings.recovery_jitter)

    @property
    def lease(self) -> float:
        """How long a permit lasts."""
        return self.settings.trial_timeout + LEASE_GRACE_S

    @property
    def slowest(self) -> float:
        """The longest pause of a caller."""
        return max(caller.period for caller in self.callers.values())

    @property
    def suspicion(self) -> float:
        """For how long those that failed let others go first."""
        return min(self.settings.trial_timeout, PATIENCE_SHARE * self.settings.recovery_timeout)

    @property
    def half_open_max(self) -> float:
        """The longest half-open period: each trial ends or its lease does; who dies is followed at once."""
        each = self.lease + TURN_S + self.slowest + SLACK_S
        return self.suspicion + each * (self.settings.successes_to_close + self.deaths)

    @property
    def probe_max(self) -> float:
        """Until a probe that tells the truth has risen, however slow it had become."""
        probe = self.probe
        return (
            0.0 if probe is None else (probe.interval_max + probe.rise * (probe.interval + probe.took)) * 1.1
        )

    @property
    def recovered_by(self) -> float:
        """How long a recovery takes at most; twice fail trials that were begun before it, or are hung."""
        return 3 * (max(self.open_max, self.probe_max) + self.half_open_max)

    @property
    def opened_by(self) -> float:
        """How long an outage stays unseen at most; in a ramp one call of ten is let in."""
        calls = 5 * self.slowest * (20 if self.settings.ramp_s else 1)
        return self.half_open_max + calls + 5.0

    def _check(self) -> None:
        """The breaker is not stuck: L1 while it is OPEN, L2 while it is HALF_OPEN."""
        breaker = self.engine.catalogue.named["app/database"].breaker
        if breaker.state_of() is not self.state or breaker.since > self.since:
            self.state, self.since, self.deaths = breaker.state_of(), breaker.since, 0
            self.offered = self.now
        lasts = self.now - self.since
        if self.state is OPEN:
            heard = self.probe.heard + self.probe.patience if self.probe is not None else self.since
            assert self.now <= max(self.since + self.open_max, heard) + SLACK_S, "L1: open for too long"
        if self.state is HALF_OPEN:
            words = [self.board[nonce] for nonce in self.callers]
            taken = len(breaker.leases) >= self.settings.permitted_trials
            if taken or any(word & PERMITS_BIT for word in words):
                self.offered = self.now
            assert self.now - self.offered <= TURN_S + SLACK_S, "L1: nobody is offered a trial"
            if not self.quiet:
                assert lasts <= self.half_open_max, "L2: half-open for too long"

    # --- what happens ---------------------------------------------------------------------------------

    def say(self, message: Message) -> list[Answer]:
        """Tell the engine; the boards show what it published, the answers are returned."""
        effects = self.engine.handle(message, self.now, self.dice.random())
        for effect in effects:
            if isinstance(effect, Publish):
                self.board[effect.worker] = effect.word
        return [effect for effect in effects if isinstance(effect, Answer)]

    def join(self) -> None:
        """A worker comes."""
        nonce = f"{self.dice.getrandbits(128):032x}"
        period = self.dice.choice((0.02, 0.1, 0.3))
        self.callers[nonce] = Caller(nonce, period, self.now + self.dice.random() * period)
        self.say(WorkerJoined(nonce, 7, 0, 500, "app", "web", "app", ""))
        self.say(BreakerDeclared(nonce, 0, "database", json.dumps(self.settings.to_json())))

    def die(self, nonce: str) -> None:
        """It is killed, and another one takes its place."""
        del self.callers[nonce], self.board[nonce]
        self.trials = [trial for trial in self.trials if trial.caller != nonce]
        self.deaths += 1
        self.say(WorkerLeft(nonce))
        self.join()

    def restart(self) -> None:
        """The daemon is killed: another one goes on with what was kept."""
        self.engine = Engine.from_plain(json.loads(json.dumps(self.engine.to_plain(), allow_nan=False)))
        for one in self.engine.publications():
            assert self.board[one.worker] == one.word, "what was published is published again"

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = self.now + seconds
        while self.now < end:
            self.step()

    def until(self, state: BreakerState, seconds: float) -> None:
        """Let time pass until the breaker is in that state: it must be within so many seconds."""
        end = self.now + seconds
        while self.state is not state:
            self.step()
            assert self.now <= end, f"L3: not {state.name} in time"

    def step(self) -> None:
        """One tick: calls, trials, the probe, a drain, and at times the death of somebody."""
        self.now += TICK_S
        judged = [self._end(trial) for trial in sorted(self.trials) if trial.end <= self.now]
        for caller in tuple(self.callers.values()):
            if caller.due <= self.now and not self.quiet and caller.nonce in self.callers:
                caller.due += caller.period
                judged += self._call(caller)
        self._probe()
        if judged:
            self.say(OutcomeBatch((), tuple(judged)))
        elif self.engine.next_time() <= self.now:
            self.say(Tick())
        if self.trouble and self.dice.random() < 0.002:
            self.restart()
        if self.trouble and self.dice.random() < 0.002:
            self.die(self.dice.choice(list(self.callers)))
        self._check()

    def _kind(self) -> int:
        return int(OutcomeKind.SUCCESS if self.up else OutcomeKind.FAILURE)

    def _end(self, trial: Trial) -> Judged:
        self.trials.remove(trial)
        return Judged(trial.caller, 0, self._kind(), trial.code, trial.permit, trial.end, 1)

    def _call(self, caller: Caller) -> list[Judged]:
        """What the worker does with what its board shows."""
        word = self.board[caller.nonce]
        state, generation, _, permits = unpack_row(word)
        if state is HALF_OPEN and permits:
            self._ask(caller)
        if state is not BreakerState.CLOSED:
            return []
        left = unpack_ramp(word)[0] - self.now
        if left > 0.0 and self.dice.random() >= ramp_share(left, self.settings.ramp_s):
            return []
        return [Judged(caller.nonce, 0, self._kind(), generation_code(generation), -1, self.now, 1)]

    def _ask(self, caller: Caller) -> None:
        """Ask for a permit; who gets one runs a trial, or hangs, or is killed in it."""
        caller.asks += 1
        [answer] = self.say(PermitAsked(caller.nonce, 0, caller.asks))
        permit = answer.value["permit"]
        if permit is None:
            return
        took = self.dice.random() * self.settings.trial_timeout
        fate = self.dice.random()
        if fate < self.trouble:
            self.die(caller.nonce)
            return
        if fate < 2 * self.trouble:
            took = self.dice.choice((self.lease + 0.5, float("inf")))
        code = generation_code(answer.value["generation"])
        self.trials.append(Trial(self.now + took, caller.nonce, permit & 63, code))

    def _probe(self) -> None:
        """The schedule: slower with each failure, from the beginning after an opening and after a pass."""
        probe = self.probe
        if probe is None or probe.fault == "silent":
            return
        [told] = self.engine.catalogue.probing()
        if told.opened_at > probe.opened:
            probe.opened, probe.pause = told.opened_at, probe.interval
            probe.due = min(probe.due, self.now + probe.interval)
        if self.now < probe.due:
            return
        failed = probe.fault == "fails" or not self.up
        verdict = "error" if probe.fault == "error" else "failed" if failed else "passed"
        self.say(ProbeEnded("database", verdict, "why", probe.took, self.now - probe.took))
        probe.heard = probe.heard if verdict == "error" else self.now
        pause = min(probe.interval_max, 2 * probe.pause) if verdict == "failed" else probe.interval
        probe.pause = pause
        probe.due = self.now + pause * (1.0 + 0.1 * self.dice.random())
