"""error_recovery_context: a `with` block that records its error, or attempts that really retry.

Python cannot run the body of a `with` statement twice. So the object is both: entered, it is a context
manager around one attempt; iterated, it gives attempts until one succeeds. Neighbours: `handler` (records,
says how long to wait), `retry` (the schedule). Knows no breaker.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from workers.classify import Classification
from workers.kinds import ErrorType, FallbackStrategy
from workers.retry import Schedule
from workers.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Retrying:
    """What is tried, and how often."""

    name: str
    max_retries: int
    error_type: ErrorType


class Recorder(Protocol):
    """What a handler does for a context."""

    @property
    def surroundings(self) -> Surroundings:
        """Time and chance."""

    def record(self, error: BaseException, operation: str, error_type: ErrorType) -> Classification:
        """Classify and count an error."""

    def strategy(self, found: Classification) -> FallbackStrategy:
        """What to do instead."""

    def forget(self, error: BaseException) -> None:
        """The error goes no further."""

    def schedule(self, max_retries: int, began: float) -> Schedule:
        """The attempts of one call."""


class RecoveryContext:
    """What `MemoryErrorHandler.error_recovery_context` returns, where it is said how to use it."""

    def __init__(self, handler: Recorder, how: Retrying, suppress: bool) -> None:
        self._handler, self._how, self._suppress = handler, how, suppress
        self._schedule()  # a wrong number is told here, not when something fails

    def _schedule(self) -> Schedule:
        return self._handler.schedule(self._how.max_retries, self._handler.surroundings.clock())

    def _record(self, error: Exception) -> Classification:
        return self._handler.record(error, self._how.name, self._how.error_type)

    # --- with -----------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Record the error; True = it goes no further."""
        return isinstance(error, Exception) and self.ended(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Record the error; True = it goes no further."""
        return isinstance(error, Exception) and self.ended(error)

    def ended(self, error: Exception) -> bool:
        """There is no further attempt: whether the error goes no further."""
        advice = self._handler.strategy(self._record(error))
        if self._suppress or advice is FallbackStrategy.FAIL_GRACEFULLY:
            self._handler.forget(error)
            return True
        return False

    def failed(self, error: Exception, schedule: Schedule) -> float | None:
        """An attempt failed: how long to wait before the next one (s); None = there is none."""
        wait_s = schedule.failed(self._record(error))
        if wait_s is not None:
            self._handler.forget(error)
        return wait_s

    # --- for ------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Attempt]:
        around = self._handler.surroundings
        schedule = self._schedule()
        while True:
            attempt = Attempt(self, schedule)
            yield attempt
            if attempt.wait_s is None:
                return
            around.sleep(attempt.wait_s)

    async def __aiter__(self) -> AsyncIterator[Attempt]:
        around = self._handler.surroundings
        schedule = self._schedule()
        while True:
            attempt = Attempt(self, schedule)
            yield attempt
            if attempt.wait_s is None:
                return
            await around.sleep_async(attempt.wait_s)


class Attempt:
    """One attempt: `with attempt:` around what may fail. An error of the last one passes on unchanged."""

    __slots__ = ("_context", "_schedule", "error", "number", "wait_s")

    def __init__(self, context: RecoveryContext, schedule: Schedule) -> None:
        self._context, self._schedule = context, schedule
        self.number = schedule.attempt
        """From 1."""
        self.error: Exception | None = None
        """What it failed with."""
        self.wait_s: float | None = None
        """How long to wait before the next attempt; None = there is none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Record the error; True = it goes no further, or there is another attempt."""
        if not isinstance(error, Exception):
            return False
        self.error = error
        self.wait_s = self._context.failed(error, self._schedule)
        return True if self.wait_s is not None else self._context.ended(error)
