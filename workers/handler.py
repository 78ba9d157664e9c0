"""MemoryErrorHandler: classifies errors, counts them, logs them, and says what to do instead.

Neighbours: `classify`, `fallback`, `metrics`, `breakers` (its parts), `retry` (the schedule), `recovery` and
`decorate` (other ways to use it). It reports no outcome to any breaker: only guards do. Error messages
leave it redacted.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar, overload

from ipc import CircuitBreaker, process_counters
from workers.breakers import UNHEALTHY, Breakers
from workers.classify import Classification, classify
from workers.fallback import Alive, choose
from workers.kinds import Area, ErrorType, FallbackStrategy
from workers.marks import marks
from workers.metrics import Counts, ErrorMetric, named
from workers.recovery import RecoveryContext, Retrying
from workers.redact import describe
from workers.retry import DEFAULT_RETRIES, RetrySettings, Schedule, check_retries
from workers.surroundings import Surroundings
from workers.throttle import Throttle

R = TypeVar("R")
NUMBERS: Final = itertools.count(1)
"""Every handler of this process has one of its own."""


class MemoryErrorHandler:
    """The centre of the error handling; one for a program is enough, and any thread may use it.

    `logger` gets one line per error (at most 5 in 10 s of one kind and operation), None = the logger
    "memory_error_handler". `retry` is how `retry_operation` waits.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        retry: RetrySettings | None = None,
        surroundings: Surroundings | None = None,
    ) -> None:
        self.logger = logger or logging.getLogger("memory_error_handler")
        self.circuit_breakers = Breakers()
        """The breakers of this handler by name. Assigning one registers it host-wide under that name."""
        self.retry_settings = retry or RetrySettings()
        self.surroundings = surroundings or Surroundings()
        self._number = next(NUMBERS)
        self._counts = Counts()
        self._throttle = Throttle()
        _handlers.remember(self)

    def after_fork(self) -> None:
        """This is a child: its counts are its own, and no lock is held."""
        self._counts.after_fork()
        self._throttle.after_fork()

    # --- one error ------------------------------------------------------------------------------------

    def handle_database_error(self, error: BaseException, operation: str) -> FallbackStrategy:
        """Classify, count and log an error of the database; what to do instead."""
        return self.handle(error, operation, ErrorType.DATABASE_QUERY)

    def handle_cache_error(self, error: BaseException, operation: str) -> FallbackStrategy:
        """Classify, count and log an error of the cache; what to do instead."""
        return self.handle(error, operation, ErrorType.CACHE_OPERATION)

    def handle_context_retrieval_error(self, error: BaseException, operation: str) -> FallbackStrategy:
        """Classify, count and log an error of a search for context; what to do instead."""
        return self.handle(error, operation, ErrorType.CONTEXT_RETRIEVAL)

    def handle_tool_analytics_error(self, error: BaseException, operation: str) -> FallbackStrategy:
        """Classify, count and log an error of tool analytics; what to do instead."""
        return self.handle(error, operation, ErrorType.TOOL_ANALYTICS)

    def handle_memory_storage_error(self, error: BaseException, operation: str) -> FallbackStrategy:
        """Classify, count and log an error of keeping a memory; what to do instead."""
        return self.handle(error, operation, ErrorType.MEMORY_STORAGE)

    def handle_configuration_error(self, error: BaseException, operation: str) -> FallbackStrategy:
        """Classify, count and log an error of a setting; what to do instead."""
        return self.handle(error, operation, ErrorType.CONFIGURATION)

    def handle(
        self, error: BaseException, operation: str, error_type: ErrorType = ErrorType.MEMORY_STORAGE
    ) -> FallbackStrategy:
        """Classify, count and log any error; what to do instead.

        `error_type` says what was being done: an error that says nothing about itself is of this type.
        """
        return self.strategy(self.record(error, operation, error_type))

    def record(
        self, error: BaseException, operation: str, error_type: ErrorType = ErrorType.MEMORY_STORAGE
    ) -> Classification:
        """Classify an error; count and log it, unless this handler has seen this very object before."""
        found = classify(error, error_type)
        seen_by = marks(error)
        if self._number in seen_by:
            return found
        seen_by.add(self._number)
        now = self.surroundings.clock()
        said = None
        if found.rejected:
            self._counts.rejected(found.error_type)
        else:
            said, wall = describe(error), self.surroundings.wall()
            operation = self._counts.error(found.error_type, operation, said, now, wall)
            process_counters().add(found.error_type.name, operation)
        self._log(found, named(operation), error, said, now)
        return found

    def strategy(self, found: Classification) -> FallbackStrategy:
        """What to do after an error that was classified so, with what is alive now."""
        breakers = self.circuit_breakers
        return choose(found, Alive(breakers.alive(Area.DATABASE), breakers.alive(Area.CACHE)))

    def forget(self, error: BaseException) -> None:
        """The error goes no further: should the same object be raised again, that is another error."""
        marks(error).discard(self._number)

    def _log(
        self, found: Classification, operation: str, error: BaseException, said: str | None, now: float
    ) -> None:
        level = logging.INFO if found.rejected else logging.WARNING
        if not self.logger.isEnabledFor(level):
            return
        unsaid = self._throttle.admit((found.error_type, operation), now)
        if unsaid is None:
            return
        strategy = self.strategy(found)
        context = {
            "error_type": found.error_type.name,
            "operation": operation,
            "origin": found.origin.value,
            "code": found.code,
            "strategy": strategy.name,
        }
        more = f" ({unsaid} more like it were not logged)" if unsaid else ""
        text = "%s in %s: %s [%s, %s; advice: %s]%s"
        said = describe(error) if said is None else said
        values = (found.error_type.name, operation, said, found.origin.value, found.code, strategy.name, more)
        try:
            self.logger.log(level, text, *values, extra=context)
        except Exception:  # noqa: BLE001 (a log handler failed: the error in hand is what matters)
            self._throttle.lost += 1

    # --- breakers -------------------------------------------------------------------------------------

    def get_circuit_breaker(self, name: str) -> CircuitBreaker:
        """The breaker of this name, made on first use. Raises SettingsError for a name that cannot be one.

        Those that are made here count what says that the dependency is down, not bad queries or bad data.
        """
        return self.circuit_breakers.find_or_make(name)

    # --- retries --------------------------------------------------------------------------------------

    @overload
    def retry_operation(
        self,
        function: Callable[[], Coroutine[Any, Any, R]],
        name: str,
        max_retries: int = ...,
        *,
        error_type: ErrorType = ...,
    ) -> Coroutine[Any, Any, R]: ...

    @overload
    def retry_operation(
        self, function: Callable[[], R], name: str, max_retries: int = ..., *, error_type: ErrorType = ...
    ) -> R: ...

    def retry_operation(
        self,
        function: Callable[[], Any],
        name: str,
        max_retries: int = DEFAULT_RETRIES,
        *,
        error_type: ErrorType = ErrorType.MEMORY_STORAGE,
    ) -> Any:
        """Call `function()`, again after an error that passes: at most `max_retries` + 1 calls.

        Between calls it waits with exponential back-off and full jitter, within a total deadline
        (`RetrySettings`). What is not retriable, and the refusal of an open breaker, ends it at once. Every
        failed call is counted; the last exception is raised unchanged. An async function gives a coroutine.
        """
        check_retries(max_retries)
        began = self.surroundings.clock()
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 (raised again below, unless a retry succeeds)
            failed = error
        else:
            if inspect.iscoroutine(result):
                return self._retry_async(result, function, Retrying(name, max_retries, error_type))
            return result
        try:
            schedule = self.schedule(max_retries, began)
            while True:
                self._pause(schedule, failed, Retrying(name, max_retries, error_type))
                try:
                    return function()
                except Exception as error:  # noqa: BLE001 (as above)
                    failed = error
        finally:
            del failed  # an exception's traceback holds this frame: no circle is left

    async def _retry_async(
        self,
        first: Coroutine[Any, Any, Any],
        function: Callable[[], Coroutine[Any, Any, Any]],
        how: Retrying,
    ) -> Any:
        """As `retry_operation`, whose first call is made and not yet awaited."""
        began, coroutine = self.surroundings.clock(), first
        schedule: Schedule | None = None
        while True:
            try:
                return await coroutine
            except Exception as error:  # noqa: BLE001 (raised again below, unless a retry succeeds)
                failed = error
            schedule = schedule or self.schedule(how.max_retries, began)
            try:
                wait_s = schedule.failed(self.record(failed, how.name, how.error_type))
                if wait_s is None:
                    raise failed
                self.forget(failed)
            finally:
                del failed
            await self.surroundings.sleep_async(wait_s)
            coroutine = function()

    def _pause(self, schedule: Schedule, failed: Exception, how: Retrying) -> None:
        """After a failed attempt: wait for the next one. Raises `failed` if there is none."""
        wait_s = schedule.failed(self.record(failed, how.name, how.error_type))
        if wait_s is None:
            raise failed
        self.forget(failed)
        self.surroundings.sleep(wait_s)

    def error_recovery_context(
        self,
        name: str,
        max_retries: int = DEFAULT_RETRIES,
        *,
        suppress: bool = False,
        error_type: ErrorType = ErrorType.MEMORY_STORAGE,
    ) -> RecoveryContext:
        """A `with` block whose error is recorded; or, in a `for` loop, attempts that retry it.

        Python cannot run the body of a `with` statement twice, so `with error_recovery_context(...):` makes
        ONE attempt, whatever `max_retries` says: it classifies and counts the error and raises it again. It
        swallows it only where the advice is FAIL_GRACEFULLY, or the caller said `suppress=True`. This
        really retries, with the waits of `retry_operation`, at most `max_retries` + 1 times:

            for attempt in handler.error_recovery_context("load", max_retries=3):
                with attempt:
                    load()

        `async with` and `async for` work the same way and wait without blocking the loop.
        """
        return RecoveryContext(self, Retrying(name, max_retries, error_type), suppress)

    def schedule(self, max_retries: int, began: float) -> Schedule:
        """The attempts of one call that began then."""
        around = self.surroundings
        return Schedule(max_retries, self.retry_settings, around.clock, around.chance, began)

    # --- what is known --------------------------------------------------------------------------------

    def get_error_metrics(self) -> dict[ErrorType, ErrorMetric]:
        """What was counted of every error type: by this handler since its last reset, and by the host."""
        totals, now = process_counters().totals(), self.surroundings.clock()
        metrics = {}
        for kind in ErrorType:
            host = None
            if totals is not None:
                host = sum(count for (name, _), count in totals.items() if name == kind.name)
            metrics[kind] = self._counts.read(kind, now, host)
        return metrics

    def reset_error_metrics(self, error_type: ErrorType | None = None) -> None:
        """Begin anew, with one type or with all: moves this handler's baseline and nothing else."""
        self._counts.reset(error_type)

    def get_health_report(self) -> dict[str, Any]:
        """`is_healthy`, `error_metrics` by type and `circuit_breakers` by name, as JSON values.

        Healthy while none of this handler's breakers is OPEN, HALF_OPEN or FORCED_OPEN.
        """
        breakers = self.circuit_breakers.report()
        sick = {state.name for state in UNHEALTHY}
        return {
            "is_healthy": not any(one["state"] in sick for one in breakers.values()),
            "error_metrics": {kind.name: one.to_json() for kind, one in self.get_error_metrics().items()},
            "circuit_breakers": breakers,
        }


class _Handlers:
    """Every handler of this process, for a forked child's sake."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[MemoryErrorHandler] = weakref.WeakSet()
        self._hooked = False

    def remember(self, handler: MemoryErrorHandler) -> None:
        """Tell it in every child."""
        if not self._hooked and hasattr(os, "register_at_fork"):
            self._hooked = True
            os.register_at_fork(after_in_child=self._in_child)
        self._all.add(handler)

    def _in_child(self) -> None:
        for handler in list(self._all):
            handler.after_fork()


_handlers: Final = _Handlers()
