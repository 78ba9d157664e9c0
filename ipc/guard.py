"""CircuitBreaker: the decorator, the `with` form, `.call()`, and the quick path of a guarded call.

The quick path is in `_guard` and `_guard_async`; each line of it was measured. Neighbours: `admission`
(all that is not quick), `blocks` (what the tuple in `link.queue` is, and why no slot stays empty),
`orders` (state and commands). Knows no socket.
"""

from __future__ import annotations

import functools
import inspect
import sys
import weakref
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast

from ipc.admission import Binding, Entry
from ipc.client import Client
from ipc.errors import SettingsError, UnguardableError
from ipc.layout import W_BELL, W_CHANGES
from ipc.link import Link
from ipc.orders import Orders
from ipc.process import default_client
from ipc.rows import Row, declaration
from ipc.verdict import ExceptionTypes, Verdict, types
from ipc.vocabulary import BreakerSettings, Window, check_name

P = ParamSpec("P")
R = TypeVar("R")
Async = Callable[P, Coroutine[Any, Any, R]]

_entered: Final[ContextVar[tuple[Entry, ...]]] = ContextVar("ipc_entered", default=())
"""The `with` blocks of this context that are open, of all breakers, innermost last."""

ENTERED_MAX: Final = 256
"""Blocks remembered per context; beyond it only their frames tell them apart."""


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


class CircuitBreaker(Orders):
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
        self._entries: dict[int, list[Entry]] = {}
        """Open `with` blocks by the frame that they stand in."""
        row = None
        if name is not None:
            client = client or default_client()
            row = client.row(check_name(name), settings)
        client = client if row else None
        super().__init__(settings, verdict, row or _own_row(name or "", settings, default_client()), client)

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
        return _declared_again, (self._shared.name or None, self.settings, replace(self.verdict, told=[]))

    # --- the decorator ------------------------------------------------------------------------------

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Guard a function, sync or async. Raises UnguardableError for generators and uncallables."""
        target: Any = function.func if isinstance(function, functools.partial) else function
        called = getattr(type(target), "__call__", None)  # noqa: B004 (its code is looked at, not called)
        for candidate in (target, called):
            if inspect.isgeneratorfunction(candidate) or inspect.isasyncgenfunction(candidate):
                raise UnguardableError(_GENERATOR % getattr(target, "__name__", target))
        if not callable(function):
            raise UnguardableError(f"{function!r} is not callable: put @breaker below @classmethod")
        judged = self.verdict.is_failure_result is not None
        if inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(called):
            guarded: Any = self._guard_async if not judged else self._guard_result_async
            return cast("Callable[P, R]", guarded(function))
        return self._guard_result(function) if judged else self._guard(function)

    def _guard(self, function: Callable[P, R]) -> Callable[P, R]:
        clock, link, row, quick = self.clock, self._link, self._row, self._quick

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
                if type(error) is self._usual and not link.local:
                    slots, ring, limit, plus, minus, _ = link.queue
                    took = end - start
                    if took < quick and end < limit[0]:
                        for slot in slots:
                            ring[slot] = -((end * 128.0 + plus) - minus + head + took)
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
        clock, link, row, quick = self.clock, self._link, self._row, self._quick

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
                if type(error) is self._usual and not link.local:
                    slots, ring, limit, plus, minus, _ = link.queue
                    took = end - start
                    if took < quick and end < limit[0]:
                        for slot in slots:
                            ring[slot] = -((end * 128.0 + plus) - minus + head + took)
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
        code = getattr(function, "__code__", None)
        if code is None or code.co_flags & _NOT_PLAIN:
            return self(function)(*args, **kwargs)
        return cast("R", self._tried(self._begin(), function, args, kwargs))

    def _begin(self) -> Entry:
        """Admit one call. Raises CircuitOpenError."""
        if self._link.states[self._row] == self._closed:
            return self._plain()
        return self._admit() or self._plain()

    async def _begin_async(self) -> Entry:
        """The same, awaiting where a permit must be asked for."""
        return (await self._admit_async() if self._must_wait() else None) or self._begin()

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

    # --- with ---------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        """Admit the block. Raises CircuitOpenError."""
        self._enter(self._begin(), id(sys._getframe(1)))
        return self

    async def __aenter__(self) -> Self:
        """Admit the block, awaiting a trial's permit. Raises CircuitOpenError."""
        frame = id(sys._getframe(1))
        self._enter(await self._begin_async(), frame)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Put the block's outcome; its exception passes on."""
        self._leave(error, id(sys._getframe(1)))

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Put the block's outcome; its exception passes on."""
        self._leave(error, id(sys._getframe(1)))

    def _enter(self, entry: Entry, frame: int) -> None:
        """Remember the block by the frame it stands in, and by its context for an ExitStack's sake."""
        self._entries.setdefault(frame, []).append(entry)
        _entered.set((*_entered.get()[1 - ENTERED_MAX :], entry))
        entry.frame = frame
        entry.start = self.clock()

    def _leave(self, error: BaseException | None, frame: int) -> None:
        """End the innermost block of this frame, else of this context: each entry ends exactly once."""
        entered = _entered.get()
        mine = self._entries.get(frame)
        if mine:
            entry = mine[-1]
        else:
            open_here = [one for one in entered if one.owner is self and not one.done]
            if not open_here:
                return
            entry = open_here[-1]
        mine = self._entries.get(entry.frame, [])
        if entry in mine:
            mine.remove(entry)
        if not mine:
            self._entries.pop(entry.frame, None)
        self._end(entry, error, self.clock())
        if entered:
            _entered.set(tuple(one for one in entered if not one.done))


_living: Final[weakref.WeakSet[CircuitBreaker]] = weakref.WeakSet()
_NOT_PLAIN: Final = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_GENERATOR: Final = (
    "%s is a generator function: its body runs after the call has returned, so a decorator cannot guard it. "
    "Guard what fails inside it instead:\n    with breaker:\n        row = fetch_next()\n    yield row"
)


def breakers_of_this_process() -> list[CircuitBreaker]:
    """Every breaker object that is in use."""
    return list(_living)


def rebind(breaker: CircuitBreaker, client: Client) -> Binding:
    """Let a breaker start afresh as one of `client`; gives what it belonged to. For tests."""
    name = breaker.name
    row = client.row(name, breaker.settings) if name else None
    if row is None:
        return breaker.bind_slowly(Binding(_own_row(name, breaker.settings, client), None))
    return breaker.bind_slowly(Binding(row, client))


def _own_row(name: str, settings: BreakerSettings, client: Client) -> Row:
    """A row on a board of its own, for a breaker of this process alone."""
    link = Link(client.clock, client.chance)
    number = link.add_breaker(name, settings, declaration(name, settings))
    return Row(link, number or 0, name, settings)


def make(
    name: str | None, settings: BreakerSettings, verdict: Verdict, client: Client | None
) -> CircuitBreaker:
    """A breaker from its parts; `client` None = the process's default."""
    breaker = CircuitBreaker.__new__(CircuitBreaker)
    breaker._set_up(name, settings, verdict, client)
    return breaker


def _declared_again(name: str | None, settings: BreakerSettings, verdict: Verdict) -> CircuitBreaker:
    return make(name, settings, verdict, None)
