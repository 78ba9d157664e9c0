"""A pretend host: says messages to an engine, as a worker, the daemon or an operator would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ipc.circuit import generation_code
from ipc.vocabulary import BreakerSettings, OutcomeKind
from supervisor.engine import Engine
from supervisor.facts import Facts
from supervisor.messages import (
    Answer,
    BreakerDeclared,
    ClassDeclared,
    Command,
    CounterDeclared,
    DaemonStarted,
    Effect,
    Happened,
    Judged,
    Message,
    OutcomeBatch,
    PermitAsked,
    ProbeEnded,
    ProbeRule,
    ProbesConfigured,
    Publish,
    Refused,
    Taken,
    WorkerJoined,
    WorkerLeft,
    from_plain,
    to_plain,
)

SUCCESS, FAILURE = int(OutcomeKind.SUCCESS), int(OutcomeKind.FAILURE)
FACTS = Facts(started_at=90.0, pid=11, nursery_pid=10, software="0.1.0")


def nonce(letter: str) -> str:
    """The nonce of the worker that a test calls by one letter."""
    return letter * 32


def taken(worker: str, **given: Any) -> Taken:
    """A drain of this worker's segment that took nothing but what is given."""
    values: dict[str, Any] = {
        "position": 0,
        "epoch": 0,
        "holes": (),
        "declared": 0,
        "gaps": 0,
        "invalid": 0,
        "counts": (),
        "durations": (),
        "tallies": (),
    }
    return Taken(nonce(worker), **{**values, **given})


class Host:
    """An engine, the time on its clock, and every effect of the message said last."""

    def __init__(self, engine: Engine | None = None, now: float = 100.0) -> None:
        self.engine = engine or Engine()
        self.now = now
        self.effects: list[Effect] = []
        self.board: dict[tuple[str, int], int] = {}
        """Every word that was ever published, by worker and row: what the workers see."""

    def say(self, message: Message, chance: float = 0.0) -> list[Effect]:
        """Say a message as it comes out of the journal and remember what came of it."""
        plain = json.loads(json.dumps(to_plain(message)))
        self.effects = self.engine.handle(from_plain(plain), self.now, chance)
        for effect in self.effects:
            if isinstance(effect, Publish):
                self.board[effect.worker, effect.row] = effect.word
        return self.effects

    def start(self, incarnation: int = 1, boot: int = 7) -> list[Effect]:
        """A daemon starts."""
        return self.say(DaemonStarted(incarnation, boot))

    def join(self, *letters: str, namespace: str = "app", user: str = "app") -> None:
        """Workers say hello."""
        for number, letter in enumerate(letters):
            told = (nonce(letter), 1000 + number, 0, 500, user, f"web-{letter}", namespace, "0.1.0")
            self.say(WorkerJoined(*told))

    def leave(self, letter: str, segment_lost: bool = False) -> list[Effect]:
        """A worker dies."""
        return self.say(WorkerLeft(nonce(letter), segment_lost))

    def declare(
        self, letter: str, name: str = "database", row: int = 0, settings: BreakerSettings | None = None
    ) -> list[Effect]:
        """A worker declares a breaker."""
        text = json.dumps((settings or BreakerSettings()).to_json())
        return self.say(BreakerDeclared(nonce(letter), row, name, text))

    def declare_class(self, letter: str, row: int, name: str, breaker_row: int = 0) -> list[Effect]:
        """A worker declares the counter of an exception class."""
        return self.say(ClassDeclared(nonce(letter), row, breaker_row, name))

    def declare_counter(self, letter: str, row: int, operation: str = "load") -> list[Effect]:
        """A worker declares the counter of an operation's errors."""
        return self.say(CounterDeclared(nonce(letter), row, "DATABASE_QUERY", operation))

    def settle_in(self, *letters: str, settings: BreakerSettings | None = None) -> None:
        """Workers join and declare one breaker each on row 0."""
        self.join(*letters)
        for letter in letters:
            self.declare(letter, settings=settings)

    def outcomes(self, *calls: tuple[str, int], row: int = 0, permit: int = -1) -> list[Effect]:
        """One drain: (worker, kind) pairs in the order of their ends, counted and judged."""
        judged, per_worker = [], dict[str, dict[int, int]]()
        for letter, kind in calls:
            code = self.code(letter, row)
            judged.append(Judged(nonce(letter), row, kind, code, permit, self.now, 1))
            kinds = per_worker.setdefault(letter, {})
            kinds[kind] = kinds.get(kind, 0) + 1
        parts = tuple(
            taken(letter, counts=tuple((row, kind, 0, count) for kind, count in kinds.items()))
            for letter, kinds in per_worker.items()
        )
        return self.say(OutcomeBatch(parts, tuple(judged)))

    def code(self, letter: str, row: int = 0) -> int:
        """The generation code that this worker's board shows now."""
        return generation_code(self.board.get((nonce(letter), row), 0) >> 40 & 0xFFFFF)

    def ask(self, letter: str, ask: int = 1, row: int = 0) -> dict[str, Any]:
        """A worker asks for a permit; the answer's value."""
        self.say(PermitAsked(nonce(letter), row, ask))
        return self.answer()

    def command(self, verb: str, for_s: float | None = None, breaker: str = "app/database") -> list[Effect]:
        """An operator commands."""
        return self.say(Command(breaker, verb, for_s, "a test", 0, "root"))

    def probes(self, *rules: ProbeRule) -> list[Effect]:
        """The configuration file's probes."""
        return self.say(ProbesConfigured(rules))

    def probed(
        self, verdict: str, ago: float = 0.0, table: str = "database", digest: str = "", chance: float = 0.0
    ) -> list[Effect]:
        """A probe that was begun so many seconds ago has ended."""
        told = ProbeEnded(table, verdict, "connection refused", ago, self.now - ago, digest)
        return self.say(told, chance)

    def answer(self) -> dict[str, Any]:
        """The value of the one answer to the message said last."""
        (answer,) = (effect for effect in self.effects if isinstance(effect, Answer))
        return answer.value

    def refusal(self) -> str:
        """The code of the one refusal of the message said last."""
        (refused,) = (effect for effect in self.effects if isinstance(effect, Refused))
        return refused.code

    def published(self) -> dict[tuple[str, int], str]:
        """State by (letter, row) of the words that the message said last has published."""
        words = [effect for effect in self.effects if isinstance(effect, Publish)]
        return {(one.worker[0], one.row): state_name(one.word) for one in words}

    def events(self, kind: str = "") -> list[str]:
        """The texts of the events that the message said last has caused."""
        happened: Sequence[Happened] = [one for one in self.effects if isinstance(one, Happened)]
        return [one.text for one in happened if not kind or one.kind == kind]

    def states(self) -> dict[str, str]:
        """The state that each worker's row 0 shows."""
        return {worker[0]: state_name(word) for (worker, row), word in self.board.items() if row == 0}


def state_name(word: int) -> str:
    """The state that a board word shows."""
    names = ("-", "CLOSED", "OPEN", "HALF_OPEN", "FORCED_OPEN", "DISABLED", "METRICS_ONLY")
    return names[word >> 61]
