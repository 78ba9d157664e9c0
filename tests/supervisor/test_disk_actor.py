"""The copy in the state directory: one at a time, told once when it fails, and made again when it can be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from supervisor.actor import Stage
from supervisor.disk import DiskCopy
from supervisor.disk_actor import CopyDue, DiskActor
from supervisor.errand import Errand
from supervisor.mind import Mind


class Threads:
    """Pretends to be an errand: its work is done when the test says, unless there is no thread."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], object], Callable[[], None]]] = []
        self.free = True

    def __call__(self, work: Callable[[], object], done: Callable[[], None]) -> None:
        """Keep it."""
        if not self.free:
            raise RuntimeError("can't start new thread")
        self.waiting.append((work, done))

    def idle(self, seconds: float) -> bool:
        """Nothing is waited for here."""
        return not self.waiting

    def turn(self) -> int:
        """Do what waits; how much it was."""
        number = len(self.waiting)
        for work, done in self.waiting[:]:
            del self.waiting[0]
            work()
            done()
        return number


class World:
    """An actor with a journal that the test changes, on a real directory."""

    def __init__(self, folder: Path) -> None:
        self.threads = Threads()
        self.image = b"first"
        self.now = 5.0
        self.disk = DiskCopy(str(folder))
        mind = SimpleNamespace(journal=SimpleNamespace(image=lambda: self.image))
        stage = Stage(lambda _: None, lambda: 0.0, lambda _: None)
        self.stage = stage
        self.actor = DiskActor(self.disk, cast(Mind, mind), cast(Errand, self.threads), lambda: self.now, 7)
        self.actor.stage = stage
        stage.add(self.actor)

    def due(self) -> int:
        """It is time for a copy; how many were made."""
        self.stage.post("disk", CopyDue())
        return self.threads.turn()


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A world in a directory of its own."""
    return World(tmp_path)


def test_a_copy_is_made_when_something_changed(world: World) -> None:
    """And never two at a time."""
    assert [world.due(), world.due()] == [1, 0]
    world.image = b"second"
    world.stage.post("disk", CopyDue())
    world.stage.post("disk", CopyDue())
    assert world.threads.turn() == 1
    assert world.disk.load().image == b"second"


def test_the_rate_is_that_of_the_last_minute(world: World) -> None:
    """It rises with what is copied, and an idle host comes to nothing."""
    assert world.actor.bytes_per_s == 0.0
    for number in range(20):
        world.now += 1.0
        world.image = str(number).encode() * 9
        world.due()
    assert world.actor.bytes_per_s == pytest.approx(world.disk.written / 20.0)
    world.now += 90.0
    assert [world.due(), world.actor.bytes_per_s] == [0, 0.0]


def test_without_a_thread_it_says_so_once_and_makes_the_newest_later(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing old is kept to be written then, and the actor has not failed."""
    caplog.set_level(logging.WARNING)
    world.threads.free = False
    assert [world.due() for _ in range(20)] == [0] * 20
    assert "no thread" in world.actor.problem
    world.image = b"second"
    assert world.due() == 0
    world.threads.free = True
    assert world.due() == 1
    assert (world.actor.problem, world.disk.load().image) == ("", b"second")
    assert world.stage.restarts() == {"disk": 0}
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_the_last_copy_is_left_out_while_one_is_being_written(world: World) -> None:
    """The disk hangs: two must not write one file."""
    world.stage.post("disk", CopyDue())
    world.image = b"second"
    world.actor.save_now()
    assert world.disk.load().image is None
    world.threads.turn()
    world.actor.save_now()
    assert world.disk.load().image == b"second"
