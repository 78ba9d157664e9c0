"""Guarded coroutines: the same promises, nothing that blocks the loop, cancellation at every await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from ipc import CircuitBreaker, CircuitOpenError, OutcomeKind
from ipc.client import Client
from ipc.testing import Unattached
from ipc.vocabulary import BreakerState, Tally
from tests.ipc.calls import Down, fail
from tests.ipc.fake_supervisor import FakeSupervisor, Worker


def half_open(supervisor: FakeSupervisor, left: bool = True) -> tuple[Worker, CircuitBreaker]:
    """A breaker of an attached process whose board says HALF_OPEN, generation 7."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    breaker(lambda: None)()
    worker = supervisor.worker()
    worker.publish(0, BreakerState.HALF_OPEN, 7, left=left)
    return worker, breaker


@pytest.mark.usefixtures("unattached")
def test_async_calls_open_and_refuse() -> None:
    """A coroutine function is guarded while it is awaited: results, failures and refusals as in sync ones."""
    breaker = CircuitBreaker("database", failure_threshold=2)

    @breaker
    async def query(raises: bool = False) -> int:
        """Ask."""
        await asyncio.sleep(0)
        if raises:
            raise Down
        return 1

    async def talk() -> None:
        assert await query() == 1
        for _ in range(2):
            with pytest.raises(Down):
                await query(raises=True)
        for _ in range(2):
            with pytest.raises(CircuitOpenError):
                await query()
        with pytest.raises(CircuitOpenError):
            async with breaker:
                raise AssertionError("admitted")

    assert asyncio.iscoroutinefunction(query)
    assert query.__doc__ == "Ask."
    asyncio.run(talk())


@pytest.mark.usefixtures("unattached")
def test_call_and_callable_objects() -> None:
    """`.call` of an async function and an object with an async __call__ are awaited under guard."""
    breaker = CircuitBreaker("database", failure_threshold=1)

    class Query:
        async def __call__(self) -> int:
            raise Down

    async def fine() -> int:
        return 1

    async def talk() -> None:
        assert await breaker.call(fine) == 1
        with pytest.raises(Down):
            await breaker(Query())()
        assert breaker.state.is_open

    asyncio.run(talk())


@pytest.mark.usefixtures("unattached")
def test_results_are_asked_about() -> None:
    """is_failure_result is asked about what the coroutine returned."""
    breaker = CircuitBreaker("web", failure_threshold=1, is_failure_result=lambda status: bool(status == 500))

    @breaker
    async def fetch(status: int) -> int:
        return status

    async def talk() -> None:
        assert await fetch(200) == 200
        assert await fetch(500) == 500

    asyncio.run(talk())
    assert breaker.state.is_open


def test_blocks_of_tasks_overlap(unattached: Unattached) -> None:
    """Twenty tasks inside one breaker at once: each ends its own entry, also a child task's, also nested."""
    breaker = CircuitBreaker("database", slow_call_s=1.0, slow_call_rate=1.0, minimum_calls=40)
    gate = asyncio.Event()

    async def hold(number: int) -> None:
        async with breaker:
            if number % 2:
                await gate.wait()
            else:
                await asyncio.gather(hold(1), gate.wait())

    async def talk() -> None:
        tasks = [asyncio.create_task(hold(number)) for number in range(20)]
        while len(breaker._entries) < 30:  # noqa: ASYNC110 (nobody could set an event in there)
            await asyncio.sleep(0)
        unattached.clock.move(2.0)
        async with breaker:
            pass
        gate.set()
        await asyncio.gather(*tasks)

    asyncio.run(talk())
    assert not breaker._entries
    assert breaker.state.failure_count == 0
    totals = unattached.client.link.machine._breakers[0].totals
    assert (totals.calls, totals.slow) == (31, 30)


@pytest.mark.usefixtures("unattached")
def test_async_exit_stack() -> None:
    """An AsyncExitStack enters from frames of its own; each block ends once."""
    breaker = CircuitBreaker("database", failure_threshold=2)

    async def talk() -> None:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(breaker)
            await stack.enter_async_context(breaker)
            raise Down

    with pytest.raises(Down):
        asyncio.run(talk())
    assert not breaker._entries
    assert breaker.state.is_open


def test_permit_is_awaited(client: Client, supervisor: FakeSupervisor) -> None:
    """In HALF_OPEN the permit is asked for while the loop goes on, and the outcome carries it."""
    worker, breaker = half_open(supervisor)
    supervisor.permit = {"permit": 77, "generation": 7, "lease_s": 11.0, "retry_after_s": 0.0}

    @breaker
    async def query() -> int:
        return 1

    assert asyncio.run(query()) == 1
    assert supervisor.asks == [{"verb": "permit", "nonce": client.nonce.hex(), "row": 0, "ask": 0}]
    worker.drain()
    assert worker.permits == [77 & 63]
    assert worker.codes[0, 7 + 1] == 1


def test_silent_supervisor_never_blocks_the_loop(client: Client, supervisor: FakeSupervisor) -> None:
    """While a permit is awaited other tasks run; after 50 ms the call is refused, and no permit is kept."""
    worker, breaker = half_open(supervisor)
    supervisor.permit = "silent"
    turns = 0

    @breaker
    async def query() -> None:
        raise AssertionError("admitted")

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def talk() -> float:
        counting = asyncio.create_task(count())
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(CircuitOpenError) as caught:
            await query()
        assert caught.value.state is BreakerState.HALF_OPEN
        counting.cancel()
        return loop.time() - start

    took = asyncio.run(talk())
    assert 0.04 < took < 0.5
    assert turns > 20
    assert worker.tally(0, Tally.PERMIT_TIMEOUT) == 1
    deadline = asyncio.new_event_loop()
    try:
        while not supervisor.undelivered and deadline.time() < took + 1e9:
            deadline.run_until_complete(asyncio.sleep(0))
    finally:
        deadline.close()
    assert supervisor.undelivered == 1


def test_cancelled_while_asking(client: Client, supervisor: FakeSupervisor) -> None:
    """A task cancelled while it waits for a permit leaves no question behind: the next call asks anew."""
    worker, breaker = half_open(supervisor)
    supervisor.permit = "silent"

    @breaker
    async def query() -> int:
        return 1

    async def talk() -> int:
        task = asyncio.create_task(query())
        while not supervisor.asks:  # noqa: ASYNC110 (another thread appends)
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        assert task.cancelled()
        supervisor.permit = {"permit": 5, "generation": 7, "lease_s": 11.0, "retry_after_s": 0.0}
        return await query()

    assert asyncio.run(talk()) == 1
    worker.drain()
    assert worker.permits == [5]


def forms(breaker: CircuitBreaker, body: Callable[[], Coroutine[Any, Any, None]]) -> list[Any]:
    """The same body guarded by the decorator, by `.call` and by the block."""

    async def block() -> None:
        async with breaker:
            await body()

    return [breaker(body), lambda: breaker.call(body), block]


@pytest.mark.parametrize("form", [0, 1, 2])
def test_cancelled_at_every_await(client: Client, supervisor: FakeSupervisor, form: int) -> None:
    """Cancelled at its n-th await, for every n, a trial gives its permit back once and is no failure."""
    worker, breaker = half_open(supervisor)
    supervisor.permit = {"permit": 9, "generation": 7, "lease_s": 11.0, "retry_after_s": 0.0}
    steps = 6

    async def body() -> None:
        for _ in range(steps):
            await asyncio.sleep(0)

    async def talk() -> int:
        cancelled = 0
        for number in range(200):
            task = asyncio.create_task(forms(breaker, body)[form]())
            for _ in range(number):
                await asyncio.sleep(0)
            if not task.cancel():
                break
            cancelled += 1
            with suppress(asyncio.CancelledError, CircuitOpenError):
                await task
        return cancelled

    assert asyncio.run(talk()) >= steps
    worker.drain()
    kinds = {kind for (_, kind), count in worker.counts.items() if count}
    assert kinds <= {OutcomeKind.CANCELLED, OutcomeKind.SUCCESS}
    trials = sum(worker.counts[0, kind] for kind in kinds) - 1  # but for the first, plain call
    assert len(worker.permits) == trials
    assert breaker._shared.asking_until == 0.0


def test_sync_function_on_a_loop_waits_little(client: Client, supervisor: FakeSupervisor) -> None:
    """A guarded function that is not async, called on a loop, waits 5 ms for a permit, not 50."""
    _, breaker = half_open(supervisor)
    supervisor.permit = "silent"
    guarded = breaker(lambda: None)

    async def talk() -> float:
        loop = asyncio.get_running_loop()
        start = loop.time()
        with pytest.raises(CircuitOpenError):
            guarded()
        return loop.time() - start

    assert asyncio.run(talk()) < 0.04


def test_first_async_call_attaches(client: Client, supervisor: FakeSupervisor) -> None:
    """The first guarded coroutine of a process awaits the hello: its outcome is in the supervisor's ring."""
    breaker = CircuitBreaker("database")

    @breaker
    async def query() -> int:
        return 1

    assert asyncio.run(query()) == 1
    assert client.attached
    assert supervisor.worker().total(0, OutcomeKind.SUCCESS) == 1


def test_commands_are_awaited(client: Client, supervisor: FakeSupervisor) -> None:
    """Each command has a form for event loops, which sends the same order."""
    breaker = CircuitBreaker("database")
    assert client.connect()

    async def talk() -> None:
        await breaker.reset_async()
        await breaker.force_open_async(for_s=60, reason="why")
        await breaker.disable_async(for_s=None)
        await breaker.metrics_only_async()
        await breaker.enable_async()

    asyncio.run(talk())
    told = [(one["action"], one["for_s"], one["reason"]) for one in supervisor.commands]
    assert told == [
        ("reset", None, ""),
        ("force-open", 60, "why"),
        ("disable", None, ""),
        ("metrics-only", 3600.0, ""),
        ("enable", None, ""),
    ]
    assert {one["breaker"] for one in supervisor.commands} == {"tests/database"}


def test_an_awaited_command_attaches_first(client: Client, supervisor: FakeSupervisor) -> None:
    """As the plain ones, it goes to the supervisor although nothing was called yet."""
    breaker = CircuitBreaker("database")
    asyncio.run(breaker.force_open_async(for_s=60))
    assert [one["breaker"] for one in supervisor.commands] == ["tests/database"]
    assert client.attached


@pytest.mark.usefixtures("unattached")
def test_commands_of_a_process_on_its_own_are_awaited() -> None:
    """Without a supervisor the async commands work on this process's own breaker."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    fail(breaker, 1)
    asyncio.run(breaker.reset_async())
    assert not breaker.state.is_open
