"""The guard of an awaitable that a plain function returned. Neighbours: `guard`, `admission`."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from ipc.admission import Admission
from ipc.ending import Entry


class Awaited:
    """What a plain function returned that must be awaited: the call ends when that has ended.

    Everything else of it is as before: aiohttp's requests, say, are also used by `async with`.
    """

    __slots__ = ("_breaker", "_entry", "_inner")

    def __init__(self, breaker: Admission, entry: Entry, inner: Any) -> None:
        self._breaker, self._entry, self._inner = breaker, entry, inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._under_guard(self._inner.__await__())

    async def __aenter__(self) -> Any:
        entering = self._inner.__aenter__()
        return await _Steps(self._under_guard(entering.__await__()))

    async def __aexit__(self, *raised: object) -> Any:
        return await self._inner.__aexit__(*raised)

    def _under_guard(self, steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
        breaker, entry = self._breaker, self._entry
        try:
            result = yield from steps
        except BaseException as error:
            breaker._end(entry, error, breaker.clock())
            raise
        breaker._end(entry, None, breaker.clock(), breaker.verdict.bad_result(result))
        return result


async def as_coroutine(awaited: Awaited) -> Any:
    """The same as a coroutine, which tasks are made of."""
    return await awaited


class _Steps:
    """A generator as something that can be awaited."""

    __slots__ = ("_steps",)

    def __init__(self, steps: Generator[Any, Any, Any]) -> None:
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._steps
