"""Calls that end because their caller does: they say nothing about the dependency."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Any

import pytest

from ipc import CircuitBreaker
from tests.ipc.calls import Down

pytestmark = pytest.mark.usefixtures("unattached")


class GreenletExit(BaseException):
    """As gevent raises it in greenlets that are killed."""


class Killed(GreenletExit):
    """A project's own kind of it."""


def impatient() -> CircuitBreaker:
    """One that takes any cancellation for a failure, at once."""
    return CircuitBreaker("llm", failure_threshold=1, cancelled_is_failure_s=0.0)


def held(breaker: CircuitBreaker) -> Callable[[], Any]:
    """A guarded call that does not end by itself."""

    @breaker
    async def stream() -> None:
        await asyncio.Event().wait()

    return stream


@pytest.mark.parametrize("kind", [GreenletExit, Killed, KeyboardInterrupt, GeneratorExit])
def test_program_or_greenlet_ends(kind: type[BaseException]) -> None:
    """Whoever is killed while it calls has not been failed by the dependency."""
    breaker = impatient()
    with pytest.raises(kind), breaker:
        raise kind
    assert not breaker.state.is_open


def test_event_loop_ends() -> None:
    """The end of `asyncio.run` cancels what is left."""
    breaker = impatient()

    async def main() -> None:
        main.tasks = [asyncio.create_task(held(breaker)()) for _ in range(3)]  # type: ignore[attr-defined] # kept
        await asyncio.sleep(0)

    asyncio.run(main())
    assert not breaker.state.is_open


@pytest.mark.parametrize("in_task", [True, False])
def test_sibling_fails(in_task: bool) -> None:
    """A task group that ends because of another task's mistake."""
    breaker = impatient()

    async def mistaken() -> None:
        await asyncio.sleep(0)
        raise KeyError("a mistake of the program")

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(mistaken())
            if in_task:
                group.create_task(held(breaker)())
            else:
                await held(breaker)()

    with pytest.raises(ExceptionGroup):
        asyncio.run(main())
    assert not breaker.state.is_open


def test_server_says_that_it_shuts_down() -> None:
    """A cancellation may carry its reason."""
    breaker = impatient()

    async def main() -> None:
        task = asyncio.create_task(held(breaker)())
        await asyncio.sleep(0)
        task.cancel("graceful shutdown exceeded")
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not breaker.state.is_open


@pytest.mark.parametrize("grouped", [True, False])
def test_deadline_is_a_failure(grouped: bool) -> None:
    """A deadline around a call that hangs counts, in a task group without a mistake too."""
    breaker = impatient()

    async def grouped_call() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(held(breaker)())

    async def main() -> None:
        async with asyncio.timeout(0.01):
            await (grouped_call() if grouped else held(breaker)())

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert breaker.state.is_open


def test_cancelled_future() -> None:
    """A future of a thread pool that was cancelled is a cancellation, unless the class is named."""
    breaker = CircuitBreaker("pool", failure_threshold=1)
    with pytest.raises(concurrent.futures.CancelledError), breaker:
        raise concurrent.futures.CancelledError
    assert not breaker.state.is_open
    named = CircuitBreaker(
        "named", failure_threshold=1, expected_exception=(Down, concurrent.futures.CancelledError)
    )
    with pytest.raises(concurrent.futures.CancelledError), named:
        raise concurrent.futures.CancelledError
    assert named.state.is_open
