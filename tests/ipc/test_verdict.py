"""What a failure is, as the guarded call asks."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import threading
from typing import Any

import pytest

from ipc import CircuitBreaker, CircuitOpenError
from ipc.testing import Unattached
from ipc.vocabulary import BreakerState
from tests.ipc.calls import Down, call, fail, raising

pytestmark = pytest.mark.usefixtures("unattached")
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest.mark.parametrize(
    ("settings", "raised", "counts"),
    [
        ({}, Down(), True),
        ({}, ValueError(), True),
        ({"expected_exception": (ConnectionError, TimeoutError)}, Down(), True),
        ({"expected_exception": (ConnectionError, TimeoutError)}, ValueError(), False),
        ({"ignored_exception": ConnectionError}, Down(), False),
        ({"ignored_exception": ConnectionError}, ValueError(), True),
        ({"is_failure": lambda error: "bad" in str(error)}, Down("bad"), True),
        ({"is_failure": lambda error: "bad" in str(error)}, Down("fine"), False),
        ({"is_failure": lambda _: True, "ignored_exception": Down}, Down(), False),
        ({"is_failure": lambda _: True, "expected_exception": KeyError}, Down(), True),
        ({"is_failure": raising}, Down(), False),
        ({"expected_exception": Down}, ExceptionGroup("g", [ValueError(), Down()]), True),
        ({"expected_exception": Down}, ExceptionGroup("g", [ExceptionGroup("h", [Down()])]), True),
        ({"expected_exception": Down}, ExceptionGroup("g", [ValueError()]), False),
        ({}, MemoryError(), False),
        ({}, KeyboardInterrupt(), False),
        ({}, SystemExit(), False),
        ({}, GeneratorExit(), False),
        ({}, BaseExceptionGroup("g", [KeyboardInterrupt()]), False),
        ({"expected_exception": ()}, Down(), False),
    ],
)
def test_what_a_failure_is(settings: dict[str, Any], raised: BaseException, counts: bool) -> None:
    """Asked in order: ignored, the predicate, the expected classes and groups of them; else neither."""
    breaker = CircuitBreaker("database", failure_threshold=2, **settings)
    for _ in range(2):
        assert call(breaker, raised) is raised
    assert breaker.state.is_open is counts


def test_neither_leaves_the_run_alone() -> None:
    """An exception that proves nothing neither counts as failure nor ends a run of failures."""
    breaker = CircuitBreaker("database", failure_threshold=2, expected_exception=Down)
    fail(breaker, 1)
    call(breaker, ValueError())
    fail(breaker, 1)
    assert breaker.state.is_open


def test_results_may_be_failures() -> None:
    """What was returned is asked about in the caller's thread; a predicate that raises says no."""
    seen: list[Any] = []

    def bad(result: Any) -> bool:
        seen.append((result, threading.get_ident()))
        return bool(result == 500)

    breaker = CircuitBreaker("web", failure_threshold=2, is_failure_result=bad)
    assert [call(breaker, result=result) for result in (500, 200, 500, 500)] == [500, 200, 500, 500]
    assert breaker.state.is_open
    assert seen == [(result, threading.get_ident()) for result in (500, 200, 500, 500)]
    other = CircuitBreaker("other", failure_threshold=1, is_failure_result=raising)
    assert call(other) == 1
    assert not other.state.is_open


def test_raising_predicate_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A predicate that raises counts as False, and is logged once, not at each call."""
    breaker = CircuitBreaker("database", is_failure=raising)
    fail(breaker, 3)
    assert len([record for record in caplog.records if "predicate" in record.message]) == 1


def test_late_cancellation_is_a_failure(unattached: Unattached) -> None:
    """A call cancelled after cancelled_is_failure_s is a failure; before it, or with None, it is neither."""

    class Cancelled(BaseException):
        pass

    def cancelled_after(breaker: CircuitBreaker, seconds: float, raised: type[BaseException]) -> None:
        with pytest.raises(raised), breaker:
            unattached.clock.move(seconds)
            raise raised

    breaker = CircuitBreaker("database", failure_threshold=2, cancelled_is_failure_s=1.0)
    for seconds in (0.5, 0.9):
        cancelled_after(breaker, seconds, Cancelled)
    cancelled_after(breaker, 60, KeyboardInterrupt)
    cancelled_after(breaker, 60, GeneratorExit)
    assert breaker.state.failure_count == 0
    for _ in range(2):
        cancelled_after(breaker, 1.0, Cancelled)
    assert breaker.state.is_open
    never = CircuitBreaker("never", failure_threshold=1, cancelled_is_failure_s=None)
    cancelled_after(never, 100, Cancelled)
    assert not never.state.is_open


def test_slow_calls_open(unattached: Unattached) -> None:
    """With slow_call_rate, slow successes open the breaker."""
    breaker = CircuitBreaker("database", slow_call_s=0.1, slow_call_rate=0.5, minimum_calls=4)
    for seconds in (0.05, 0.2, 0.05, 2.0):
        with breaker:
            unattached.clock.move(seconds)
    assert breaker.state.is_open


def test_own_refusal_inside_a_call_is_no_failure(unattached: Unattached) -> None:
    """A trial whose inner call of the same breaker, in a context of its own, is refused proves nothing."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    fail(breaker, 1)
    unattached.clock.move(31)

    @breaker
    def outer() -> None:
        contextvars.Context().run(inner)

    @breaker
    def inner() -> None: ...

    with pytest.raises(CircuitOpenError):
        outer()
    assert breaker.state.value is HALF_OPEN


def test_the_refusal_of_another_breaker_is_nobodys_failure(unattached: Unattached) -> None:
    """Its dependency was not asked; who names CircuitOpenError among the expected classes wants it."""
    inner = CircuitBreaker("inner")
    inner.force_open()
    outer, nameless = CircuitBreaker("outer", failure_threshold=1), CircuitBreaker(failure_threshold=1)
    strict = CircuitBreaker("strict", failure_threshold=1, expected_exception=CircuitOpenError)
    for breaker in (outer, nameless, strict):
        with pytest.raises(CircuitOpenError), breaker, inner:
            pass
    assert [one.state.is_open for one in (outer, nameless, strict)] == [False, False, True]


def test_ends_of_loops_greenlets_and_futures_say_nothing(unattached: Unattached) -> None:
    """However long the call took: a greenlet killed, a future cancelled, asyncio.run at its end."""
    breaker = CircuitBreaker("database", failure_threshold=1, cancelled_is_failure_s=1.0)
    greenlet_exit = type("GreenletExit", (BaseException,), {"__module__": "greenlet"})
    with pytest.raises(greenlet_exit), breaker:
        unattached.clock.move(60)
        raise greenlet_exit
    assert not breaker.state.is_open

    async def stream() -> None:
        async with breaker:
            unattached.clock.move(60)
            await asyncio.Event().wait()

    async def main() -> None:
        _tasks.append(asyncio.ensure_future(stream()))
        await asyncio.sleep(0)

    asyncio.run(main())
    assert _tasks.pop().cancelled()
    assert not breaker.state.is_open

    async def given_up() -> None:
        task = asyncio.ensure_future(stream())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(given_up())
    assert breaker.state.is_open, "a cancellation that the program itself made is what the setting is for"


_tasks: list[asyncio.Future[None]] = []


def test_by_default_no_cancellation_is_a_failure(unattached: Unattached) -> None:
    """Clients that go away, and a group that ends together, are not the dependency's fault."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    with pytest.raises(asyncio.CancelledError), breaker:
        unattached.clock.move(3600)
        raise asyncio.CancelledError
    assert not breaker.state.is_open
    with pytest.raises(concurrent.futures.CancelledError), breaker:
        raise concurrent.futures.CancelledError
    assert not breaker.state.is_open


def test_a_slow_trial_fails_where_slowness_opens(unattached: Unattached) -> None:
    """Else a breaker that opened for slowness would close and open for as long as its dependency is slow."""
    breaker = CircuitBreaker(
        "database", slow_call_s=0.2, slow_call_rate=0.5, minimum_calls=4, recovery_timeout=10,
        successes_to_close=1,
    )  # fmt: skip
    for _ in range(4):
        with breaker:
            unattached.clock.move(0.3)
    assert breaker.state.is_open
    unattached.clock.move(11)
    with breaker:
        unattached.clock.move(0.25)
    assert breaker.state.is_open
    assert breaker.state.retry_after_s == pytest.approx(20.0, abs=0.01)
    unattached.clock.move(21)
    with breaker:
        unattached.clock.move(0.1)
    assert not breaker.state.is_open
