"""Work that is done again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from supervisor.timers import Timer


class Handle:
    """One call that is to come."""

    def __init__(self, at: float, call: Callable[[], object]) -> None:
        self.at = at
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """It does not come."""
        self.call = None


class Loop:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waiting: list[Handle] = []

    def call_later(self, seconds: float, call: Callable[[], object]) -> Any:
        """As asyncio has it."""
        self.waiting.append(Handle(self.now + seconds, call))
        return self.waiting[-1]

    def pass_until(self, end: float) -> None:
        """Let time pass."""
        while due := [one for one in self.waiting if one.at <= end]:
            first = min(due, key=lambda one: one.at)
            self.waiting.remove(first)
            self.now = first.at
            if first.call is not None:
                first.call()
        self.now = end


def test_it_does_its_work_as_often_as_it_is_told_at_the_moment() -> None:
    """A new pace begins at once, however long the old one was."""
    loop = Loop()
    done: list[float] = []
    timer = Timer(cast(asyncio.AbstractEventLoop, loop), 2.0, lambda: done.append(loop.now))
    loop.pass_until(5.0)
    assert done == [2.0, 4.0]
    timer.every(100.0)
    loop.pass_until(50.0)
    timer.every(100.0)
    loop.pass_until(105.0)
    assert done[2:] == [105.0]
    timer.every(1.0)
    loop.pass_until(107.5)
    assert done[3:] == [106.0, 107.0]
