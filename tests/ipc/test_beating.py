"""A worker's sign of life."""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator

import pytest

import ipc
from ipc import beating


@pytest.fixture
def page() -> Iterator[mmap.mmap]:
    """A page that this process beats into."""
    made = mmap.mmap(-1, mmap.PAGESIZE)
    beating.watch(made)
    yield made
    beating._watched.clear()


def beaten(page: mmap.mmap) -> int:
    """The time of the last beat, ns; 0 = there was none."""
    return int(struct.unpack_from("Q", page)[0])


def test_a_beat_is_the_time_of_it(page: mmap.mmap) -> None:
    """In the clock that every process of the host reads."""
    before = time.monotonic_ns()
    ipc.beat()
    assert before <= beaten(page) <= time.monotonic_ns()


def test_nobody_has_to_listen() -> None:
    """In a process that was not started by the supervisor it does nothing."""
    ipc.beat()


def test_a_child_does_not_beat_for_its_parent(page: mmap.mmap) -> None:
    """A page has one writer: a worker that hangs is not kept alive by its children."""
    child = os.fork()
    if not child:
        ipc.beat()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert beaten(page) == 0
