"""The breakers of a handler: a mapping by name, in which assigning is registering host-wide.

Neighbours: `handler` (owns one), `ipc` (what a breaker is), `fallback` (asks what is alive). Only a guard
reports an outcome to a breaker; nothing here does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from types import FunctionType
from typing import Any, Final

from ipc import BreakerState, CircuitBreaker
from workers.classify import counts_as_failure
from workers.kinds import Area

UNHEALTHY: Final = frozenset({BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.FORCED_OPEN})
SHUT: Final = frozenset({BreakerState.OPEN, BreakerState.FORCED_OPEN})
BREAKERS_MAX: Final = 1024
"""Breakers of one handler: as many as a process can tell its supervisor of."""


class Breakers(MutableMapping[str, CircuitBreaker]):
    """The breakers of one handler by the names that it knows them by."""

    def __init__(self) -> None:
        self._named: dict[str, CircuitBreaker] = {}

    def __getitem__(self, name: str) -> CircuitBreaker:
        return self._named[name]

    def __setitem__(self, name: str, breaker: CircuitBreaker) -> None:
        """Register a breaker: one without a name gets this one, and is host-wide from now on.

        Raises SettingsError for a name that cannot be one, TypeError for what is no CircuitBreaker.
        """
        if not isinstance(breaker, CircuitBreaker):
            raise TypeError(f"{name!r} must be a CircuitBreaker, got {breaker!r}")
        if name not in self._named and len(self._named) >= BREAKERS_MAX:
            raise ValueError(f"a handler has at most {BREAKERS_MAX} breakers")
        if not breaker.name:
            breaker.name = name
        self._named[name] = breaker

    def __delitem__(self, name: str) -> None:
        """Forget it here; on this host it stays what it is."""
        del self._named[name]

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._named))

    def __len__(self) -> int:
        return len(self._named)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._named!r})"

    def find_or_make(self, name: str) -> CircuitBreaker:
        """The breaker of this name; made with the default settings, and with what counts as a failure of a
        dependency (`classify.counts_as_failure`), if there is none yet.
        """
        found = self._named.get(name)
        if found is None:
            self[name] = CircuitBreaker(name, is_failure=counts_as_failure)
            found = self._named[name]
        return found

    def alive(self, area: Area) -> bool:
        """Whether that dependency would take a call: its breaker is not open, or there is none."""
        breaker = self._named.get(area.value)
        return breaker is None or breaker.state.value not in SHUT

    def report(self) -> dict[str, dict[str, Any]]:
        """Every breaker's state as JSON values."""
        return {name: _report(breaker) for name, breaker in list(self._named.items())}


def _report(breaker: CircuitBreaker) -> dict[str, Any]:
    state = breaker.state
    value = state.value
    return {
        "state": value.name,
        "is_open": value in SHUT,
        "failure_count": state.failure_count,
        "retry_after_s": state.retry_after_s,
    }


# --- who has guarded a call already ---------------------------------------------------------------------

_GUARD: Final = CircuitBreaker.__call__.__code__.co_filename


def guards(function: Callable[..., Any], breaker: CircuitBreaker) -> bool:
    """Whether one of the decorators around `function` is this breaker."""
    seen: Any = function
    while seen is not None:
        seen = getattr(seen, "__func__", seen)
        if isinstance(seen, FunctionType) and seen.__code__.co_filename == _GUARD:
            cells = dict(zip(seen.__code__.co_freevars, seen.__closure__ or (), strict=False))
            if "self" in cells and same(cells["self"].cell_contents, breaker):
                return True
        seen = getattr(seen, "__wrapped__", None) or getattr(seen, "func", None)
    return False


def reported(error: BaseException, breaker: CircuitBreaker) -> bool:
    """Whether a guard of this breaker, further in, has seen the error pass and has counted it."""
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_filename == _GUARD and same(frame.f_locals.get("self"), breaker):
            return True
        trace = trace.tb_next
    return False


def same(one: object, other: CircuitBreaker) -> bool:
    """Whether they are one breaker: one object, or one name."""
    return one is other or (isinstance(one, CircuitBreaker) and bool(one.name) and one.name == other.name)
