"""Orders that interrupt guarded calls everywhere: at the n-th opcode of the library, at the n-th await.

The figures they return are bounds: `started` calls, of which `done` came back by themselves; what the
supervisor counts must lie between. Neighbours: `crew` (who obeys), `orders_holes` (whose code is ours).
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, Self

import ipc
from tests.faults.body import Broken
from tests.faults.orders_holes import ours

if TYPE_CHECKING:
    from tests.faults.crew import Crew

HITLESS_MAX: Final = 600
"""Calls in a row that do not reach the n-th opcode: no call has that many (a block is 256 slots)."""
REFUSED_MAX: Final = 2000
FREE_S: Final = 3.0
"""A call of another thread that takes longer than this waits for a lock that nobody will release."""
ERRORS: Final[dict[str, type[BaseException]]] = {
    "keyboard": KeyboardInterrupt, "exit": SystemExit, "memory": MemoryError,
}  # fmt: skip


class Injection:
    """Raises `error` in this thread before the n-th opcode of the library."""

    def __init__(self, nth: int, error: BaseException) -> None:
        self._left = nth
        self._error = error
        self.where = ""

    def __enter__(self) -> Self:
        sys.settrace(self._enter)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _enter(self, frame: FrameType, _event: str, _arg: object) -> Any:
        if not ours(frame):
            return None
        frame.f_trace_opcodes = True
        return self._step

    def _step(self, frame: FrameType, event: str, _arg: object) -> Any:
        if event == "opcode":
            self._left -= 1
            if not self._left:
                self.where = f"{frame.f_code.co_name}:{frame.f_lineno}+{frame.f_lasti}"
                raise self._error
        return self._step


class Sweep:
    """Counts what was started and what came back, and what came out wrong."""

    def __init__(self, crew: Crew, breaker: str, how: str, form: str) -> None:
        self.started = self.done = self.hits = self.refused = 0
        self.wrong: list[str] = []
        self._how = how
        made = crew.breakers[breaker]
        self._form = _FORMS[form](made)

    def _inside(self) -> None:
        if self._how == "fail":
            raise Broken(self._how)

    def plain(self) -> str:
        """One call without injection: ok, fail or refused."""
        self.started += 1
        try:
            self._form(self._inside)
        except Broken:
            self.done += 1
            return "fail"
        except ipc.CircuitOpenError:
            self.started -= 1
            self.refused += 1
            return "refused"
        self.done += 1
        return "ok"

    def hit(self, nth: int, error: type[BaseException]) -> bool:
        """One call with an injection; True if it was reached."""
        injected = error(f"injected at {nth}")
        self.started += 1
        came: BaseException | None = None
        injection = Injection(nth, injected)
        try:
            with injection:
                self._form(self._inside)
        except BaseException as caught:
            came = caught
        if came is injected:
            self.hits += 1
        elif isinstance(came, ipc.CircuitOpenError):
            self.started -= 1
            self.refused += 1
        elif came is None or isinstance(came, Broken):
            self.done += 1
            if injection.where:
                self.wrong.append(f"{nth} at {injection.where}: swallowed, {came!r} came out")
        else:
            self.wrong.append(f"{nth} at {injection.where}: {came!r} came out")
        return bool(injection.where)

    def free(self, nth: int) -> bool:
        """A call of another thread is not held up."""
        other = threading.Thread(target=self.plain, daemon=True)
        other.start()
        other.join(FREE_S)
        if other.is_alive():
            self.wrong.append(f"{nth}: a lock stayed held")
        return not other.is_alive()

    def answer(self, last: int) -> dict[str, Any]:
        """The figures."""
        return {
            "started": self.started, "done": self.done, "hits": self.hits, "refused": self.refused,
            "opcodes": last, "wrong": self.wrong[:10],
        }  # fmt: skip


def _with(breaker: ipc.CircuitBreaker) -> Callable[[Callable[[], None]], Any]:
    """Each block in a context of its own: what an interruption leaves there goes with it."""

    def block(inside: Callable[[], None]) -> None:
        with breaker:
            inside()

    return lambda inside: contextvars.copy_context().run(block, inside)


_FORMS: Final[dict[str, Callable[[ipc.CircuitBreaker], Callable[[Callable[[], None]], Any]]]] = {
    "decorated": lambda breaker: breaker(lambda inside: inside()),
    "call": lambda breaker: breaker.call,
    "with": _with,
}


def sweep_opcodes(
    crew: Crew, breaker: str, how: str = "ok", form: str = "decorated", error: str = "keyboard", step: int = 1
) -> dict[str, Any]:
    """Interrupt calls at every `step`-th opcode until no call is that long, blocks and all."""
    sweep = Sweep(crew, breaker, how, form)
    nth = 1
    while True:
        for _ in range(HITLESS_MAX):
            if sweep.hit(nth, ERRORS[error]):
                break
        else:
            return sweep.answer(nth)
        if not sweep.free(nth):
            return sweep.answer(nth)
        nth += step


def sweep_trials(
    crew: Crew, breaker: str, step: int = 1, first: int = 1, lease_s: float = 1.5, span_s: float = 60.0
) -> dict[str, Any]:
    """Interrupt trial calls of a half-open breaker at every `step`-th opcode.

    Before each there is a successful trial, which proves that no permit of the one before is still out:
    it must come within `lease_s`.
    """
    sweep = Sweep(crew, breaker, "ok", "decorated")
    nth, end, waited = first, time.monotonic() + span_s, 0.0
    while time.monotonic() < end:
        begun = time.monotonic()
        while sweep.plain() != "ok":
            if time.monotonic() - begun > lease_s:
                sweep.wrong.append(f"{nth}: no trial is granted {lease_s:g} s after the last interruption")
                return sweep.answer(nth)
            time.sleep(0.002)
        waited = max(waited, time.monotonic() - begun)
        # The permit of that success comes back with the next drain: until then calls are refused.
        for _ in range(HITLESS_MAX):
            refused = sweep.refused
            if sweep.hit(nth, KeyboardInterrupt):
                break
            if sweep.refused == refused:
                return {**sweep.answer(nth), "waited_s": waited}
            time.sleep(0.002)
        nth += step
    return {**sweep.answer(nth), "waited_s": waited}


class Suspensions:
    """Awaits `inner` and has its `task` cancelled at its n-th suspension."""

    def __init__(self, inner: Any, nth: int) -> None:
        self._inner, self._nth = inner, nth
        self.task: asyncio.Task[Any] | None = None
        self.seen = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._inner.__await__()
        value, error = None, None
        while True:
            try:
                waited = steps.throw(error) if error is not None else steps.send(value)
            except StopIteration as end:
                return end.value
            self.seen += 1
            if self.seen == self._nth and self.task is not None:
                asyncio.get_running_loop().call_soon(self.task.cancel)
            value, error = None, None
            try:
                value = yield waited
            except BaseException as thrown:
                error = thrown


def cancel_everywhere(crew: Crew, breaker: str, rounds: int = 1, form: str = "decorated") -> dict[str, Any]:
    """Cancel an async guarded call at its n-th suspension, for every n; `began` counts bodies entered."""
    return asyncio.run(_cancel_everywhere(crew.breakers[breaker], rounds, form))


async def _cancel_everywhere(breaker: ipc.CircuitBreaker, rounds: int, form: str) -> dict[str, Any]:
    began = finished = cancelled = refused = 0
    wrong: list[str] = []

    async def inside() -> str:
        nonlocal began
        began += 1
        for _ in range(3):
            await asyncio.sleep(0.001)
        return "ok"

    async def entered() -> str:
        async with breaker:
            return await inside()

    call = breaker(inside) if form == "decorated" else entered
    for _ in range(rounds):
        nth = 1
        while True:
            watched = Suspensions(call(), nth)
            watched.task = asyncio.ensure_future(_await(watched))
            result = (await asyncio.gather(watched.task, return_exceptions=True))[0]
            if isinstance(result, ipc.CircuitOpenError):
                refused += 1
                if refused > REFUSED_MAX:
                    wrong.append(f"await {nth}: refused for ever")
                    break
                await asyncio.sleep(0.005)  # the permit comes back with a drain
                continue
            if isinstance(result, asyncio.CancelledError):
                cancelled += 1
            elif result == "ok":
                finished += 1
            else:
                wrong.append(f"await {nth}: {result!r}")
            if watched.seen < nth or wrong:
                break
            nth += 1
    return {
        "began": began, "finished": finished, "cancelled": cancelled, "refused": refused, "wrong": wrong,
    }  # fmt: skip


async def _await(watched: Suspensions) -> Any:
    return await watched


ORDERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "sweep_opcodes": sweep_opcodes, "sweep_trials": sweep_trials, "cancel_everywhere": cancel_everywhere,
}  # fmt: skip
