"""handle_memory_errors: a function whose errors are handled, with fallback(retry(breaker(call))).

Neighbours: `handler` (counts, retries, advises), `breakers` (who has guarded a call already). Knows no error
class. The way of a call that succeeds adds a try block, and what the breaker and the retries that were
asked for cost.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, cast

from ipc import CircuitBreaker, CircuitOpenError, UnguardableError
from workers.breakers import guards, reported
from workers.handler import MemoryErrorHandler
from workers.kinds import ErrorType
from workers.retry import check_retries

P = ParamSpec("P")
R = TypeVar("R")
_Function = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class _Handling:
    """What was asked for, of one decorated function."""

    handler: MemoryErrorHandler
    operation: str
    max_retries: int
    default: Any
    error_type: ErrorType

    def retried(self, call: _Function) -> _Function:
        """`call` with its retries; itself if it has none."""
        if not self.max_retries:
            return call

        def attempts(*args: Any, **kwargs: Any) -> Any:
            once = functools.partial(call, *args, **kwargs)
            retry = self.handler.retry_operation
            return retry(once, self.operation, self.max_retries, error_type=self.error_type)

        return attempts

    def instead(self, error: Exception) -> Any:
        """The error is handled: what is returned instead."""
        self.handler.handle(error, self.operation, self.error_type)
        self.handler.forget(error)
        return self.default() if callable(self.default) else self.default


def handle_memory_errors(
    handler: MemoryErrorHandler,
    operation: str,
    *,
    breaker: str | CircuitBreaker | None = None,
    max_retries: int = 0,
    default: Any = None,
    error_type: ErrorType | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorate a function, sync or async: its errors are counted and logged, and `default` is returned.

    `default` is a value, or something that is called for one. `breaker` (a breaker, or the name of one of
    the handler's) guards every attempt; where that breaker guards the function already, as one of its
    decorators or further in, it counts a failure once. `max_retries` more attempts are made as
    `handler.retry_operation` makes them. `error_type` says what was being done, for errors that say nothing
    about themselves; None = MEMORY_STORAGE. Raises UnguardableError for generators and uncallables.
    """
    check_retries(max_retries)
    handling = _Handling(handler, operation, max_retries, default, error_type or ErrorType.MEMORY_STORAGE)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        target: Any = function.func if isinstance(function, functools.partial) else function
        called = getattr(type(target), "__call__", None)  # noqa: B004 (its code is looked at, not called)
        for one in (target, called):
            if inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one):
                raise UnguardableError(f"{target!r} is a generator function: its body runs after the call")
        if not callable(function):
            raise UnguardableError(f"{function!r} is not callable: put the decorator below @classmethod")
        guard = handler.get_circuit_breaker(breaker) if isinstance(breaker, str) else breaker
        if guard is not None and guards(function, guard):
            guard = None
        if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(called):
            return cast("Callable[P, R]", _handled_async(function, guard, handling))
        return cast("Callable[P, R]", _handled(function, guard, handling))

    return decorate


def _handled(function: _Function, guard: CircuitBreaker | None, handling: _Handling) -> _Function:
    call = handling.retried(function if guard is None else _guarded(function, guard))

    @functools.wraps(function)
    def handled(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 (handling errors is what was asked for)
            return handling.instead(error)

    return handled


def _handled_async(function: _Function, guard: CircuitBreaker | None, handling: _Handling) -> _Function:
    call = handling.retried(function if guard is None else _guarded_async(function, guard))

    @functools.wraps(function)
    async def handled(*args: Any, **kwargs: Any) -> Any:
        try:
            return await call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 (handling errors is what was asked for)
            value = handling.instead(error)
        return await value if inspect.isawaitable(value) else value

    return handled


class _Guard:
    """A breaker around a function, which steps aside where the same breaker guards something further in.

    That it does shows in the traceback of an error (or a refusal) that it saw first. From then on the
    outer guard neither asks nor reports, until an error passes that nobody further in has seen.
    """

    __slots__ = ("aside", "breaker")

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self.aside = False

    def check(self, error: Exception, passing: list[Exception]) -> None:
        """If the breaker knows this error already: tell it of a refusal, which it does not count."""
        if reported(error, self.breaker):
            self.aside = True
            passing.append(error)
            raise CircuitOpenError(self.breaker.name, self.breaker.state.value, 0.0) from None

    def look(self, error: Exception) -> None:
        """Aside: stay so while errors are seen further in."""
        self.aside = reported(error, self.breaker)


def _guarded(function: _Function, breaker: CircuitBreaker) -> _Function:
    """`function` under guard, unless the guard stands aside."""
    guard = _Guard(breaker)

    def watched(passing: list[Exception], args: Any, kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            guard.check(error, passing)
            raise

    once = breaker(watched)

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if guard.aside:
            try:
                return function(*args, **kwargs)
            except Exception as error:
                guard.look(error)
                raise
        passing: list[Exception] = []
        try:
            return once(passing, args, kwargs)
        except CircuitOpenError:
            if not passing:
                raise
        raise passing.pop()

    return guarded


def _guarded_async(function: _Function, breaker: CircuitBreaker) -> Callable[..., Coroutine[Any, Any, Any]]:
    """The same for an async function."""
    guard = _Guard(breaker)

    async def watched(passing: list[Exception], args: Any, kwargs: Any) -> Any:
        try:
            return await function(*args, **kwargs)
        except Exception as error:
            guard.check(error, passing)
            raise

    once = breaker(watched)

    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if guard.aside:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                guard.look(error)
                raise
        passing: list[Exception] = []
        try:
            return await once(passing, args, kwargs)
        except CircuitOpenError:
            if not passing:
                raise
        raise passing.pop()

    return guarded
