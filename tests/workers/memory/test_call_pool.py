"""The threads of the async manager: any loop, the caller's context, a forked child."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextvars import ContextVar

import pytest

from tests.ipc.waiting import eventually
from workers.memory.call_pool import CallPool

WORD: ContextVar[str] = ContextVar("word", default="none")


def threads_of(name: str) -> list[threading.Thread]:
    """Those that a pool of this name has started."""
    return [one for one in threading.enumerate() if one.name.startswith(name)]


def test_loop_after_loop_uses_the_same_threads() -> None:
    """Twenty event loops, at most two threads."""
    pool = CallPool(2, "loop-after-loop")

    async def ask() -> int:
        return sum(await asyncio.gather(*(pool.run(pow, 2, number) for number in range(8))))

    assert [asyncio.run(ask()) for _ in range(20)] == [255] * 20
    assert len(threads_of("loop-after-loop")) <= 2
    pool.close()
    assert threads_of("loop-after-loop") == []


def test_the_work_sees_the_callers_context() -> None:
    """A context variable of the task is that of the thread."""
    pool = CallPool(1, "context")

    async def ask(word: str) -> str:
        WORD.set(word)
        return await pool.run(WORD.get)

    async def both() -> list[str]:
        return list(await asyncio.gather(ask("one"), ask("two")))

    assert asyncio.run(both()) == ["one", "two"]
    pool.close()


def test_work_that_has_begun_outlives_its_caller() -> None:
    """A cancelled caller does not interrupt a thread, and `close` waits for it."""
    pool, began, gate, done = CallPool(1, "outlives"), threading.Event(), threading.Event(), []

    def work() -> None:
        began.set()
        gate.wait(10.0)
        done.append(1)

    async def ask() -> None:
        task = asyncio.ensure_future(pool.run(work))
        await asyncio.to_thread(began.wait, 10.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    assert done == []
    gate.set()
    pool.close()
    assert done == [1]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    """The parent's threads are not in the child."""
    pool = CallPool(2, "forked")
    assert pool.submit(pow, 2, 3).result(10.0) == 8
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if pool.submit(pow, 2, 4).result(10.0) == 16 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pool.submit(pow, 2, 5).result(10.0) == 32
    pool.close()


def test_a_dropped_pool_ends_its_threads() -> None:
    """Nobody has to close it."""
    pool = CallPool(1, "dropped")
    pool.submit(int).result(10.0)
    assert len(threads_of("dropped")) == 1
    del pool
    gc.collect()
    eventually(lambda: not threads_of("dropped"))
