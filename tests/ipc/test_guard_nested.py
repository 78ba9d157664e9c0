"""Guards inside guards, what may be guarded, what a breaker keeps in copies, and what its state equals."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import math
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

import ipc
from ipc import CircuitBreaker, CircuitOpenError
from ipc.layout import ROWS
from ipc.testing import Unattached
from ipc.vocabulary import BreakerState
from tests.ipc.calls import call, fail

OPEN, CLOSED = BreakerState.OPEN, BreakerState.CLOSED


@pytest.mark.parametrize("trials", [1, 3])
def test_guards_of_one_breaker_may_nest_and_recover(unattached: Unattached, trials: int) -> None:
    """A call inside a trial of the same breaker is a part of it, however deep; other calls stay refused."""
    breaker = CircuitBreaker(
        "database", failure_threshold=1, permitted_trials=trials, successes_to_close=2, recovery_timeout=5
    )

    @breaker
    def innermost(value: int) -> int:
        return value * 2

    @breaker
    def repository(value: int) -> int:
        with breaker:
            return breaker.call(innermost, value)

    @breaker
    def service(value: int) -> int:
        return repository(value) + 1

    fail(breaker, 1)
    unattached.clock.move(6)
    assert [service(4), service(5)] == [9, 11]
    assert breaker.state == CLOSED
    assert service(1) == 3


def test_a_failing_nested_trial_fails_once(unattached: Unattached) -> None:
    """The innermost call of a trial raises: the trial has failed, once, and the next one may pass."""
    breaker = CircuitBreaker("database", failure_threshold=1, recovery_timeout=5, recovery_growth=1)

    @breaker
    def outer(well: bool) -> str:
        with breaker:
            if not well:
                raise ConnectionError("down")
        return "up"

    for _ in range(2):
        with pytest.raises(ConnectionError):
            outer(False)
        assert breaker.state == OPEN
        unattached.clock.move(6)
    assert outer(True) == "up"


def test_one_failure_through_several_guards_counts_once(unattached: Unattached) -> None:
    """Guards of one breaker inside each other put a failure once, also one that was wrapped on its way."""
    breaker = CircuitBreaker("database", failure_threshold=3)

    @breaker
    def inner() -> None:
        unattached.clock.move(0.01)
        raise ConnectionError("down")

    @breaker
    def wrapping() -> None:
        unattached.clock.move(0.01)
        try:
            inner()
        except ConnectionError as error:
            raise RuntimeError("the repository failed") from error

    @breaker
    def outer() -> None:
        unattached.clock.move(0.01)
        wrapping()

    for expected in (1, 2):
        with pytest.raises(RuntimeError):
            outer()
        assert (breaker.state.failure_count, breaker.state.value) == (expected, CLOSED)
    with pytest.raises(RuntimeError):
        outer()
    assert breaker.state == OPEN


def test_an_exception_that_is_raised_again_later_counts_again(unattached: Unattached) -> None:
    """One object that a stand-in raises again and again is a new failure in each call."""
    breaker = CircuitBreaker("database", failure_threshold=3)
    same = ConnectionError("down")

    @breaker
    def query() -> None:
        unattached.clock.move(0.01)
        raise same

    for _ in range(3):
        with pytest.raises(ConnectionError):
            query()
    assert breaker.state == OPEN
    assert pickle.loads(pickle.dumps(same)).args == ("down",)


def test_states_compare(unattached: Unattached) -> None:
    """`breaker.state` equals a state of the enum, and another breaker's state that is the same."""
    one, other = CircuitBreaker("one", failure_threshold=1), CircuitBreaker("other")
    assert one.state == BreakerState.CLOSED
    assert one.state == other.state
    fail(one, 1)
    assert one.state == BreakerState.OPEN
    assert one.state != BreakerState.CLOSED
    assert one.state != other.state
    assert one.state != "OPEN"


def test_forced_open_for_ever_says_so(unattached: Unattached) -> None:
    """Nobody is told to come back at once to what opens by no time; the quick refusal says the same."""
    breaker = CircuitBreaker("database")
    breaker.force_open(for_s=None, reason="moved")
    assert breaker.state.retry_after_s == math.inf
    for _ in range(2):
        refusal = call(breaker)
        assert isinstance(refusal, CircuitOpenError)
        assert refusal.retry_after_s == math.inf


def test_functions_of_a_class_are_guarded_from_outside(unattached: Unattached) -> None:
    """@breaker above @staticmethod and @classmethod guards what they hold."""
    breaker = CircuitBreaker("database", failure_threshold=2)

    class Store:
        @breaker
        @staticmethod
        def load(key: str) -> str:
            if key == "bad":
                raise ConnectionError(key)
            return key

        @breaker
        @classmethod
        def name(cls) -> str:
            return cls.__name__

    assert (Store.load("a"), Store().load("b"), Store.name(), Store().name()) == ("a", "b", "Store", "Store")
    for _ in range(2):
        with pytest.raises(ConnectionError):
            Store.load("bad")
    assert breaker.state == OPEN
    with pytest.raises(CircuitOpenError):
        Store.name()


def test_what_is_no_function_is_refused_at_decoration() -> None:
    """A class, a context manager's function and a number are refused, with what to do instead."""
    breaker = CircuitBreaker("database")

    @contextlib.contextmanager
    def session() -> Iterator[int]:
        yield 1

    @contextlib.asynccontextmanager
    async def session_async() -> AsyncIterator[int]:
        yield 1

    for made in (session, session_async):
        with pytest.raises(ipc.UnguardableError, match="with breaker"):
            breaker(made)
    with pytest.raises(ipc.UnguardableError, match="class"):
        breaker(dict)
    with pytest.raises(ipc.UnguardableError, match="callable"):
        breaker(7)  # type: ignore[arg-type] # refused


async def _truth(_value: object) -> bool:
    return True


class _AsyncCallable:
    async def __call__(self, *_args: object) -> bool:
        return True


@pytest.mark.parametrize("key", ["is_failure", "is_failure_result", "on_state_change"])
@pytest.mark.parametrize("given", [_truth, _AsyncCallable(), (ConnectionError,), "always", 3])
def test_callbacks_are_checked_where_the_breaker_is_made(key: str, given: object) -> None:
    """What could never work is refused at once, and the key is named."""
    with pytest.raises(ipc.SettingsError, match=key):
        CircuitBreaker("database", **{key: given})  # type: ignore[arg-type] # refused


class Labelled(CircuitBreaker):
    """A subclass with something of its own."""

    def __init__(self, name: str, label: str) -> None:
        self.label = label
        super().__init__(name, failure_threshold=4)
        self.seen = [label]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_keep_the_class_and_its_attributes(again: Callable[[Labelled], Labelled]) -> None:
    """Through copy, deepcopy and pickle."""
    other = again(Labelled("database", "green"))
    assert (type(other), other.label, other.seen) == (Labelled, "green", ["green"])
    assert (other.name, other.settings.failure_threshold) == ("database", 4)


def test_a_name_beyond_the_rows_is_one_breaker_still(unattached: Unattached) -> None:
    """Where no row is left, objects of one name share one state: a breaker made for each call opens."""
    for number in range(ROWS):
        CircuitBreaker(f"tenant-{number}")
    refused = 0
    for _ in range(8):
        breaker = CircuitBreaker("one-more", failure_threshold=3)
        refused += isinstance(outcome_of(breaker), CircuitOpenError)
    assert refused == 5
    assert CircuitBreaker("another").state == CLOSED


def outcome_of(breaker: CircuitBreaker) -> BaseException:
    """What a failing call under this breaker ends with."""
    with pytest.raises((ConnectionError, CircuitOpenError)) as caught, breaker:
        raise ConnectionError("down")
    return caught.value


def test_wrappers_of_async_functions_are_guarded_as_what_they_return(unattached: Unattached) -> None:
    """One that gives the coroutine is guarded until it has ended; one that runs it is a plain function."""
    breaker = CircuitBreaker("database", failure_threshold=3)

    async def fetch(well: bool) -> str:
        await asyncio.sleep(0)
        if not well:
            raise ConnectionError("down")
        return "fetched"

    @breaker
    @functools.wraps(fetch)
    def traced(well: bool) -> Any:
        return fetch(well)

    @breaker
    @functools.wraps(fetch)
    def run(well: bool) -> Any:
        return asyncio.run(fetch(well))

    async def main() -> list[str]:
        task = asyncio.create_task(breaker.call(lambda: fetch(True)))
        return [await traced(True), await task, await breaker.call(traced, True)]

    assert asyncio.run(main()) == ["fetched"] * 3
    assert run(True) == "fetched"

    async def fail_twice() -> None:
        for call_it in (traced, lambda well: breaker.call(lambda: fetch(well))):
            with pytest.raises(ConnectionError):
                await call_it(False)

    asyncio.run(fail_twice())
    assert breaker.state == CLOSED
    with pytest.raises(ConnectionError):
        run(False)
    assert breaker.state == OPEN


def test_an_awaitable_that_is_no_coroutine_is_guarded(unattached: Unattached) -> None:
    """As aiohttp's requests: awaited, or entered with `async with`."""
    breaker = CircuitBreaker("pages", failure_threshold=2)

    class Request:
        """Awaitable, and an async context manager."""

        def __init__(self, well: bool) -> None:
            self.well = well

        async def _send(self) -> str:
            if not self.well:
                raise ConnectionError("down")
            return "page"

        def __await__(self) -> Any:
            return self._send().__await__()

        async def __aenter__(self) -> str:
            return await self._send()

        async def __aexit__(self, *_raised: object) -> None:
            return None

    async def main() -> None:
        assert await breaker.call(Request, True) == "page"
        async with breaker.call(Request, True) as page:
            assert page == "page"
        with pytest.raises(ConnectionError):
            await breaker.call(Request, False)
        with pytest.raises(ConnectionError):
            async with breaker.call(Request, False):
                pass

    asyncio.run(main())
    assert breaker.state == OPEN
