"""Programs as users write them, each forking in its own way around one guarded function.

`python -m tests.live.programs NAME` runs one. Each prints a JSON line {"calls": n, "pids": [...]}: the
guarded calls that it made in all its processes, and who made them, while they are all alive; it ends
when its standard input does. Neighbours: `test_servers`.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import ipc

CALLS: Final = 300
CHILDREN: Final = 3
breaker: Final = ipc.CircuitBreaker("database", failure_threshold=None, failure_rate=None)


@breaker
def query(number: int = 0) -> int:
    """The dependency."""
    return number


def tell(calls: int, pids: list[int]) -> None:
    """Say what was done, and stay until nobody asks any more."""
    print(json.dumps({"calls": calls, "pids": sorted(pids)}), flush=True)
    sys.stdin.read()


def work(ready: Any, leave: Any) -> None:
    """A child's life."""
    for number in range(CALLS):
        query(number)
    ready.send(os.getpid())
    leave.wait(60)


def with_multiprocessing(method: str) -> None:
    """The parent calls, then children that are started by `method`, then the parent again."""
    query()
    context: Any = multiprocessing.get_context(method)
    leave = context.Event()
    mine, theirs = context.Pipe(duplex=False)
    children = [context.Process(target=work, args=(theirs, leave)) for _ in range(CHILDREN)]
    for child in children:
        child.start()
    pids = [mine.recv() for _ in children]
    query()
    tell(2 + CHILDREN * CALLS, [os.getpid(), *pids])
    leave.set()
    for child in children:
        child.join()


def pooled(number: int) -> int:
    """One task of the pool."""
    query(number)
    time.sleep(0.001)  # so that every process of the pool gets some
    return os.getpid()


def with_a_pool() -> None:
    """A ProcessPoolExecutor made after a guarded call."""
    query()
    with ProcessPoolExecutor(CHILDREN) as pool:
        pids = set(pool.map(pooled, range(CALLS)))
        tell(1 + CALLS, [os.getpid(), *pids])


def with_fork_in_a_call() -> None:
    """os.fork inside a guarded call: the parent reports that call, the child only what it starts itself."""
    query()
    leave, hold = os.pipe()
    mine, theirs = os.pipe()

    def fork_and_call() -> int:
        pid = os.fork()
        if pid == 0:
            query()
        return pid

    pid = breaker(fork_and_call)()
    for _ in range(CALLS):
        query()
    if pid == 0:
        os.close(hold)
        os.write(theirs, b"x")
        os.read(leave, 1)
        os._exit(0)
    os.read(mine, 1)
    tell(1 + 1 + 1 + 2 * CALLS, [os.getpid(), pid])
    os.close(hold)
    os.waitpid(pid, 0)


def with_fork_in_c() -> None:
    """A fork that Python is not told of, as uWSGI does it; also one inside a guarded call."""
    libc = ctypes.PyDLL(None)
    query()
    leave, hold = os.pipe()
    mine, theirs = os.pipe()
    time.sleep(0.05)  # the kernel tells in steps of 10 ms when a process began
    pids = [libc.fork()]
    if pids[0]:
        with breaker:
            time.sleep(0.05)
            pids.append(libc.fork())
    for _ in range(CALLS):
        query()
    if not all(pids):
        os.close(hold)
        os.write(theirs, b"x")
        os.read(leave, 1)
        os._exit(0)
    for _ in pids:
        os.read(mine, 1)
    tell(1 + 1 + 3 * CALLS, [os.getpid(), *pids])
    os.close(hold)
    for pid in pids:
        os.waitpid(pid, 0)


def with_threads_at_the_first_call() -> None:
    """Eight threads whose first call is the process's first: one hello, and nobody's outcome stays behind."""
    import threading

    gate = threading.Barrier(8)

    def run() -> None:
        gate.wait()
        for number in range(CALLS):
            query(number)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tell(8 * CALLS, [os.getpid()])


def with_asyncio() -> None:
    """Tasks whose first calls are the process's first."""
    import asyncio

    @breaker
    async def ask() -> None:
        await asyncio.sleep(0.001)

    async def main() -> None:
        await asyncio.gather(*(ask() for _ in range(CALLS)))

    asyncio.run(main())
    tell(CALLS, [os.getpid()])


PROGRAMS: Final[dict[str, Callable[[], None]]] = {
    "fork": lambda: with_multiprocessing("fork"),
    "spawn": lambda: with_multiprocessing("spawn"),
    "forkserver": lambda: with_multiprocessing("forkserver"),
    "pool": with_a_pool,
    "fork-in-a-call": with_fork_in_a_call,
    "fork-in-c": with_fork_in_c,
    "threads": with_threads_at_the_first_call,
    "asyncio": with_asyncio,
}

if __name__ == "__main__":
    PROGRAMS[sys.argv[1]]()
