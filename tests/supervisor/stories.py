"""Random stories for the engine: every kind of message, with outcomes that fit what the boards show.

A strategy cannot know which generation a board shows when a call is admitted, nor which permit was
given. So a story says CURRENT and GIVEN, and `live` puts in what the engine shows at that moment.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from hypothesis import strategies as st

from ipc.circuit import generation_code
from ipc.layout import BOARD_GENERATION_MASK
from ipc.vocabulary import BreakerSettings, CountWindow, OutcomeKind, TimeWindow
from supervisor.engine import Engine
from supervisor.messages import (
    BreakerDeclared,
    ClassDeclared,
    Command,
    Configured,
    CounterDeclared,
    DaemonStarted,
    Effect,
    Forget,
    Judged,
    Message,
    OutcomeBatch,
    PermitAsked,
    PermitReturned,
    ProbeEnded,
    ProbeRule,
    ProbesConfigured,
    Taken,
    Tick,
    WorkerForgotten,
    WorkerJoined,
    WorkerLeft,
    WorkerQuarantined,
)

CURRENT: Final = 0
"""As a generation code: that of the worker's board at that moment."""
GIVEN: Final = -2
"""As a permit: the oldest live one that this worker holds at that moment, else none."""

NONCES: Final = tuple(letter * 32 for letter in "abcde")
WORKERS: Final = st.sampled_from(NONCES[:2] * 3 + NONCES)
ROWS: Final = st.sampled_from((0, 0, 0, 0, 1, 2))
NAMES: Final = st.sampled_from(("database", "database", "cache"))
SETTINGS: Final = (
    BreakerSettings(recovery_timeout=0.5, trial_timeout=0.5, successes_to_close=1),
    BreakerSettings(failure_threshold=2, window=CountWindow(8), minimum_calls=3, permitted_trials=1),
    BreakerSettings(
        failure_threshold=None,
        failure_rate=0.4,
        minimum_calls=2,
        window=TimeWindow(2.0),
        slow_call_s=0.1,
        slow_call_rate=0.5,
        recovery_timeout=0.1,
    ),
)
JSONS: Final = tuple(json.dumps(one.to_json()) for one in SETTINGS)
OUTCOMES: Final = tuple(int(kind) for kind in OutcomeKind if kind is not OutcomeKind.COUNT)
KINDS: Final = st.sampled_from((int(OutcomeKind.FAILURE),) * 7 + OUTCOMES)
VERBS: Final = st.sampled_from(("force-open", "disable", "metrics-only", "reset", "enable", "?"))


@dataclass(frozen=True)
class Said:
    """One message with the time that has passed since the last one, and its chance."""

    message: Message
    after_s: float = 0.0
    chance: float = 0.0


@st.composite
def drains(draw: st.DrawFn) -> OutcomeBatch:
    """One drain over some workers, with everything that a drain can hold."""
    parts = []
    for worker in draw(st.lists(WORKERS, unique=True, max_size=3)):
        counts = draw(st.lists(st.tuples(ROWS, KINDS, st.integers(0, 1), st.integers(1, 9)), max_size=3))
        tallies = draw(st.lists(st.tuples(ROWS, st.integers(0, 15), st.integers(0, 50)), max_size=3))
        durations = draw(st.lists(st.tuples(ROWS, st.just(((40, 2), (41, 1)))), max_size=2))
        position, hole, declared = (draw(st.integers(0, 9)) for _ in range(3))
        lost = position // 9, hole // 9
        part = Taken(worker, position, 90, ((hole, 90),), declared, *lost, tuple(counts), (), ())
        parts.append(replace(part, durations=tuple(durations), tallies=tuple(tallies)))
    judged = draw(
        st.lists(
            st.builds(
                Judged,
                WORKERS,
                ROWS,
                KINDS,
                st.sampled_from((CURRENT,) * 8 + (1, 2, 15)),
                st.sampled_from((-1, -1, GIVEN, GIVEN, 3)),
                st.sampled_from((0.0, 0.0, 0.01, 0.2, 5.0, -1.0)),
                st.integers(1, 6),
            ),
            max_size=12,
        )
    )
    return OutcomeBatch(tuple(parts), tuple(judged))


JOINED: Final = st.builds(
    WorkerJoined,
    WORKERS,
    st.just(7),
    st.integers(0, 2),
    st.sampled_from((500, 501, 0)),
    *map(st.just, ("app", "web", "app", "0.1.0")),
)
COMMANDS: Final = st.builds(
    Command,
    st.sampled_from(("app/database", "app/cache", "app/nothing")),
    VERBS,
    st.sampled_from((None, 0.5, 3.0)),
    st.just("why"),
    st.just(0),
    st.just("root"),
)
TABLES: Final = st.tuples(
    st.sampled_from(("database", "app/cache")), st.sampled_from((*JSONS, "{}")), st.booleans()
)
RULES: Final = st.builds(
    ProbeRule,
    st.sampled_from(("database", "app/database", "app/cache")),
    st.integers(1, 2),
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from((0.5, 4.0)),
    st.sampled_from(("1", "1", "2")),
)
PROBES: Final = st.lists(RULES, max_size=2, unique_by=lambda one: one.table).map(tuple)
VERDICTS: Final = st.builds(
    ProbeEnded,
    st.sampled_from(("database", "database", "app/cache", "app/database")),
    st.sampled_from(("passed", "passed", "failed", "failed", "error", "?")),
    st.just("connection refused"),
    st.just(0.25),
    st.sampled_from((0.0, 0.0, 0.01, 5.0, -1.0)),
    st.sampled_from(("1", "1", "1", "2")),
)
MESSAGES: Final[st.SearchStrategy[Message]] = st.one_of(
    *[drains()] * 8,
    *[st.builds(PermitAsked, WORKERS, ROWS, st.integers(1, 40))] * 4,
    *[VERDICTS] * 4,
    *[st.just(Tick())] * 2,
    st.builds(ProbesConfigured, PROBES),
    JOINED,
    st.builds(BreakerDeclared, WORKERS, ROWS, NAMES, st.sampled_from((*JSONS, "garbage"))),
    st.builds(ClassDeclared, WORKERS, ROWS, ROWS, st.sampled_from(("TimeoutError", "OSError"))),
    st.builds(CounterDeclared, WORKERS, ROWS, st.just("DATABASE_QUERY"), st.sampled_from(("load", "store"))),
    st.builds(PermitReturned, WORKERS, ROWS, st.integers(1, 6)),
    COMMANDS,
    st.builds(WorkerLeft, WORKERS, st.booleans()),
    st.builds(WorkerForgotten, WORKERS),
    st.builds(Forget, st.sampled_from(("", "", "app/database", "app/cache")), st.just(0), st.just("root")),
    st.builds(WorkerQuarantined, WORKERS, st.just("garbage")),
    st.builds(Configured, st.lists(TABLES, max_size=2, unique_by=lambda one: one[0]).map(tuple)),
    st.builds(DaemonStarted, st.integers(1, 3), st.sampled_from((7, 7, 7, 8)), st.just(())),
)
PAUSES: Final = st.sampled_from((0.0, 0.0, 0.01, 0.3, 1.0, 12.0) * 3 + (90_000.0,))
STORIES: Final = st.lists(st.builds(Said, MESSAGES, PAUSES, st.floats(0.0, 0.999)), min_size=12, max_size=40)


def attached(count: int) -> list[Said]:
    """So many workers on one breaker."""
    joined = [Said(WorkerJoined(one, 7, 0, 500, "app", "web", "app", "")) for one in NONCES[:count]]
    return joined + [Said(BreakerDeclared(one, 0, "database", JSONS[0])) for one in NONCES[:count]]


def outage(count: int) -> list[Said]:
    """So many workers whose breaker has opened for all and lets trials through now."""
    failed = int(OutcomeKind.FAILURE)
    judged = tuple(Judged(one, 0, failed, CURRENT, -1, 0.0, 6) for one in NONCES[:count])
    return [*attached(count), Said(OutcomeBatch((), judged)), Said(Tick(), 1.0)]


def probed(count: int) -> list[Said]:
    """So many workers whose breaker is open, and kept so by a probe that fails."""
    rules = (ProbeRule("database", 1, 1, True, 4.0, "1"), ProbeRule("app/cache", 2, 2, True, 4.0, "1"))
    story = [Said(ProbesConfigured(rules)), *outage(count)]
    failed = Said(ProbeEnded("database", "failed", "refused", 0.1, 0.0, "1"), 0.1)
    return [*story[:-1], failed, story[-1]]


def one_sick() -> list[Said]:
    """Four workers, the first of which fails while the others succeed: it is isolated."""
    story = attached(4)
    for _ in range(6):
        peers = [Judged(one, 0, int(OutcomeKind.SUCCESS), CURRENT, -1, 0.0, 3) for one in NONCES[1:4]]
        story.append(Said(OutcomeBatch((), tuple(peers)), 0.2))
        sick = Judged(NONCES[0], 0, int(OutcomeKind.FAILURE), CURRENT, -1, 0.0, 1)
        story.append(Said(OutcomeBatch((), (sick,)), 0.2))
    return story


BEGINNINGS: Final = st.sampled_from(
    ([], attached(2), attached(4), outage(2), outage(4), probed(2), probed(4), one_sick())
)
"""How stories begin: else few of them would get anywhere."""
WHOLE: Final = st.builds(list.__add__, BEGINNINGS, STORIES)


def live(engine: Engine, story: Iterable[Said], now: float) -> Iterator[tuple[Said, float, list[Effect]]]:
    """Tell a story to an engine: each message as it was said, the time, and its effects."""
    for told in story:
        now += told.after_s
        said = told
        if isinstance(told.message, OutcomeBatch):
            judged = tuple(_fit(engine, one, now) for one in told.message.judged)
            said = replace(told, message=replace(told.message, judged=judged))
        if isinstance(told.message, ProbeEnded):
            said = replace(told, message=replace(told.message, started=now - told.message.started))
        yield said, now, engine.handle(said.message, now, said.chance)


def _fit(engine: Engine, seen: Judged, now: float) -> Judged:
    """An outcome with the generation and permit that its worker has, ended `seen.end` seconds ago."""
    worker = engine.workers.get(seen.worker)
    row = worker.rows.get(seen.row) if worker is not None else None
    code, permit = seen.generation or 1, -1 if seen.permit == GIVEN else seen.permit
    if row is not None:
        if seen.permit == GIVEN:
            leases = row.breaker.breaker.leases.values()
            permit = next((lease.permit & 63 for lease in leases if lease.party == seen.worker), -1)
        if seen.generation == CURRENT and row.class_name is None:
            code = generation_code(row.breaker.shown[seen.worker, seen.row] >> 40 & BOARD_GENERATION_MASK)
    return replace(seen, generation=code, permit=permit, end=now - seen.end)
