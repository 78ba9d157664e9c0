"""Talks with a breaker: workers that call, obey what they are shown, and report, in virtual time."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from ipc.breaker import Breaker, Grant, Observation, Transition
from ipc.circuit import generation_code
from ipc.layout import unpack_row
from ipc.vocabulary import BreakerSettings, BreakerState, OutcomeKind

SUCCESS, FAILURE = OutcomeKind.SUCCESS, OutcomeKind.FAILURE
TOOK_S = 1 / 512


class Talk:
    """A breaker, a clock, and one sentence for each thing that a worker may do."""

    def __init__(
        self, settings: BreakerSettings | None = None, parties: str = "", now: float = 100.0
    ) -> None:
        self.now = now
        self.breaker = Breaker(settings or BreakerSettings(), now)
        self.asked = 0
        for party in parties:
            self.breaker.join(party, now)

    def generation(self, party: str) -> int:
        """The generation that this party's board word shows."""
        return unpack_row(self.breaker.word(party))[1]

    def permits(self, party: str) -> bool:
        """Whether this party's board word offers a permit."""
        return unpack_row(self.breaker.word(party))[3]

    def later(self, seconds: float, chance: float = 0.0) -> None:
        """Time passes and the breaker is told."""
        self.now += seconds
        self.breaker.advance(self.now, chance)

    def call(
        self,
        party: str,
        kind: OutcomeKind,
        times: int = 1,
        ago: float = 0.0,
        generation: int | None = None,
        chance: float = 0.0,
    ) -> None:
        """The party reports calls, admitted under its present generation unless said otherwise."""
        admitted = self.generation(party) if generation is None else generation
        seen = Observation(party, kind, generation_code(admitted), -1, self.now - ago, times)
        self.breaker.observe(seen, self.now, chance)

    def fail(self, party: str, times: int = 1, chance: float = 0.0) -> None:
        """The party's calls fail, one after the other, 2 ms apart."""
        for _ in range(times):
            self.now += TOOK_S
            self.call(party, FAILURE, chance=chance)

    def succeed(self, party: str, times: int = 1) -> None:
        """The party's calls succeed, one after the other, 2 ms apart."""
        for _ in range(times):
            self.now += TOOK_S
            self.call(party, SUCCESS)

    def ask(self, party: str, ask: int | None = None) -> Grant | None:
        """The party asks for a permit, with a new question unless one is given."""
        self.asked += 1
        return self.breaker.ask(party, self.asked if ask is None else ask, self.now)

    def granted(self, party: str) -> Grant:
        """The party asks for a permit and gets it."""
        grant = self.ask(party)
        assert grant is not None
        return grant

    def end(self, party: str, grant: Grant, kind: OutcomeKind, chance: float = 0.0) -> None:
        """The trial that this permit allowed has ended."""
        seen = Observation(party, kind, generation_code(grant.generation), grant.permit % 64, self.now, 1)
        self.breaker.observe(seen, self.now, chance)

    def trial(self, party: str, kind: OutcomeKind, chance: float = 0.0) -> None:
        """The party asks, gets its permit, and its trial ends at once."""
        self.end(party, self.granted(party), kind, chance)

    def open(self, party: str = "a") -> None:
        """Let this party's failures open the breaker."""
        threshold = self.breaker.settings.failure_threshold
        assert threshold is not None
        self.fail(party, threshold)
        assert self.breaker.state_of() is BreakerState.OPEN

    def half_open(self, party: str = "a") -> None:
        """Let it open, and its open time pass."""
        self.open(party)
        self.later(self.breaker.until - self.now)
        assert self.breaker.state_of() is BreakerState.HALF_OPEN
        self.breaker.take_transitions()

    def moves(self) -> list[tuple[str, BreakerState, BreakerState]]:
        """The transitions since the last look, without words and generations."""
        return [(move.scope, move.old, move.new) for move in self.breaker.take_transitions()]


@dataclass
class Caller:
    """A worker that calls every `period` seconds, and what became of its calls."""

    period: float
    fails: Callable[[float], bool]
    seen: Counter[str] = field(default_factory=Counter)


def traffic(talk: Talk, callers: dict[str, Caller], seconds: float) -> list[Transition]:
    """Let the callers call for so long; each obeys its board word. Returns every transition."""
    breaker, happened = talk.breaker, list[Transition]()
    end = talk.now + seconds
    due = [
        (talk.now + caller.period * (place + 1) / 7, name)
        for place, (name, caller) in enumerate(callers.items())
    ]
    heapq.heapify(due)
    while due[0][0] < end:
        talk.now, name = due[0]
        caller = callers[name]
        heapq.heapreplace(due, (talk.now + caller.period, name))
        if breaker.next_time() <= talk.now:
            breaker.advance(talk.now, 0.0)
        kind = FAILURE if caller.fails(talk.now) else SUCCESS
        state = breaker.state_of(name)
        caller.seen[state.name] += 1
        if state is BreakerState.CLOSED:
            talk.call(name, kind)
        elif state is BreakerState.HALF_OPEN:
            grant = talk.ask(name)
            if grant is not None:
                talk.end(name, grant, kind)
        happened += breaker.take_transitions()
    return happened
