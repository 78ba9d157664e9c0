"""Guarded calls for the tests: one sentence for each thing that they do."""

from __future__ import annotations

from typing import Any

from ipc import CircuitBreaker


class Down(ConnectionError):
    """The dependency is down."""


def call(breaker: CircuitBreaker, raises: BaseException | None = None, result: Any = 1) -> Any:
    """One guarded call; what it returned, or the exception that came out."""

    def work() -> Any:
        if raises is not None:
            raise raises
        return result

    try:
        return breaker(work)()
    except BaseException as error:
        return error


def raising(_: Any) -> bool:
    """A predicate with a mistake."""
    raise ZeroDivisionError


def fail(breaker: CircuitBreaker, times: int, raises: type[BaseException] = Down) -> None:
    """That many failing calls."""
    for _ in range(times):
        call(breaker, raises())
