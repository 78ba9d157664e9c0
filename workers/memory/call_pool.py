"""Threads that run a manager's calls for event loops: one pool for calls, one thread for the disk.

The pool belongs to no loop, so `asyncio.run` may be called again and again. It does not use the loop's
default executor, which the application may have filled. After a fork the child begins with new threads.
Dropping the last reference to a pool ends its threads. Neighbour: `async_manager`. Knows no memory.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import ParamSpec, TypeVar

from workers.memory import forking

P = ParamSpec("P")
T = TypeVar("T")


class CallPool:
    """`threads_max` threads, which start when they are needed."""

    def __init__(self, threads_max: int, name: str) -> None:
        self._threads_max, self._name = threads_max, name
        self._begin()
        forking.remember(self)

    def _begin(self) -> None:
        self._executor = ThreadPoolExecutor(self._threads_max, thread_name_prefix=self._name)
        self._pid = os.getpid()

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start the work in a thread, in the caller's context."""
        if self._pid != os.getpid():  # a fork in C told nobody
            self._begin()
        context = copy_context()
        while True:
            executor = self._executor
            try:
                return executor.submit(lambda: context.run(work, *args, **kwargs))
            except RuntimeError:
                if executor is self._executor:
                    raise  # the interpreter ends; else the pool was closed meanwhile

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The work's result. If the caller is cancelled, work that has begun goes on in its thread."""
        return await asyncio.wrap_future(self.submit(work, *args, **kwargs))

    def close(self) -> None:
        """Wait until all work is done, then end the threads. The pool may be used again."""
        executor = self._executor
        self._begin()
        executor.shutdown()

    def before_fork(self) -> None:
        """Threads that are at work need not be waited for: what they hold waits by itself."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: the parent's threads are not here."""
        self._begin()
