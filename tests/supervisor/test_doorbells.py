"""Each user rings a bell of its own: whatever it does with it, the daemon neither waits nor spins."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from supervisor import descriptors
from supervisor.doorbells import RINGS_MAX, Doorbells
from tests.supervisor.test_connections import Loop

FULL = 2**64 - 2


class Tower:
    """Bells, a loop, what the nursery was sent, and how often a ring was told."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.sent: list[tuple[bytes, int, int]] = []
        self.room = True
        self.told = 0
        self.bells = Doorbells({}, self.loop, self.send, self.rung)
        self.bells.start()

    def send(self, data: bytes, numbers: tuple[int, ...]) -> bool:
        """To the nursery."""
        if self.room:
            self.sent.append((data[:1], int.from_bytes(data[1:], "big"), len(numbers)))
        return self.room

    def rung(self) -> None:
        """Somebody rang."""
        self.told += 1

    def heard(self) -> int:
        """How often a ring is told until nothing happens any more. A loop that waits is ended by a signal."""
        before = self.told
        signal.alarm(10)
        self.loop.spin()
        signal.alarm(0)
        return self.told - before


@pytest.fixture
def tower() -> Iterator[Tower]:
    """Bells of nobody yet."""
    made = Tower()
    yield made
    made.room = True
    made.bells.keep(())


def test_each_ring_is_told_and_reset(tower: Tower) -> None:
    """Of any user; a ring that was heard does not come back, the next one is new."""
    one, other = tower.bells.of(1001), tower.bells.of(1002)
    assert one != other
    assert tower.bells.of(1001) == one
    for bell in (one, other, one):
        os.eventfd_write(bell, 1)
        assert tower.heard() == 1
    assert tower.heard() == 0
    with pytest.raises(BlockingIOError):
        os.eventfd_read(one)


def test_a_bell_that_would_block_and_is_stolen_stops_nobody(tower: Tower) -> None:
    """A worker clears O_NONBLOCK, rings, and takes its ring back before the daemon reads."""
    bell = tower.bells.of(1001)
    os.set_blocking(bell, True)
    for _ in range(3):
        os.eventfd_write(bell, 1)
        os.eventfd_read(bell)
        assert tower.heard() <= 1
    os.eventfd_write(bell, 1)
    assert tower.heard() == 1


def test_a_full_counter_is_emptied_so_that_no_writer_waits(tower: Tower) -> None:
    """Also when its owner rings too often to be listened to, and when it would block."""
    bell = tower.bells.of(1001)
    os.set_blocking(bell, True)
    for _ in range(RINGS_MAX + 3):
        signal.alarm(10)
        os.eventfd_write(bell, FULL)
        signal.alarm(0)
        tower.heard()
        tower.bells.listen_again()
    tower.bells.listen_again()
    os.eventfd_write(bell, FULL)


def test_who_rings_without_pause_is_not_listened_to_until_the_pause_is_over(tower: Tower) -> None:
    """A thousand rings are a few; another user's ring is heard meanwhile."""
    busy, other = tower.bells.of(1001), tower.bells.of(1002)
    heard = 0
    for _ in range(1000):
        os.eventfd_write(busy, 1)
        heard += tower.heard()
    assert heard == RINGS_MAX
    os.eventfd_write(other, 1)
    assert tower.heard() == 1
    tower.bells.listen_again()
    os.eventfd_write(busy, 1)
    assert tower.heard() == 1


def test_the_nursery_keeps_what_lives_and_is_asked_again_when_it_was_full(tower: Tower) -> None:
    """A bell it could not take is sent later; one of a user without workers is taken back."""
    tower.room = False
    tower.bells.of(1001)
    tower.bells.of(1002)
    tower.bells.keep((1001, 1002))
    assert tower.sent == []
    tower.room = True
    tower.bells.keep((1001,))
    assert tower.sent == [(descriptors.UNBELL, 1002, 0), (descriptors.BELL, 1001, 1)]
    tower.bells.keep((1001,))
    assert len(tower.sent) == 2


def test_the_next_life_hears_the_same_bells_and_forgets_them_for_good(tower: Tower) -> None:
    """A copy that lives elsewhere rings; once forgotten it is heard no more, though the copy lives on."""
    copy = os.dup(tower.bells.of(1001))
    later = Tower()
    later.bells = Doorbells({1001: os.dup(copy)}, later.loop, later.send, later.rung)
    later.bells.start()
    os.eventfd_write(copy, 1)
    assert later.heard() == 1
    later.bells.keep(())
    os.eventfd_write(copy, 1)
    assert later.heard() == 0
    os.close(copy)
