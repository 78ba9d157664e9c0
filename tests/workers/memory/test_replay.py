"""Replay: once in effect, in each user's order, whatever dies, and nothing blocks the rest."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.exc import DataError, OperationalError

from ipc import CircuitBreaker
from workers.classify import counts_as_failure
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation
from workers.memory.replay import Progress, Replayer
from workers.memory.replay_thread import ReplayThread
from workers.memory.spool import Spool
from workers.memory.spooled import erasure_of, look, record_of
from workers.memory.store import Store

REFUSED = OperationalError("INSERT", {}, ConnectionRefusedError(111, "connection refused"))


class _Bad(Exception):
    sqlstate = "22021"


class Pretend:
    """A database of one dictionary, which may refuse everything or certain texts."""

    def __init__(self) -> None:
        self.rows: dict[str, Conversation] = {}
        self.order: list[str] = []
        self.erased: list[str] = []
        self.error: Exception | None = None
        self.poison: set[str] = set()

    def insert(self, conversations: Sequence[Conversation]) -> int:
        """All or nothing, and what is there is left alone."""
        if self.error is not None:
            raise self.error
        for one in conversations:
            if one.user_message in self.poison:
                raise DataError("INSERT", {}, _Bad("bad bytes"))
        new = [one for one in conversations if one.id not in self.rows]
        self.rows.update((one.id, one) for one in new)
        self.order += [one.user_message for one in new]
        return len(new)

    def erase(self, user_id: str, erased_at: datetime) -> None:
        """Forget a user."""
        if self.error is not None:
            raise self.error
        self.erased.append(user_id)
        self.rows = {
            key: one for key, one in self.rows.items() if one.user_id != user_id or one.created_at > erased_at
        }


class Stage:
    """A spool, a pretend database and a replayer on a clock that is moved."""

    def __init__(self, directory: str, rate_per_s: float = 1000.0) -> None:
        self.now = 0.0
        self.spool = Spool(directory, 64 << 20)
        self.store = Pretend()
        guard = CircuitBreaker("database", is_failure=counts_as_failure)
        self.replayer = Replayer(self.spool, self.store, guard, rate_per_s, 100, lambda: self.now)

    def say(self, text: str, user: str = "ann") -> Conversation:
        """Spool a conversation."""
        said = Conversation.now(user, text, "x")
        self.spool.put(record_of(said))
        return said

    def step(self) -> Progress:
        """One step, as soon as it is allowed."""
        self.now += 10.0
        return self.replayer.step()

    def close(self) -> None:
        """Close it."""
        self.replayer.give_lease()
        self.spool.close()


@pytest.fixture
def stage(tmp_path: Path, unattached: object) -> Iterator[Stage]:
    """An empty spool."""
    made = Stage(str(tmp_path / "spool"))
    yield made
    made.close()


def test_what_waits_is_stored_in_the_order_of_the_ids_and_removed(stage: Stage) -> None:
    """One step, one transaction, an empty spool."""
    for text in ("one", "two", "three"):
        stage.say(text)
    assert stage.step().applied == 3
    assert stage.store.order == ["one", "two", "three"]
    assert stage.spool.next_batch(1) == []
    assert stage.step() == Progress()


def test_the_rate_is_kept(tmp_path: Path, unattached: object) -> None:
    """Ten a second are ten a second: a batch is followed by the pause that it costs."""
    stage = Stage(str(tmp_path / "spool"), rate_per_s=10.0)
    for number in range(12):
        stage.say(str(number))
    first = stage.step()
    assert (first.applied, first.wait_s) == (5, 0.5)
    stage.now += 0.4
    assert stage.replayer.step().applied == 0
    stage.now += 0.11
    assert stage.replayer.step().applied == 5
    stage.close()


def test_a_database_that_is_down_blocks_and_loses_nothing(stage: Stage) -> None:
    """It waits longer and longer, until the breaker says when to come back; then all is stored."""
    stage.say("one")
    stage.store.error = REFUSED
    waits = [stage.step().wait_s for _ in range(3)]
    assert waits == sorted(waits)
    assert stage.step().blocked == "database"
    stage.store.error = None
    assert stage.step().applied == 1
    assert stage.replayer.totals.quarantined == 0


@pytest.mark.fault("G9")
def test_g9_a_poison_record_is_set_aside_and_the_rest_goes_on(stage: Stage) -> None:
    """It is kept, visible, with its reason; the others are stored, in their order."""
    for text in ("one", "bad", "three"):
        stage.say(text)
    stage.store.poison = {"bad"}
    progress = stage.step()
    assert (progress.applied, progress.quarantined) == (2, 1)
    assert stage.store.order == ["one", "three"]
    (aside,) = stage.spool.quarantined()
    assert aside.reason.startswith("sqlstate 22021: ")
    assert [one.user_message for one in look(stage.spool, "ann").conversations] == ["bad"]
    stage.store.poison = set()
    assert stage.spool.release() == 1
    assert stage.step().applied == 1


def test_an_unknown_error_does_not_block_for_ever(stage: Stage) -> None:
    """A record that fails for no known reason is kept for later after five times alone; the others go on."""
    stage.say("odd")
    stage.store.error = Exception("never seen")
    blocked = [stage.step().quarantined for _ in range(6)]
    assert sum(blocked) == 0
    assert stage.spool.views.counts() == (1, 0)
    stage.store.error = None
    stage.say("well")
    stage.replayer.guard.reset()
    for _ in range(12):
        stage.step()
    assert (stage.store.order, stage.spool.views.counts()) == (["odd", "well"], (0, 0))


@pytest.mark.parametrize("code", ["42P01", "42703", "42501", "3D000", "28P01", "25006", "0A000"])
def test_only_a_value_is_set_aside(stage: Stage, code: str) -> None:
    """What is wrong with the database or its set-up blocks, however often; mended, everything arrives."""
    stage.say("one")
    error = Exception("its set-up is wrong")
    error.sqlstate = code  # type: ignore[attr-defined] # as a driver's error has it
    stage.store.error = error
    assert [stage.step().blocked for _ in range(8)] == ["database"] * 8
    assert stage.replayer.blocked_s > 0.0
    stage.store.error = None
    assert stage.step().applied == 1
    assert (stage.replayer.totals.quarantined, stage.replayer.blocked_s) == (0, 0.0)


def test_an_erasure_stands_in_its_place(stage: Stage) -> None:
    """What was said before it is not stored, what was said after it is; nothing of the wish is left."""
    stage.say("other", "bob")
    old = stage.say("old")
    stage.spool.put(erasure_of("ann", old.created_at))
    stage.say("new")
    while stage.spool.next_batch(1):
        stage.step()
    assert stage.store.erased == ["ann"]
    assert sorted(one.user_message for one in stage.store.rows.values()) == ["new", "other"]


def test_an_erasure_that_cannot_be_completed_keeps_nobody_waiting(stage: Stage) -> None:
    """The cache is away: others go on, and the erasure is tried again later."""

    class Away:
        away = True

        def drop_user(self, _user_id: str) -> None:
            if self.away:
                raise ConnectionRefusedError(111, "connection refused")

    cache = stage.replayer.cache = Away()
    old = stage.say("old")
    stage.spool.put(erasure_of("ann", old.created_at))
    stage.say("other", "bob")
    stage.step()
    assert [one.user_message for one in stage.store.rows.values()] == ["other"]
    assert len(stage.spool.views.erasures()) == 1
    cache.away = False
    stage.step()
    assert stage.spool.views.erasures() == []


@pytest.mark.parametrize("step", ["read", "committed", "done"])
@pytest.mark.fault("G11")
def test_g11_a_replayer_that_dies_at_any_step_is_repeated_to_no_effect(
    tmp_path: Path, unattached: object, step: str
) -> None:
    """Killed between any two steps, then done by another: one row each, in order."""
    config = MemoryConfig(
        database_url=f"sqlite:///{tmp_path}/memory.db", spool_directory=str(tmp_path / "spool")
    )
    spool, store = Spool(config.spool_directory, 64 << 20), Store(config)
    said = [Conversation.now("ann", str(number), "x") for number in range(5)]
    spool.put(*map(record_of, said))

    def replayer() -> Replayer:
        guard = CircuitBreaker("database", is_failure=counts_as_failure)
        return Replayer(spool, store, guard, 1000.0)

    def die() -> None:
        mortal = replayer()
        mortal.at = lambda name: os._exit(9) if name == step else None
        mortal.step()

    _in_child(die)
    mine = replayer()
    mine.step()
    assert spool.next_batch(1) == []
    assert [one.id for one in store.export("ann")] == [one.id for one in said]
    mine.give_lease()
    spool.close()
    store.close()


def _in_child(work: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 9 << 8


@pytest.mark.fault("G12")
def test_g12_two_replayers_are_one_at_a_time(stage: Stage, tmp_path: Path) -> None:
    """The lease is one process's, and one replayer's within it; it goes with its holder."""
    stage.say("one")
    assert stage.replayer.take_lease()
    other = Stage(str(tmp_path / "spool"))
    assert other.step().blocked == "elsewhere"

    def blocked() -> None:
        os._exit(9 if Stage(str(tmp_path / "spool")).step().blocked == "elsewhere" else 1)

    _in_child(blocked)
    stage.replayer.give_lease()
    assert other.step().applied == 1
    other.close()


def test_the_thread_drains_ends_and_begins_again(stage: Stage) -> None:
    """It lives as long as something waits, and whoever wakes it later gets a new one."""
    real = Replayer(stage.spool, stage.store, stage.replayer.guard, 1000.0)
    thread = ReplayThread(real)
    for text in ("one", "two"):
        stage.say(text)
        thread.wake()
        assert thread.drain(5.0)
    worker = thread._thread
    if worker is not None:
        worker.join(5.0)
    assert stage.spool.is_empty
    assert "breakerd-replay" not in {one.name for one in threading.enumerate()}
    assert stage.store.order == ["one", "two"]
    thread.close()
