"""The `with` form, refusals in numbers, and what is held meanwhile: nothing."""

from __future__ import annotations

import gc
import sys
import threading
import traceback
from contextlib import ExitStack
from typing import Any

import pytest

import ipc
from ipc import CircuitBreaker, CircuitOpenError
from ipc.process import default_client
from ipc.testing import Unattached
from ipc.vocabulary import BreakerState, Tally
from tests.ipc.calls import Down, call, fail

pytestmark = pytest.mark.usefixtures("unattached")
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def test_without_a_name() -> None:
    """A breaker without a name is this object's own, until it is given its name, once."""
    one, two = CircuitBreaker(failure_threshold=1), CircuitBreaker(failure_threshold=1)

    @one
    def query() -> int:
        return 1

    assert query() == 1
    fail(one, 1)
    assert one.state.is_open
    assert not two.state.is_open
    assert str(call(one)).startswith("Circuit breaker is OPEN: (OPEN)")
    one.name = "database"
    assert query() == 1
    shared = CircuitBreaker("database", failure_threshold=1)
    fail(shared, 1)
    with pytest.raises(CircuitOpenError):
        query()
    with pytest.raises(CircuitOpenError):
        one(lambda: 1)()
    with pytest.raises(ipc.SettingsError, match="called 'database' already"):
        one.name = "other"


def test_refusals_hold_nothing() -> None:
    """Ten thousand refusals: each is a new exception with a short traceback, and nothing grows."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    fail(breaker, 1)

    @breaker
    def query() -> None:
        raise AssertionError("called while open")

    def refused() -> int:
        try:
            query()
        except CircuitOpenError as error:
            return len(traceback.extract_tb(error.__traceback__))
        raise AssertionError("admitted")

    depths = {refused() for _ in range(100)}
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(10_000):
        refused()
    gc.collect()
    assert depths == {3, 6}  # the first one goes the slow way
    assert sys.getallocatedblocks() - before < 50
    link = default_client().link
    assert link.words[link.tallies + Tally.REJECTED] == 10_100


def test_refusals_of_threads_are_counted_exactly() -> None:
    """Eight threads refused at once, switching all the time: the cumulative word has every refusal."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    fail(breaker, 1)
    guarded = breaker(lambda: None)

    def run() -> None:
        for _ in range(5_000):
            with pytest.raises(CircuitOpenError):
                guarded()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    link = default_client().link
    assert link.words[link.tallies + Tally.REJECTED] == 40_000


def test_with_nests_and_crosses_threads(unattached: Unattached) -> None:
    """Entries nest, overlap in threads, and each keeps its own start."""
    breaker = CircuitBreaker("database", slow_call_s=1.0, slow_call_rate=1.0, minimum_calls=2)
    inside, leave = threading.Barrier(4), threading.Barrier(4)

    def hold() -> None:
        with breaker, breaker:
            inside.wait()
            leave.wait()

    threads = [threading.Thread(target=hold) for _ in range(3)]
    for thread in threads:
        thread.start()
    inside.wait()
    with breaker:  # quick, while six others are open
        pass
    unattached.clock.move(2.0)
    leave.wait()
    for thread in threads:
        thread.join()
    assert not breaker._entries
    assert breaker.state.failure_count == 0  # which looks, so that the machine has read everything
    totals = default_client().link.machine._breakers[0].totals
    assert (totals.calls, totals.slow) == (7, 6)


def test_with_in_interleaved_generators(unattached: Unattached) -> None:
    """Blocks of generators that take turns end as the frames do that they stand in, not in order of entry."""
    breaker = CircuitBreaker("database", slow_call_s=1.0, slow_call_rate=1.0, minimum_calls=2)

    def rows() -> Any:
        with breaker:
            yield 1

    first = rows()
    next(first)
    unattached.clock.move(2.0)
    second = rows()
    next(second)
    assert next(first, None) is None  # the older one ends first: it alone was slow
    assert next(second, None) is None
    assert breaker.state.failure_count == 0  # which looks, so that the machine has read everything
    totals = default_client().link.machine._breakers[0].totals
    assert (totals.calls, totals.slow) == (2, 1)


def test_with_in_an_exit_stack() -> None:
    """An ExitStack enters and leaves from frames of its own; the blocks end all the same, once each."""
    breaker = CircuitBreaker("database", failure_threshold=2)
    with pytest.raises(Down), ExitStack() as stack:
        stack.enter_context(breaker)
        stack.enter_context(breaker)
        raise Down
    assert not breaker._entries
    assert breaker.state.is_open


def test_nothing_is_held_during_the_call() -> None:
    """While the guarded function runs, no lock of ours is held: another thread's call ends meanwhile."""
    breaker = CircuitBreaker("database")
    ended: list[int] = []

    @breaker
    def outer() -> None:
        thread = threading.Thread(target=lambda: ended.append(call(breaker)))
        thread.start()
        thread.join(5)

    outer()
    assert ended == [1]
