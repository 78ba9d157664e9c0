"""CircuitBreaker: the decorator, the `with` form, `.call()`, and the quick path of a guarded call.

The quick path is in `_guard` and `_guard_async`; each line of it was measured. Neighbours: `admission`
(all that is not quick), `blocks` (what the tuple in `link.queue` is, and why no slot stays empty),
`orders` (state and commands). Knows no socket.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import weakref
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import FunctionType, MethodType
from typing import Any, Final, ParamSpec, TypedDict, TypeVar, Unpack, cast

from ipc.admission import Binding
from ipc.awaited import Awaited, as_coroutine
from ipc.client import Client
from ipc.ending import Entry
from ipc.entered import Enterable
from ipc.errors import SettingsError, UnguardableError
from ipc.layout import W_BELL, W_CHANGES
from ipc.process import default_client
from ipc.verdict import ExceptionTypes, Verdict, check_callable, types
from ipc.vocabulary import BreakerSettings, Window, check_name

P = ParamSpec("P")
R = TypeVar("R")
Async = Callable[P, Coroutine[Any, Any, R]]


class Settings(TypedDict, total=False):
    """The keyword arguments that are BreakerSettings, where units, bounds and defaults stand."""

    failure_threshold: int | None
    failure_rate: float | None
    window: Window
    minimum_calls: int
    slow_call_s: float | None
    slow_call_rate: float | None
    recovery_timeout: float
    recovery_growth: float
    recovery_timeout_max: float
    recovery_jitter: float
    permitted_trials: int
    successes_to_close: int
    trial_timeout: float
    cancelled_is_failure_s: float | None
    ramp_s: float


class CircuitBreaker(Enterable):
    """A host-wide circuit breaker: `@breaker`, `breaker.call(f)`, `with breaker:`, `async with breaker:`.

    `name` is the same for everybody on the host who means this dependency; without one the breaker is this
    process's own until `name` is set. `expected_exception` counts as failure, `ignored_exception` never
    does, every other exception says nothing. `is_failure(exception)` decides instead of the classes,
    `is_failure_result(result)` about what was returned. `on_state_change(breaker, old, new)` runs in the
    thread of the call that first sees a change. A refused call raises CircuitOpenError; what the guarded
    call raises passes through unchanged. Raises SettingsError for a value out of its bounds.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        expected_exception: ExceptionTypes = Exception,
        ignored_exception: ExceptionTypes = (),
        is_failure: Callable[[BaseException], bool] | None = None,
        is_failure_result: Callable[[Any], bool] | None = None,
        on_state_change: Callable[..., object] | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        for key, function in (
            ("is_failure", is_failure),
            ("is_failure_result", is_failure_result),
            ("on_state_change", on_state_change),
        ):
            check_callable(key, function)
        verdict = Verdict(
            types("expected_exception", expected_exception),
            types("ignored_exception", ignored_exception),
            is_failure,
            is_failure_result,
            on_state_change,
        )
        self._set_up(name, BreakerSettings(**settings), verdict, None)

    def _set_up(
        self, name: str | None, settings: BreakerSettings, verdict: Verdict, client: Client | None
    ) -> None:
        _living.add(self)
        self._entries = {}
        row = None
        if name is not None:
            client = client or default_client()
            row = client.row(check_name(name), settings)
        client = client if row else None
        super().__init__(settings, verdict, row or default_client().row_alone(name or "", settings), client)

    @property
    def name(self) -> str:
        """The name; "" while it has none. Setting it once makes the breaker host-wide."""
        return self._shared.name

    @name.setter
    def name(self, name: str) -> None:
        if self._shared.name:
            raise SettingsError("name", f"this breaker is called {self._shared.name!r} already")
        client = default_client()
        row = client.row(check_name(name), self.settings)
        if row is None:
            self._shared.name = name
        else:
            self._move(row, client)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name or 'without a name'}: {self.state.value.name}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """A breaker pickles as its declaration; where it arrives it is that process's of this name."""
        ours = vars(CircuitBreaker())  # what every breaker has; the rest is a subclass's, and travels with it
        own = {key: value for key, value in vars(self).items() if key not in ours}
        verdict = replace(self.verdict, told=[])
        return _declared_again, (self._shared.name or None, self.settings, verdict, type(self), own)

    # --- the decorator ------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard a function, sync or async. Raises UnguardableError for generators and uncallables."""
        if isinstance(function, staticmethod | classmethod):
            return cast("Callable[P, R]", type(function)(self(function.__func__)))
        if not callable(function):
            raise UnguardableError(f"{function!r} is not callable")
        if isinstance(function, type):
            raise UnguardableError(f"{function!r} is a class: guard its methods, or call it by breaker.call")
        target: Any = function.func if isinstance(function, functools.partial) else function
        called = getattr(type(target), "__call__", None)  # noqa: B004 (its code is looked at, not called)
        for candidate in (target, called):
            if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
                raise UnguardableError(_GENERATOR % getattr(target, "__name__", target))
        if getattr(getattr(target, "__code__", None), "co_filename", "") == contextlib.__file__:
            raise UnguardableError(_MANAGER % getattr(target, "__name__", target))
        judged = self.verdict.is_failure_result is not None
        if any(inspect.iscoroutinefunction(one) for one in (target, called)):
            guarded: Any = self._guard_async if not judged else self._guard_result_async
            return cast("Callable[P, R]", guarded(function))
        if inspect.iscoroutinefunction(inspect.unwrap(target)):
            return self._guard_whichever(function)
        return self._guard_result(function) if judged else self._guard(function)

    def _guard(self, function: Callable[P, R]) -> Callable[P, R]:
        clock, link, row, quick, mark = self.clock, self._link, self._row, self._quick, self._mark

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if link.states[row] != self._closed:
                entry = self._admit()
                if entry is not None:
                    return cast("R", self._tried(entry, function, args, kwargs))
            head = self._head
            start = clock()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                end = clock()
                if type(error) is self._usual and not link.local and error.__context__ is None:
                    slots, ring, limit, plus, minus, _ = link.queue
                    took = end - start
                    marks = error.__dict__
                    if took < quick and end < limit[0] and marks.get(mark, -1.0) <= start:
                        for slot in slots:
                            ring[slot] = -((end * 128.0 + plus) - minus + head + took)
                            marks[mark] = end
                            words = link.words
                            words[link.tallies + self._usual_tally] += 1
                            link.floats[W_CHANGES] = end
                            if words[W_BELL] != link.rung:
                                link.ring()
                            raise
                self._failed(head, start, end, error)
                raise
            end = clock()
            slots, ring, limit, plus, minus, _ = link.queue
            took = end - start
            if took < quick and end < limit[0]:
                for slot in slots:
                    ring[slot] = (end * 128.0 + plus) - minus + head + took
                    return result
            self._late(head, start, end)
            return result

        return guarded

    def _guard_async(self, function: Async[P, R]) -> Async[P, R]:
        clock, link, row, quick, mark = self.clock, self._link, self._row, self._quick, self._mark

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if link.states[row] != self._closed:
                entry = await self._admit_async() if self._must_wait() else self._admit()
                if entry is not None:
                    return cast("R", await self._tried_async(entry, function, args, kwargs))
            head = self._head
            start = clock()
            try:
                result = await function(*args, **kwargs)
            except BaseException as error:
                end = clock()
                if type(error) is self._usual and not link.local and error.__context__ is None:
                    slots, ring, limit, plus, minus, _ = link.queue
                    took = end - start
                    marks = error.__dict__
                    if took < quick and end < limit[0] and marks.get(mark, -1.0) <= start:
                        for slot in slots:
                            ring[slot] = -((end * 128.0 + plus) - minus + head + took)
                            marks[mark] = end
                            words = link.words
                            words[link.tallies + self._usual_tally] += 1
                            link.floats[W_CHANGES] = end
                            if words[W_BELL] != link.rung:
                                link.ring()
                            raise
                self._failed(head, start, end, error)
                raise
            end = clock()
            slots, ring, limit, plus, minus, _ = link.queue
            took = end - start
            if took < quick and end < limit[0]:
                for slot in slots:
                    ring[slot] = (end * 128.0 + plus) - minus + head + took
                    return result
            self._late(head, start, end)
            return result

        return guarded

    def _guard_whichever(self, function: Callable[P, R]) -> Callable[P, R]:
        """The guard of a plain wrapper of an async function: what it returns tells whether it is awaited."""

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            return cast("R", self._called(function, args, kwargs))

        return guarded

    def _guard_result(self, function: Callable[P, R]) -> Callable[P, R]:
        """The guard of a breaker that judges results: every call goes the slow way."""

        @functools.wraps(function)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            return cast("R", self._tried(self._begin(), function, args, kwargs))

        return guarded

    def _guard_result_async(self, function: Async[P, R]) -> Async[P, R]:
        """The same for an async function."""

        @functools.wraps(function)
        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            entry = await self._begin_async()
            return cast("R", await self._tried_async(entry, function, args, kwargs))

        return guarded

    # --- calls that are not decorated ---------------------------------------------------------------

    def call(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function under guard. An async function gives its coroutine, guarded when awaited."""
        plain = isinstance(function, FunctionType) and not function.__code__.co_flags & _NOT_PLAIN
        if isinstance(function, FunctionType | functools.partial) and not plain:
            return cast("R", self(function)(*args, **kwargs))
        if isinstance(function, MethodType) and inspect.iscoroutinefunction(function):
            return cast("R", self(function)(*args, **kwargs))
        return cast("R", self._called(function, args, kwargs))

    def _called(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call it now; what it returns that must be awaited is guarded until that has ended."""
        entry = self._begin()
        entry.start = self.clock()
        try:
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                return as_coroutine(Awaited(self, entry, result))
            if hasattr(type(result), "__await__"):
                return Awaited(self, entry, result)
        except BaseException as error:
            self._end(entry, error, self.clock())
            raise
        self._end(entry, None, self.clock(), self.verdict.bad_result(result))
        return result

    def _tried(self, entry: Entry, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        entry.start = self.clock()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            self._end(entry, error, self.clock())
            raise
        self._end(entry, None, self.clock(), self.verdict.bad_result(result))
        return result

    async def _tried_async(self, entry: Entry, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        entry.start = self.clock()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            self._end(entry, error, self.clock())
            raise
        self._end(entry, None, self.clock(), self.verdict.bad_result(result))
        return result


_living: Final[weakref.WeakSet[CircuitBreaker]] = weakref.WeakSet()
_NOT_PLAIN: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_GENERATOR: Final = (
    "%s is a generator function: its body runs after the call has returned, so a decorator cannot guard it. "
    "Guard what fails inside it instead:\n    with breaker:\n        row = fetch_next()\n    yield row"
)
_MANAGER: Final = (
    "%s makes a context manager: its body runs after the call has returned, so a decorator cannot guard it. "
    "Guard the block instead:\n    with breaker, connection():\n        ..."
)


def breakers_of_this_process() -> list[CircuitBreaker]:
    """Every breaker object that is in use."""
    return list(_living)


def rebind(breaker: CircuitBreaker, client: Client, adopts: bool = False) -> Binding:
    """Let a breaker start afresh as one of `client`; gives what it belonged to. For tests."""
    name = breaker.name
    row = client.row(name, breaker.settings) if name else None
    if row is None:
        return breaker.bind_slowly(Binding(client.row_alone(name, breaker.settings), None), adopts)
    return breaker.bind_slowly(Binding(row, client), adopts)


def make(
    name: str | None, settings: BreakerSettings, verdict: Verdict, client: Client | None
) -> CircuitBreaker:
    """A breaker from its parts; `client` None = the process's default."""
    breaker = CircuitBreaker.__new__(CircuitBreaker)
    breaker._set_up(name, settings, verdict, client)
    return breaker


def _declared_again(
    name: str | None, settings: BreakerSettings, verdict: Verdict,
    kind: type[CircuitBreaker] = CircuitBreaker, own: dict[str, Any] | None = None,
) -> CircuitBreaker:  # fmt: skip
    breaker = kind.__new__(kind)
    breaker._set_up(name, settings, verdict, None)
    vars(breaker).update(own or {})
    return breaker
