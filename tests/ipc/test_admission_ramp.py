"""The ramp after recovery, in a process on its own and in virtual time: how many calls are let in, when."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ipc import CircuitBreaker, CircuitOpenError
from ipc.circuit import RAMP_FIRST, ramp_share
from ipc.client import Client
from ipc.process import set_default
from ipc.testing import MovableClock, Unattached
from ipc.vocabulary import BreakerState, Tally
from tests.ipc.calls import call, fail

pytestmark = pytest.mark.usefixtures("unattached")


def recovered(clock: MovableClock, ramp_s: float, name: str = "database") -> CircuitBreaker:
    """A breaker whose trials have just closed it."""
    breaker = CircuitBreaker(name, failure_threshold=1, ramp_s=ramp_s)
    fail(breaker, 1)
    clock.move(30.1)
    assert [call(breaker) for _ in range(3)] == [1, 1, 1]
    assert breaker.state.value is BreakerState.CLOSED
    return breaker


def ramped(breaker: CircuitBreaker) -> int:
    """How many calls the ramp has refused."""
    return breaker._link.words[breaker._link.tallies + 16 * breaker._row + Tally.RAMPED]


@pytest.mark.parametrize(
    ("left", "share"), [(100.0, 0.1), (99.0, 0.109), (50.0, 0.55), (1.0, 0.991), (0.0, 1.0), (120.0, 0.1)]
)
def test_the_share_grows_evenly_from_a_tenth_to_all(left: float, share: float) -> None:
    """Of 100 s; beyond its beginning it is what it is at its beginning."""
    assert ramp_share(left, 100.0) == pytest.approx(share)
    assert RAMP_FIRST == 0.1


@pytest.mark.parametrize("first", [0.0, 0.3, 0.999])
def test_so_many_calls_are_let_in_as_the_ramp_says(first: float) -> None:
    """1,000 calls in each of ten parts, whatever chance it begins with: each part's share within 1 %."""
    clock = MovableClock()
    client = Client("off", clock=clock, chance=lambda: first)
    before = set_default(client)
    try:
        breaker = CircuitBreaker("database", failure_threshold=1, recovery_jitter=0.0, ramp_s=100.0)
        fail(breaker, 1)
        clock.move(30.1)
        assert [call(breaker) for _ in range(3)] == [1, 1, 1]
        for part in range(10):
            let_in = 0
            for _ in range(1000):
                let_in += call(breaker) == 1
                clock.move(0.01)
            expected = 0.1 + 0.9 * (part + 0.5) / 10
            assert let_in / 1000 == pytest.approx(expected, abs=0.01)
        clock.move(0.1)
        assert [call(breaker) for _ in range(1000)] == [1] * 1000
    finally:
        set_default(before)
        client.close()


def test_exactly_those_are_let_in_whose_chance_is_below_the_share(unattached: Unattached) -> None:
    """The chance drawn first, then its golden steps: 0.0, 0.618, 0.236, 0.854, 0.472, 0.090, 0.708."""
    breaker = recovered(unattached.clock, 10.0)
    unattached.clock.move(5.0)
    told = [call(breaker) for _ in range(7)]
    assert [one == 1 for one in told] == [True, False, True, False, True, True, False]
    refusal = told[1]
    assert isinstance(refusal, CircuitOpenError)
    assert refusal.state is BreakerState.CLOSED
    assert refusal.retry_after_s == pytest.approx(5.0, abs=0.07)
    assert ramped(breaker) == 3


def test_the_quick_way_is_closed_during_the_ramp_and_open_after_it(unattached: Unattached) -> None:
    """By the same board word: its time is past, and nobody has to publish another."""
    breaker = recovered(unattached.clock, 10.0)
    call(breaker)
    word = breaker._link.states[breaker._row]
    assert breaker._closed != word
    unattached.clock.move(10.1)
    assert call(breaker) == 1
    assert breaker._closed == breaker._link.states[breaker._row] == word


def test_failures_during_a_ramp_count() -> None:
    """What is let in is judged like any call, and may open it again; then there is no ramp."""
    clock = MovableClock()
    client = Client("off", clock=clock, chance=lambda: 0.0)
    before = set_default(client)
    try:
        breaker = recovered(clock, 10.0)
        clock.move(9.9)
        fail(breaker, 3)
        assert breaker.state.value is BreakerState.OPEN
        breaker.reset()
        assert [call(breaker) for _ in range(50)] == [1] * 50
    finally:
        set_default(before)
        client.close()


def test_a_call_that_is_awaited_ramps_too(unattached: Unattached) -> None:
    """The same shares for `async def`."""
    breaker = recovered(unattached.clock, 10.0)
    unattached.clock.move(5.0)

    @breaker
    async def work() -> int:
        return 1

    async def calls() -> list[bool]:
        told = []
        for _ in range(7):
            try:
                told.append(await work() == 1)
            except CircuitOpenError:
                told.append(False)
        return told

    assert asyncio.run(calls()) == [True, False, True, False, True, True, False]


def test_threads_share_a_ramp(unattached: Unattached) -> None:
    """However they race, about the share is let in, and each call is counted once."""
    breaker = recovered(unattached.clock, 10.0)
    unattached.clock.move(5.0)
    let_in: list[int] = []

    def work() -> None:
        let_in.append(sum(call(breaker) == 1 for _ in range(500)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(let_in) + ramped(breaker) == 2000
    assert 900 < sum(let_in) < 1300


def test_without_a_ramp_everything_is_let_in_at_once(unattached: Unattached) -> None:
    """The default."""
    breaker = recovered(unattached.clock, 0.0)
    assert [call(breaker) for _ in range(100)] == [1] * 100
    assert ramped(breaker) == 0
