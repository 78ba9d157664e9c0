"""The daemon's ends of talks: real sockets, a pretend loop, and whatever may be at the other end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from supervisor import descriptors
from supervisor.probes import Key, ProberCame, ProberEnded, ProberSaid
from supervisor.talks import MESSAGE_MAX, READS_MAX, Talks

KEY: Key = ("prober:1", 101)


class Loop:
    """A loop that a test turns."""

    def __init__(self) -> None:
        self.readers: dict[int, tuple[Callable[..., object], tuple[Any, ...]]] = {}

    def add_reader(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Watch it."""
        self.readers[fd] = (callback, args)

    def remove_reader(self, fd: int) -> None:
        """Do not."""
        del self.readers[fd]

    def add_writer(self, fd: int, callback: Callable[..., object], *args: Any) -> None:
        """Nobody needs it."""
        raise AssertionError

    def remove_writer(self, fd: int) -> None:
        """Nobody needs it."""
        raise AssertionError

    def turn(self) -> None:
        """Everything is readable."""
        for callback, args in list(self.readers.values()):
            callback(*args)


class World:
    """Talks with one prober, whose end is `theirs`."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.posted: list[Any] = []
        self.sent: list[tuple[bytes, tuple[int, ...]]] = []
        self.threads = True
        self.work: list[tuple[Callable[[], object], Callable[[], None]]] = []
        self.talks = Talks(
            self.loop, self.posted.append, lambda data, numbers: self.sent.append((data, numbers)), self.run
        )
        self.ends: list[socket.socket] = []
        self.theirs = self.come(KEY)

    def come(self, key: Key) -> socket.socket:
        """A prober comes; its end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ends.append(theirs)
        self.talks.add(*key, ours.detach())
        return theirs

    def run(self, work: Callable[[], object], done: Callable[[], None]) -> None:
        """In a thread, if there can be one; here it is done when the test wants it."""
        if not self.threads:
            raise RuntimeError("can't start new thread")
        self.work.append((work, done))

    def close(self) -> None:
        """Close both sides of everything."""
        for message in self.posted:
            self.talks.hang_up(message.key)
        for end in self.ends:
            end.close()


@pytest.fixture
def world() -> Iterator[World]:
    """Talks with one prober."""
    made = World()
    yield made
    made.close()


def test_messages_go_both_ways_and_an_end_is_told_once(world: World) -> None:
    """And the descriptor is closed then."""
    assert world.talks.say(KEY, b"hello")
    assert world.theirs.recv(99) == b"hello"
    world.theirs.send(b"one")
    world.theirs.send(b"two")
    world.theirs.close()
    before = len(os.listdir("/proc/self/fd"))
    world.loop.turn()
    world.loop.turn()
    assert world.posted == [
        ProberCame(KEY),
        ProberSaid(KEY, b"one"),
        ProberSaid(KEY, b"two"),
        ProberEnded(KEY),
    ]
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert not world.talks.say(KEY, b"anybody")


def test_one_prober_that_talks_without_end_does_not_take_the_loop(world: World) -> None:
    """It is read a few messages at a time."""
    world.theirs.setblocking(False)
    count = 0
    with pytest.raises(BlockingIOError):
        while True:
            world.theirs.send(b"x")
            count += 1
    assert count > READS_MAX
    world.loop.turn()
    assert len(world.posted) == 1 + READS_MAX


def test_a_prober_that_reads_nothing_is_not_waited_for(world: World) -> None:
    """Its queue is full: no message is sent."""
    while world.talks.say(KEY, b"x" * 1000):
        pass
    world.come(("prober:2", 102))
    assert world.talks.say(("prober:2", 102), b"x")


def test_a_message_that_is_too_long_is_cut(world: World) -> None:
    """What remains is for the reader to make sense of, or not."""
    world.theirs.send(b"x" * (MESSAGE_MAX + 1))
    world.loop.turn()
    assert world.posted[1:] == [ProberSaid(KEY, b"x" * MESSAGE_MAX)]


def test_the_same_prober_told_of_twice_has_one_end(world: World) -> None:
    """The nursery tells a new daemon of what it has inherited, perhaps again."""
    again = world.come(KEY)
    world.loop.turn()
    assert world.talks.say(KEY, b"hello")
    assert again.recv(99) == b"hello"
    assert world.theirs.recv(99) == b""
    assert len(world.loop.readers) == 1


def test_the_nursery_kills_probers(world: World) -> None:
    """By title and pid: it knows whether that is still the same process."""
    world.talks.kill(KEY)
    ((data, numbers),) = world.sent
    assert (data[:1], json.loads(data[1:]), numbers) == (
        descriptors.KILL,
        {"title": "prober:1", "pid": 101},
        (),
    )


def test_a_program_is_killed_with_its_group_and_our_own_never_is(world: World) -> None:
    """Nor is one that is gone an error."""
    world.talks.kill_group(os.getpgrp())
    with subprocess.Popen(["/bin/sh", "-c", "sleep 600 & wait"], process_group=0) as process:
        world.talks.kill_group(process.pid)
        assert process.wait(10.0) == -signal.SIGKILL
    world.talks.kill_group(process.pid)


def test_strays_are_looked_for_in_one_thread_at_a_time(world: World) -> None:
    """Where none can be had they are looked for the next time."""
    world.threads = False
    world.talks.sweep()
    world.threads = True
    world.talks.sweep()
    world.talks.sweep()
    ((_, done),) = world.work
    done()
    world.talks.sweep()
    assert len(world.work) == 2
