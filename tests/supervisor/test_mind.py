"""The mind: nothing leaves before its cause is in the checkpoint, and a failure loses nothing committed."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.actor import Stage
from supervisor.engine import Engine
from supervisor.image import read_image
from supervisor.journal import SNAPSHOT_AFTER_RECORDS, Journal
from supervisor.messages import Answer, BreakerDeclared, Effect, Happened, Publish, WorkerJoined
from supervisor.mind import AGAIN_S, Mind, Reseek, Tell, Told, rebuild
from supervisor.steps import passes_by

WORKER = "a" * 32
JOINED = WorkerJoined(WORKER, 1, 1, 0, "root", "web-1", "shop", "test")
DECLARED = BreakerDeclared(WORKER, 0, "database", "{}")


class Box:
    """An actor that keeps what it is sent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[Any] = []

    def receive(self, message: Any) -> None:
        """Keep it."""
        self.seen.append(message)

    def restart(self) -> None:
        """Nothing to forget."""


class Cramped(Journal):
    """A journal without room for a snapshot, or for a record, while the test says so."""

    room = True
    room_for_records = True
    tries = 0

    def snapshot(self, plain: Any) -> None:
        """Raises OSError if there is no room."""
        self.tries += 1
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.cramped = ""
        super().snapshot(plain)

    def append(self, now: float, chance: float, message: list[Any]) -> bool:
        """As if the half were full."""
        return self.room_for_records and super().append(now, chance, message)


class World:
    """A mind with a real journal, and an outlet that looks into the checkpoint whenever it is used."""

    def __init__(self, folder: Path) -> None:
        self.now = 10.0
        self.delivered: list[Effect] = []
        self.stage = Stage(lambda _: None, lambda: self.now, lambda _: None)
        journal = Cramped.open(str(folder), 1, "test")
        assert isinstance(journal, Cramped)
        self.journal = journal
        loaded = self.journal.load()
        assert loaded is None
        self.mind = Mind(Engine(), self.journal, self, lambda: self.now, lambda: 0.5, passes_by)
        self.mind.stage = self.stage
        self.sender, self.intake = Box("sender"), Box("intake")
        for actor in (self.mind, self.sender, self.intake):
            self.stage.add(actor)

    def deliver(self, effects: list[Effect]) -> None:
        """Called when effects leave: what caused them must be readable by a next daemon by now."""
        self.delivered += effects
        after_a_kill = rebuild(read_image(self.journal.image()))
        assert after_a_kill.to_plain() == self.mind.engine.to_plain()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A mind at work."""
    made = World(tmp_path)
    yield made
    made.journal.close()


def test_every_effect_leaves_after_its_cause_is_in_the_checkpoint(world: World) -> None:
    """R1: a kill at the moment of delivery finds an engine that knows all that was delivered."""
    world.stage.post("mind", Tell((JOINED, DECLARED), "sender", 7))
    assert world.sender.seen == [Told(7, Answer({"status": "new"}))]
    kinds = {type(effect) for effect in world.delivered}
    assert {Happened, Publish} <= kinds


def test_a_message_that_raises_is_dropped_and_the_reader_of_the_rings_goes_back(world: World) -> None:
    """The engine is built again from what was committed; later messages are handled as if nothing was."""
    world.stage.post("mind", Tell((JOINED,)))
    before = world.mind.engine.to_plain()
    impossible: Any = object()
    world.stage.post("mind", Tell((DECLARED, impossible), "sender", 1))
    assert (world.mind.engine.to_plain(), world.sender.seen) == (before, [])
    assert world.intake.seen == [Reseek()]
    world.stage.post("mind", Tell((DECLARED,), "sender", 2))
    assert world.sender.seen == [Told(2, None)]
    assert list(world.mind.engine.catalogue.named) == ["shop/database"]


def test_many_messages_are_read_back_through_snapshots_and_records(world: World) -> None:
    """Over several snapshots the rebuilt engine is the one that lives."""
    for number in range(40):
        nonce = f"{number:032x}"
        world.stage.post("mind", Tell((WorkerJoined(nonce, 1, 1, 0, "root", "w", "root", "test"),)))
        world.stage.post("mind", Tell((BreakerDeclared(nonce, 0, "database", "{}"),)))
        world.now += 0.01
    assert rebuild(read_image(world.journal.image())).to_plain() == world.mind.engine.to_plain()


def joined(number: int) -> WorkerJoined:
    """Another worker."""
    return WorkerJoined(f"{number:032x}", 1, 1, 0, "root", "w", "root", "test")


def test_a_snapshot_that_finds_no_room_is_told_and_the_records_go_on(world: World) -> None:
    """Everything is committed meanwhile, it is tried now and then, and made up for without a message."""
    world.stage.post("mind", Tell((JOINED,)))
    world.journal.room = False
    many = tuple(joined(number) for number in range(SNAPSHOT_AFTER_RECORDS + 1))
    world.stage.post("mind", Tell(many, "sender", 1))
    world.stage.post("mind", Tell((DECLARED,), "sender", 2))
    assert [told.ticket for told in world.sender.seen] == [1, 2]
    assert world.journal.tries == 2, "the first of all, and one in vain"
    assert "no room" in world.journal.cramped
    assert world.mind.problem == ""
    world.now += AGAIN_S
    world.mind.make_room()
    assert (world.journal.tries, "no room" in world.journal.cramped) == (3, True)
    world.journal.room = True
    world.mind.make_room()
    assert "no room" in world.journal.cramped, "it is not tried all the time"
    world.now += AGAIN_S
    world.mind.make_room()
    assert world.journal.cramped == ""
    assert rebuild(read_image(world.journal.image())).to_plain() == world.mind.engine.to_plain()


def test_without_room_for_a_record_the_message_fails_and_what_was_committed_stays(world: World) -> None:
    """Health says that it is not ready; the engine is that of the last commit."""
    world.stage.post("mind", Tell((JOINED,)))
    before = world.mind.engine.to_plain()
    world.journal.room = world.journal.room_for_records = False
    world.stage.post("mind", Tell((DECLARED,), "sender", 1))
    assert (world.mind.engine.to_plain(), world.sender.seen) == (before, [])
    assert world.mind.problem == "No space left on device"
    world.journal.room = world.journal.room_for_records = True
    world.stage.post("mind", Tell((DECLARED,), "sender", 2))
    assert (world.sender.seen, world.mind.problem) == ([Told(2, None)], "")


def test_at_the_start_it_waits_until_there_is_room(world: World) -> None:
    """Another life would find no more: what was handled once is committed once, when it can be."""
    world.journal.room = False
    waits: list[str] = []

    def wait(problem: str) -> None:
        waits.append(problem)
        world.journal.room = len(waits) == 3

    world.mind.transact((JOINED, DECLARED), wait)
    assert waits == ["No space left on device"] * 3
    assert list(world.mind.engine.workers) == [WORKER]
    assert world.delivered
