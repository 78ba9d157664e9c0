"""The journal is the checkpoint: a snapshot at any moment and the later messages give the same engine."""

from __future__ import annotations

import json
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from ipc.vocabulary import BreakerSettings, CountWindow, OutcomeKind, TimeWindow
from supervisor.engine import Engine
from supervisor.messages import (
    BreakerDeclared,
    ClassDeclared,
    Command,
    Configured,
    DaemonStarted,
    Judged,
    Message,
    OutcomeBatch,
    PermitAsked,
    PermitReturned,
    Taken,
    Tick,
    WorkerForgotten,
    WorkerJoined,
    WorkerLeft,
    WorkerQuarantined,
    from_plain,
    to_plain,
)

NONCES = tuple(letter * 32 for letter in "abcde")
WORKERS = st.sampled_from(NONCES)
ROWS = st.integers(0, 3)
NAMES = st.sampled_from(("database", "cache"))
SETTINGS = (
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
JSONS = tuple(json.dumps(one.to_json()) for one in SETTINGS)
KINDS = st.sampled_from([int(kind) for kind in OutcomeKind if kind is not OutcomeKind.COUNT])


@dataclass(frozen=True)
class Said:
    """One message with the time that has passed since the last one, and its chance."""

    message: Message
    after_s: float
    chance: float


@st.composite
def batches(draw: st.DrawFn) -> OutcomeBatch:
    """A drain over some workers, with everything that a drain can hold."""
    parts = []
    for worker in draw(st.lists(WORKERS, unique=True, max_size=3)):
        counts = draw(st.lists(st.tuples(ROWS, KINDS, st.integers(0, 1), st.integers(1, 9)), max_size=3))
        tallies = draw(st.lists(st.tuples(ROWS, st.integers(0, 15), st.integers(0, 50)), max_size=3))
        durations = draw(st.lists(st.tuples(ROWS, st.just(((40, 2), (41, 1)))), max_size=2))
        numbers = [draw(st.integers(0, 9)) for _ in range(3)]
        parts.append(
            Taken(
                worker,
                numbers[0],
                90,
                ((numbers[1], 90),),
                numbers[2],
                numbers[0] // 9,
                numbers[1] // 9,
                *map(tuple, (counts, durations, tallies)),
            )
        )
    judged = draw(
        st.lists(
            st.builds(
                Judged,
                WORKERS,
                ROWS,
                KINDS,
                st.integers(1, 15),
                st.sampled_from((-1, -1, -1, 1, 2, 3)),
                st.floats(98.0, 140.0, allow_nan=False),
                st.integers(1, 6),
            ),
            max_size=12,
        )
    )
    return OutcomeBatch(tuple(parts), tuple(judged))


MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        WorkerJoined,
        WORKERS,
        st.just(7),
        st.integers(0, 2),
        st.just(500),
        st.just("app"),
        st.just("web"),
        st.just("app"),
        st.just(""),
    ),
    st.builds(BreakerDeclared, WORKERS, ROWS, NAMES, st.sampled_from((*JSONS, "garbage"))),
    st.builds(ClassDeclared, WORKERS, ROWS, ROWS, st.sampled_from(("TimeoutError", "OSError"))),
    batches(),
    batches(),
    batches(),
    st.builds(PermitAsked, WORKERS, ROWS, st.integers(1, 4)),
    st.builds(PermitReturned, WORKERS, ROWS, st.integers(1, 6)),
    st.builds(
        Command,
        st.sampled_from(("app/database", "app/nothing")),
        st.sampled_from(("force-open", "disable", "metrics-only", "reset", "enable", "?")),
        st.sampled_from((None, 0.5, 3.0)),
        st.just("why"),
        st.just(0),
        st.just("root"),
    ),
    st.builds(WorkerLeft, WORKERS, st.booleans()),
    st.builds(WorkerForgotten, WORKERS),
    st.builds(WorkerQuarantined, WORKERS, st.just("garbage")),
    st.builds(
        Configured,
        st.lists(
            st.tuples(
                st.sampled_from(("database", "app/cache")), st.sampled_from((*JSONS, "{}")), st.booleans()
            ),
            max_size=2,
            unique_by=lambda one: one[0],
        ).map(tuple),
    ),
    st.builds(DaemonStarted, st.integers(1, 3), st.sampled_from((7, 7, 7, 8)), st.just(())),
    st.just(Tick()),
)
STORIES = st.lists(
    st.builds(Said, MESSAGES, st.sampled_from((0.0, 0.01, 0.3, 1.0, 12.0)), st.floats(0.0, 0.999)),
    max_size=40,
)
ATTACHED = [
    *(Said(WorkerJoined(one, 7, 0, 500, "app", "web", "app", ""), 0.0, 0.0) for one in NONCES[:3]),
    *(Said(BreakerDeclared(one, 0, "database", JSONS[0]), 0.0, 0.0) for one in NONCES[:3]),
]
"""Most stories begin with three workers on one breaker: else few of them would get anywhere."""


def tell(engine: Engine, story: list[Said], now: float) -> tuple[list[object], float]:
    """Handle a story; returns every effect and the time at its end."""
    effects: list[object] = []
    for said in story:
        now += said.after_s
        effects += engine.handle(from_plain(json.loads(json.dumps(to_plain(said.message)))), now, said.chance)
    return effects, now


@settings(max_examples=300, deadline=None)
@given(st.booleans(), STORIES, STORIES)
def test_snapshot_and_replay_give_the_same_engine_and_the_same_effects(
    attached: bool, before: list[Said], after: list[Said]
) -> None:
    """Whatever was said, a restored engine cannot be told from one that never stopped."""
    engine = Engine()
    _, now = tell(engine, (ATTACHED if attached else []) + before, 100.0)
    written = json.dumps(engine.to_plain(), allow_nan=False)
    restored = Engine.from_plain(json.loads(written))
    assert json.dumps(restored.to_plain()) == written
    assert restored.publications() == engine.publications()
    assert restored.next_time() == engine.next_time()
    assert tell(restored, after, now) == tell(engine, after, now)
    assert json.dumps(restored.to_plain()) == json.dumps(engine.to_plain())
    assert restored.publications() == engine.publications()


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_what_is_published_is_always_the_present_word(story: list[Said]) -> None:
    """After every message each row shows what its breaker says for its worker; nothing is overdue."""
    engine, now = Engine(), 100.0
    for said in ATTACHED + story:
        now += said.after_s
        engine.handle(said.message, now, said.chance)
        for one in engine.publications():
            breaker = engine.workers[one.worker].rows[one.row].breaker
            assert one.word == breaker.breaker.word(one.worker)
        assert engine.next_time() > now


@settings(max_examples=100, deadline=None)
@given(STORIES)
def test_counts_never_go_down(story: list[Said]) -> None:
    """Whoever joins, leaves or scribbles: no total is ever smaller than it was."""
    engine, now = Engine(), 100.0
    before: dict[str, list[int]] = {}
    for said in ATTACHED + story:
        now += said.after_s
        engine.handle(said.message, now, said.chance)
        for name, breaker in engine.catalogue.named.items():
            counted = [*breaker.metrics.outcomes, *breaker.metrics.tallies, *breaker.metrics.durations]
            assert all(map(int.__ge__, counted, before.get(name, [0] * len(counted))))
            before[name] = counted


@settings(max_examples=50, deadline=None)
@given(STORIES, st.floats(-90.0, 1000.0))
def test_a_shifted_clock_changes_nothing_but_times(story: list[Said], delta: float) -> None:
    """Moving there and back, the engine shows the same words; a saved one goes on with what remained."""
    engine = Engine()
    _, now = tell(engine, ATTACHED + story, 100.0)
    due = engine.next_time()
    counted = [breaker.metrics.to_plain()[:4] for breaker in engine.catalogue.numbered]
    engine.shift(delta)
    assert engine.next_time() == due or abs(engine.next_time() - now - delta - (due - now)) < 1e-6
    assert [breaker.metrics.to_plain()[:4] for breaker in engine.catalogue.numbered] == counted
