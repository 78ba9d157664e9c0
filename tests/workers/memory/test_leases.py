"""The lease: one holder, who is got round if he stands still, and is obeyed again when he moves."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.workers.memory.posts import free, holder
from workers.memory.leases import LEASES, MANAGED, STILL_S, Lease, MovingLock

LATER_NS = int(1e9 * (STILL_S + 1.0))


class Clock:
    """The host's clock, and how far a test has moved it on."""

    ahead_ns = 0

    def __call__(self) -> int:
        """Now."""
        return time.monotonic_ns() + self.ahead_ns


@pytest.fixture
def names(tmp_path: Path) -> list[str]:
    """The files of the leases."""
    return [str(tmp_path / name) for name in LEASES]


def test_one_has_it_and_nobody_else(tmp_path: Path, names: list[str]) -> None:
    """Taken again and again it is the same one; given, it is free."""
    lease = Lease(str(tmp_path))
    assert lease.take()
    assert lease.take()
    assert not free(names[0])
    assert not Lease(str(tmp_path)).take()
    lease.give()
    assert free(names[0])


def test_a_holder_that_stands_still_is_got_round_until_it_moves(tmp_path: Path, names: list[str]) -> None:
    """Another one goes on under the next lease, alone; and gives it up for a holder that moves again."""
    clock = Clock()
    lease = Lease(str(tmp_path), clock)
    with holder(names[0]):
        assert not lease.take()
        clock.ahead_ns = LATER_NS
        assert lease.take()
        assert (free(names[1]), free(names[2])) == (False, True)
        clock.ahead_ns = 0
        assert not lease.take()
        assert free(names[1])


def test_of_those_who_get_round_it_one_goes_on(tmp_path: Path, names: list[str]) -> None:
    """The second lease has one holder, too; if he stands still there is a third."""
    clock = Clock()
    clock.ahead_ns = LATER_NS
    lease = Lease(str(tmp_path), clock)
    with holder(names[0]):
        clock.ahead_ns = 0
        with holder(names[1]):
            clock.ahead_ns = LATER_NS
            assert lease.take()
            assert not free(names[2])
        assert lease.take()
        assert (free(names[1]), free(names[2])) == (False, True)
    assert lease.take()
    assert (free(names[0]), free(names[1])) == (False, True)
    lease.give()


def test_the_lock_of_one_who_stands_still_is_nobodys_business(tmp_path: Path) -> None:
    """A managed replayer that was stopped does not keep the applications' threads aside for ever."""
    clock = Clock()
    lock = MovingLock(str(tmp_path / MANAGED), clock)
    assert not lock.attended()
    with holder(lock.path):
        assert lock.attended()
        clock.ahead_ns = LATER_NS
        assert not lock.attended()
    clock.ahead_ns = 0
    assert not lock.attended()


def test_a_holder_that_never_said_anything_is_obeyed(tmp_path: Path, names: list[str]) -> None:
    """It may be of an earlier version."""
    clock = Clock()
    clock.ahead_ns = LATER_NS
    with holder(names[0]):
        os.truncate(names[0], 0)
        assert not Lease(str(tmp_path), clock).take()
