"""What a failure is: asked in the caller's thread, in the order of the design, with nothing held.

Callables and exception classes belong to one process and never leave it. Neighbours: `admission`, `guard`
(which ask). Knows no clock, no board and no ring.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from ipc.caller_ends import ends_itself
from ipc.errors import CircuitOpenError, SettingsError
from ipc.logbook import report
from ipc.vocabulary import BreakerSettings, OutcomeKind

ExceptionTypes = type[Exception] | tuple[type[Exception], ...]
_FUTURE_CANCELLED: Final = ("concurrent.futures._base", "CancelledError")
"""Known by module and name, so that the package is not imported."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the application says about outcomes, and whom it wants to be told of changes."""

    expected: tuple[type[Exception], ...] = (Exception,)
    ignored: tuple[type[Exception], ...] = ()
    is_failure: Callable[[BaseException], bool] | None = None
    is_failure_result: Callable[[Any], bool] | None = None
    on_state_change: Callable[..., object] | None = None
    told: list[object] = field(default_factory=list, compare=False, repr=False)
    """A predicate whose exception was logged."""

    def kind(
        self, error: BaseException | None, took: float, settings: BreakerSettings, name: str
    ) -> OutcomeKind:
        """How a call ended that raised and took so many seconds; `name` is the breaker's."""
        slow = settings.slow_call_s is not None and took >= settings.slow_call_s
        if error is None:
            return OutcomeKind.SLOW_SUCCESS if slow else OutcomeKind.SUCCESS
        if not isinstance(error, Exception) or self._is_cancelled_future(error):
            if ends_itself(error):
                return OutcomeKind.IGNORED  # not CANCELLED: the supervisor may have another limit for that
            limit = settings.cancelled_is_failure_s
            if limit is None or took < limit:
                return OutcomeKind.CANCELLED
            return OutcomeKind.CANCELLED_LATE
        if not self.is_bad(error, name):
            return OutcomeKind.IGNORED
        return OutcomeKind.SLOW_FAILURE if slow else OutcomeKind.FAILURE

    def _is_cancelled_future(self, error: BaseException) -> bool:
        """A future of a pool was cancelled, and the application has not named that class as a failure."""
        return _is_named(type(error), _FUTURE_CANCELLED) and not any(
            _is_named(one, _FUTURE_CANCELLED) for one in self.expected
        )

    def is_bad(self, error: Exception, name: str) -> bool:
        """Whether this exception says that the dependency is down."""
        if isinstance(error, (*self.ignored, MemoryError)):
            return False
        if isinstance(error, CircuitOpenError) and error.breaker == name:
            return False  # our own refusal, of a call inside the call
        if self.is_failure is not None:
            return self.asked(self.is_failure, error)
        if isinstance(error, CircuitOpenError):
            # Another breaker refused: our dependency was not asked. Who wants that to count names the class.
            return any(issubclass(one, CircuitOpenError) for one in self.expected)
        if isinstance(error, self.expected):
            return True
        return isinstance(error, ExceptionGroup) and error.subgroup(self.expected) is not None

    def by_class(self, kind: type[BaseException]) -> bool:
        """True if every exception of exactly this class is a failure: neither predicate nor group decides."""
        if self.is_failure is not None or issubclass(kind, (*self.ignored, MemoryError, CircuitOpenError)):
            return False
        return issubclass(kind, self.expected)

    def bad_result(self, result: Any) -> bool:
        """Whether what the call returned is a failure."""
        return self.is_failure_result is not None and self.asked(self.is_failure_result, result)

    def asked(self, predicate: Callable[[Any], bool], value: Any) -> bool:
        """The predicate's answer; one that raises counts as False, and is logged once."""
        try:
            answer = predicate(value)
            if not hasattr(type(answer), "__await__"):
                return bool(answer)
            getattr(answer, "close", bool)()
            raise TypeError("an awaitable is no answer")
        except Exception:  # noqa: BLE001 (the predicate is the application's)
            if not self.told:
                self.told.append(predicate)
                report("the predicate %r raised; its answer counts as False", predicate)
            return False


def _is_named(kind: type[BaseException], named: tuple[str, str]) -> bool:
    return any((one.__module__, one.__qualname__) == named for one in kind.__mro__)


def check_callable(key: str, value: Any) -> None:
    """Refuse what cannot be asked in the thread of a call. Raises SettingsError."""
    if value is None:
        return
    if not callable(value):
        raise SettingsError(key, f"must be a function or None, got {value!r}")
    called = getattr(type(value), "__call__", None)  # noqa: B004 (its code is looked at, not called)
    if any(inspect.iscoroutinefunction(one) for one in (inspect.unwrap(value), called)):
        raise SettingsError(key, f"must be a plain function, and {value!r} is async: nobody would await it")


def types(key: str, value: ExceptionTypes) -> tuple[type[Exception], ...]:
    """One exception class or a tuple of them, checked. Raises SettingsError."""
    given = value if isinstance(value, tuple) else (value,)
    for one in given:
        if not (isinstance(one, type) and issubclass(one, Exception)):
            raise SettingsError(key, f"must be a subclass of Exception or a tuple of them, got {one!r}")
    return given
