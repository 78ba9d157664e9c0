"""handle_memory_errors: fallback(retry(breaker(call))), each error counted once."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ipc import BreakerState, CircuitBreaker, UnguardableError
from tests.workers.stage import Failing, Stage, fresh
from workers.decorate import handle_memory_errors
from workers.kinds import ErrorType

Decorate = Callable[[CircuitBreaker, Callable[[], Any], Stage], Callable[[], Any]]


def counted(stage: Stage) -> int:
    """How many errors were counted."""
    return sum(one.error_count for one in stage.handler.get_error_metrics().values())


def stacked(breaker: CircuitBreaker, function: Callable[[], Any], stage: Stage) -> Callable[[], Any]:
    """The breaker is named, and is one of the function's decorators as well."""
    return handle_memory_errors(stage.handler, "work", breaker=breaker, max_retries=1)(breaker(function))


def named(breaker: CircuitBreaker, function: Callable[[], Any], stage: Stage) -> Callable[[], Any]:
    """The breaker is only named."""
    stage.handler.circuit_breakers[breaker.name] = breaker
    return handle_memory_errors(stage.handler, "work", breaker=breaker.name, max_retries=1)(function)


def further_in(breaker: CircuitBreaker, function: Callable[[], Any], stage: Stage) -> Callable[[], Any]:
    """The breaker is named, and guards something that the function calls."""
    inner = breaker(function)

    def work() -> Any:
        return inner()

    return handle_memory_errors(stage.handler, "work", breaker=breaker, max_retries=1)(work)


def by_hand(breaker: CircuitBreaker, function: Callable[[], Any], stage: Stage) -> Callable[[], Any]:
    """The breaker decorates, an operation is retried in the function, and its error is handled as well."""
    inner = breaker(function)

    @handle_memory_errors(stage.handler, "work")
    def work() -> Any:
        try:
            return stage.handler.retry_operation(inner, "work", max_retries=1)
        except Exception as error:
            stage.handler.handle_database_error(error, "work")
            raise

    return work


@pytest.mark.parametrize("decorate", [stacked, named, further_in, by_hand])
def test_every_attempt_is_counted_once(decorate: Decorate) -> None:
    """4 calls with a retry each are 8 attempts, 8 failures of the breaker and 8 errors, not 16."""
    stage, work = Stage(), Failing(99, ConnectionError)
    breaker = CircuitBreaker(fresh(), failure_threshold=100)
    function = decorate(breaker, work, stage)
    for _ in range(4):
        assert function() is None
    assert (work.calls, breaker.state.failure_count, counted(stage)) == (8, 8, 8)


@pytest.mark.parametrize("decorate", [stacked, named, further_in, by_hand])
def test_every_attempt_is_counted_once_if_async(decorate: Decorate) -> None:
    """The same for coroutines, for what can be decorated so."""
    stage, work = Stage(), Failing(99, ConnectionError)
    breaker = CircuitBreaker(fresh(), failure_threshold=100)
    guarded = breaker(work.later)

    async def calling() -> Any:
        return await guarded()

    async def by_hand_async() -> Any:
        return await stage.handler.retry_operation(guarded, "work", max_retries=1)

    with_breaker = handle_memory_errors(stage.handler, "work", breaker=breaker, max_retries=1)
    functions: dict[Decorate, Callable[[], Any]] = {
        stacked: with_breaker(guarded),
        named: with_breaker(work.later),
        further_in: with_breaker(calling),
        by_hand: handle_memory_errors(stage.handler, "work")(by_hand_async),
    }

    async def main() -> None:
        for _ in range(4):
            assert await functions[decorate]() is None

    asyncio.run(main())
    assert (work.calls, breaker.state.failure_count, counted(stage)) == (8, 8, 8)


def test_a_guard_further_in_is_the_one_that_asks() -> None:
    """Once it has been seen: one permit is enough for a trial, and successes are counted once as well."""
    stage, work = Stage(), Failing(2, ConnectionError)
    settings: dict[str, Any] = {"failure_threshold": 2, "permitted_trials": 1, "successes_to_close": 1}
    breaker = CircuitBreaker(fresh(), recovery_timeout=0.01, recovery_jitter=0.0, **settings)
    function = further_in(breaker, work, stage)
    assert function() is None
    assert breaker.state.is_open
    while function() is None:  # until the open time is over
        continue
    assert (work.calls, breaker.state.value) == (3, BreakerState.CLOSED)


def test_the_outer_guard_comes_back_where_nobody_is_further_in() -> None:
    """A function that calls a guarded one only sometimes is guarded at all times, but for one error."""
    stage, breaker = Stage(), CircuitBreaker(fresh(), failure_threshold=100)
    inner, outer = breaker(Failing(99, ConnectionError)), Failing(99, ConnectionError)

    @handle_memory_errors(stage.handler, "work", breaker=breaker)
    def work(within: bool) -> None:
        (inner if within else outer)()

    for within in (True, True, False, False, False):
        work(within)
    assert breaker.state.failure_count == 4


def test_without_a_breaker_none_is_told() -> None:
    """Handling counts errors and chooses a strategy, never an outcome."""
    stage = Stage()
    breaker = stage.handler.get_circuit_breaker(fresh("database"))
    function = handle_memory_errors(stage.handler, "work")(Failing(99, ConnectionError))
    for _ in range(9):
        function()
    assert (breaker.state.failure_count, breaker.state.is_open, counted(stage)) == (0, False, 9)


def test_an_open_breaker_refuses_once_and_is_no_error() -> None:
    """It is counted as rejected, is not retried, and the default is returned."""
    stage, work = Stage(), Failing(0)
    breaker = CircuitBreaker(fresh("database"))
    breaker.force_open()
    function = handle_memory_errors(stage.handler, "work", breaker=breaker, max_retries=3, default=7)(work)
    assert function() == 7
    metric = stage.handler.get_error_metrics()[ErrorType.DATABASE_CONNECTION]
    assert (work.calls, metric.rejected_count, counted(stage), stage.waits) == (0, 1, 0, [])


def test_what_succeeds_is_untouched() -> None:
    """Arguments, result and metadata."""
    stage = Stage()

    @handle_memory_errors(stage.handler, "work", breaker=fresh(), max_retries=3)
    def join(one: str, *, other: str = "b") -> str:
        """Join them."""
        return one + other

    assert (join("a"), join("a", other="c")) == ("ab", "ac")
    assert (join.__name__, join.__doc__) == ("join", "Join them.")
    assert str(inspect.signature(join)) == "(one: 'str', *, other: 'str' = 'b') -> 'str'"
    assert counted(stage) == 0


def test_the_default_is_a_value_or_is_called_for_one() -> None:
    """Each time anew; an async function's may be async too."""
    handler = Stage().handler
    listed: Any = handle_memory_errors(handler, "work", default=list)(Failing(9))
    first, second = listed(), listed()
    assert (first, second) == ([], [])
    assert first is not second

    async def fallback() -> str:
        return "stale"

    later: Any = handle_memory_errors(handler, "work", default=fallback)(Failing(9).later)
    assert asyncio.run(later()) == "stale"


def test_the_error_type_is_for_errors_that_say_nothing() -> None:
    """MEMORY_STORAGE where none is given."""
    stage = Stage()
    handle_memory_errors(stage.handler, "a")(Failing(9, RuntimeError))()
    handle_memory_errors(stage.handler, "b", error_type=ErrorType.TOOL_ANALYTICS)(Failing(9, RuntimeError))()
    handle_memory_errors(stage.handler, "c", error_type=ErrorType.CACHE_OPERATION)(Failing(9))()
    counts = {
        kind: one.error_count for kind, one in stage.handler.get_error_metrics().items() if one.error_count
    }
    assert counts == {
        ErrorType.MEMORY_STORAGE: 1,
        ErrorType.TOOL_ANALYTICS: 1,
        ErrorType.CACHE_CONNECTION: 1,
    }


def test_one_exception_object_for_all_calls_is_counted_each_time() -> None:
    """Once it was swallowed its way has ended."""
    stage, error = Stage(), ConnectionError("always the same")

    def work() -> None:
        raise error

    function = handle_memory_errors(stage.handler, "work")(work)
    for _ in range(3):
        function()
    assert counted(stage) == 3


def test_methods_and_partials_are_functions_too() -> None:
    """And what ends the program passes."""
    handler = Stage().handler

    class Store:
        @handle_memory_errors(handler, "work", breaker=fresh())
        def load(self, key: str) -> str:
            if key == "stop":
                raise KeyboardInterrupt
            return {"a": "b"}[key]

    loaded: list[Any] = [Store().load("a"), Store().load("x")]
    assert loaded == ["b", None]
    with pytest.raises(KeyboardInterrupt):
        Store().load("stop")
    assert handle_memory_errors(handler, "work")(functools.partial(int, "x"))() is None


def test_what_cannot_be_handled_is_refused() -> None:
    """A generator's body runs after the call; a classmethod is not callable; retries have bounds."""
    handler = Stage().handler

    def generate() -> Iterator[int]:
        yield 1

    with pytest.raises(UnguardableError):
        handle_memory_errors(handler, "work")(generate)
    with pytest.raises(UnguardableError):
        handle_memory_errors(handler, "work")(classmethod(len))  # type: ignore[arg-type]  # that is it
    with pytest.raises(ValueError, match="max_retries"):
        handle_memory_errors(handler, "work", max_retries=-1)
