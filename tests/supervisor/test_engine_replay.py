"""The journal is the checkpoint: a snapshot at any moment and the later messages give the same engine."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.engine import Engine
from supervisor.messages import Effect, from_plain, to_plain
from supervisor.metrics import BreakerMetrics
from tests.supervisor.stories import BEGINNINGS, STORIES, WHOLE, Said, live


def lived(engine: Engine, story: list[Said]) -> float:
    """Tell a whole story; returns the time at its end."""
    return [100.0, *(now for _, now, _ in live(engine, story, 100.0))][-1]


def written(engine: Engine) -> str:
    """The snapshot as it stands in the journal; JSON that every reader can read."""
    return json.dumps(engine.to_plain(), allow_nan=False)


def replay(engine: Engine, records: list[str], now: list[float], chances: list[float]) -> list[list[Effect]]:
    """The effects of messages that come out of the journal."""
    messages = [from_plain(json.loads(record)) for record in records]
    return [engine.handle(*told) for told in zip(messages, now, chances, strict=True)]


@settings(max_examples=300, deadline=None)
@given(BEGINNINGS, STORIES, STORIES)
def test_snapshot_and_replay_give_the_same_engine_and_the_same_effects(
    beginning: list[Said], before: list[Said], after: list[Said]
) -> None:
    """Whatever was said, a restored engine cannot be told from one that never stopped."""
    engine = Engine()
    now = lived(engine, beginning + before)
    snapshot = written(engine)
    restored = Engine.from_plain(json.loads(snapshot))
    assert written(restored) == snapshot
    assert restored.publications() == engine.publications()
    assert restored.next_time() == engine.next_time()
    told = list(live(engine, after, now))
    records = [json.dumps(to_plain(said.message)) for said, _, _ in told]
    again = replay(restored, records, [at for _, at, _ in told], [said.chance for said, _, _ in told])
    assert again == [effects for _, _, effects in told]
    assert written(restored) == written(engine)
    assert restored.publications() == engine.publications()


@settings(max_examples=150, deadline=None)
@given(WHOLE)
def test_what_is_published_is_always_the_present_word(story: list[Said]) -> None:
    """After every message each row shows what its breaker says for its worker; nothing is overdue."""
    engine = Engine()
    for _, now, _ in live(engine, story, 100.0):
        for one in engine.publications():
            breaker = engine.workers[one.worker].rows[one.row].breaker
            assert one.word == breaker.breaker.word(one.worker)
        assert engine.next_time() > now


@settings(max_examples=100, deadline=None)
@given(WHOLE)
def test_counts_never_go_down(story: list[Said]) -> None:
    """Whoever joins, leaves, scribbles or forgets: no count and no total is ever smaller."""
    engine = Engine()
    before: dict[int, list[int]] = {}
    for _ in live(engine, story, 100.0):
        total = _counted(engine.catalogue.forgotten)
        for number, breaker in engine.catalogue.by_number.items():
            counted = _counted(breaker.metrics)
            assert all(map(int.__ge__, counted, before.get(number, [0] * len(counted))))
            before[number] = counted
            total = list(map(int.__add__, total, counted))
        assert all(map(int.__ge__, total, before.get(-1, [0] * len(total))))
        before[-1] = total


def _counted(metrics: BreakerMetrics) -> list[int]:
    return [*metrics.outcomes, *metrics.tallies, *metrics.durations]


@settings(max_examples=100, deadline=None)
@given(WHOLE)
def test_live_permits_never_exceed_the_limit(story: list[Said]) -> None:
    """At any moment a breaker has at most so many trials in flight, all of attached workers."""
    engine = Engine()
    for said, _, _ in live(engine, story, 100.0):
        for breaker in engine.catalogue.numbered:
            leases = breaker.breaker.leases.values()
            # A reload may lower the limit under permits that were given before: 3 is the highest here.
            assert len(leases) <= 3, said
            assert {lease.party for lease in leases} <= engine.workers.keys()


@settings(max_examples=100, deadline=None)
@given(WHOLE, st.integers(-90, 1000))
def test_a_shifted_clock_changes_nothing_but_times(story: list[Said], delta: int) -> None:
    """After a reboot the saved engine goes on with what remained of every time."""
    engine = Engine()
    now = lived(engine, story)
    due = engine.next_time() - now
    counted = [breaker.metrics.to_plain()[:4] for breaker in engine.catalogue.numbered]
    engine.shift(float(delta))
    assert engine.next_time() - delta == pytest.approx(now + due)
    assert [breaker.metrics.to_plain()[:4] for breaker in engine.catalogue.numbered] == counted
