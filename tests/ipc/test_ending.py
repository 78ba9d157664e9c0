"""Calls inside of calls: one trial, one failure, and every block ended as itself."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
from typing import Any

import pytest

from ipc import CircuitBreaker, CircuitOpenError
from ipc.testing import Unattached
from ipc.vocabulary import BreakerState
from tests.ipc.calls import Down, call, fail

pytestmark = pytest.mark.usefixtures("unattached")
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def half_open(unattached: Unattached, **settings: Any) -> CircuitBreaker:
    """A breaker whose open time is over."""
    breaker = CircuitBreaker("stock", failure_threshold=1, recovery_jitter=0.0, **settings)
    fail(breaker, 1)
    unattached.clock.move(31)
    assert breaker.state.value is HALF_OPEN
    return breaker


@pytest.mark.parametrize("form", ["decorator", "call", "with"])
def test_calls_inside_a_trial_are_part_of_it(unattached: Unattached, form: str) -> None:
    """A guard of the same breaker inside a trial needs no permit of its own, however deep."""
    breaker = half_open(unattached, successes_to_close=2)

    def nested(depth: int) -> int:
        if not depth:
            return 7
        if form == "decorator":
            return breaker(nested)(depth - 1)
        if form == "call":
            return breaker.call(nested, depth - 1)
        with breaker:
            return nested(depth - 1)

    assert [nested(4), nested(3)] == [7, 7]
    assert breaker.state.value is CLOSED


def test_async_calls_inside_a_trial(unattached: Unattached) -> None:
    """Tasks of a trial belong to it; those that outlive it do not."""
    breaker = half_open(unattached, successes_to_close=2)

    @breaker
    async def inner() -> int:
        await asyncio.sleep(0)
        return 1

    @breaker
    async def outer() -> int:
        return sum(await asyncio.gather(inner(), inner()))

    async def main() -> None:
        assert await outer() == 2

    asyncio.run(main())
    assert breaker.state.value is HALF_OPEN
    asyncio.run(main())
    assert breaker.state.value is CLOSED


def test_another_call_beside_a_trial_is_refused(unattached: Unattached) -> None:
    """Only what the trial itself calls is part of it."""
    breaker = half_open(unattached)
    trial = contextlib.ExitStack()
    trial.enter_context(breaker)

    async def elsewhere() -> None:
        async with breaker:
            pass

    with pytest.raises(CircuitOpenError) as refusal:
        contextvars.Context().run(breaker.call, int)
    assert refusal.value.retry_after_s > 0.0
    trial.close()
    contextvars.Context().run(breaker.call, int)


def test_one_failure_counts_once(unattached: Unattached) -> None:
    """An exception that passes several guards of one breaker is one failure; of two breakers, one each."""
    outer, inner = CircuitBreaker("both", failure_threshold=3), CircuitBreaker("both")
    other = CircuitBreaker("other", failure_threshold=3)

    @inner
    def fetch() -> None:
        unattached.clock.move(0.01)
        raise Down

    @other
    @outer
    def serve() -> None:
        unattached.clock.move(0.01)
        with outer:
            fetch()

    for count in (1, 2):
        with pytest.raises(Down):
            serve()
        assert (outer.state.failure_count, other.state.failure_count) == (count, count)
    with pytest.raises(Down):
        serve()
    assert outer.state.is_open
    assert other.state.is_open


def test_an_exception_that_is_raised_again_and_again_counts_each_time(unattached: Unattached) -> None:
    """One object that each call raises anew, as stand-ins do, is a failure of each call."""
    breaker, error = CircuitBreaker("again", failure_threshold=3), Down()
    for _ in range(3):
        unattached.clock.move(0.01)
        call(breaker, error)
    assert breaker.state.is_open


def test_trial_that_is_lost_gives_its_permit_back(unattached: Unattached) -> None:
    """A call that nobody ends any more does not count as a failed trial when its lease ends."""
    breaker = half_open(unattached, successes_to_close=1)
    entry = breaker._begin()
    assert entry.permit is not None
    assert isinstance(contextvars.Context().run(call, breaker), CircuitOpenError)
    del entry
    gc.collect()
    assert call(breaker) == 1
    assert breaker.state.value is CLOSED


def test_what_is_called_after_a_lost_trial_is_no_part_of_it(unattached: Unattached) -> None:
    """The context in which it was lost does not go on to be a trial."""
    breaker = half_open(unattached, successes_to_close=1)
    breaker._begin()
    gc.collect()
    assert call(breaker) == 1
    assert breaker.state.value is CLOSED


def test_failures_far_apart_are_no_run(unattached: Unattached) -> None:
    """One failure a day is no outage; one a minute is."""
    breaker = CircuitBreaker("rare", failure_threshold=3, failure_rate=None)
    for _ in range(9):
        fail(breaker, 1)
        unattached.clock.move(86_400)
    assert not breaker.state.is_open
    for _ in range(3):
        assert not breaker.state.is_open
        unattached.clock.move(60)
        fail(breaker, 1)
    assert breaker.state.is_open


def test_opening_again_soon_lengthens_the_open_time(unattached: Unattached) -> None:
    """What trials closed and traffic opens again at once had not recovered."""
    breaker = CircuitBreaker("flaps", failure_threshold=1, successes_to_close=1, recovery_jitter=0.0)
    times = []
    for _ in range(4):
        fail(breaker, 1)
        times.append(round(breaker.state.retry_after_s))
        unattached.clock.move(times[-1] + 1)
        call(breaker)
        assert breaker.state.value is CLOSED
        unattached.clock.move(2)
    assert times == [30, 60, 120, 240]
    unattached.clock.move(3600)
    fail(breaker, 1)
    assert round(breaker.state.retry_after_s) == 30


class Closed(Exception):
    """One whose attributes cannot be read."""

    def __getattribute__(self, name: str) -> Any:
        """Refuse."""
        if name == "__dict__":
            raise RuntimeError(name)
        return super().__getattribute__(name)


def test_exceptions_whose_attributes_raise_are_counted(unattached: Unattached) -> None:
    """What came out of the call is what comes out of the guard, and it counts."""
    breaker = CircuitBreaker("odd", failure_threshold=3)
    for _ in range(3):
        assert isinstance(call(breaker, Closed()), Closed)
    assert breaker.state == OPEN
    assert (breaker.status.name, breaker.status.value) == ("OPEN", OPEN)


def test_predicate_that_gives_an_awaitable_says_no() -> None:
    """A coroutine is truthy, and would make a failure of everything."""

    async def later() -> bool:
        return False

    def asks(_: Any) -> Any:
        return later()

    breaker = CircuitBreaker("late", failure_threshold=1, is_failure_result=asks)
    assert call(breaker) == 1
    assert not breaker.state.is_open
