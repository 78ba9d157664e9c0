"""Open `with` blocks: each ends as itself, whoever entered it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from ipc import CircuitBreaker
from tests.ipc.calls import Down

pytestmark = pytest.mark.usefixtures("unattached")


class Noted(CircuitBreaker):
    """One that notes its blocks: the frame that calls ours is gone at once."""

    def __enter__(self) -> Any:
        """Note and admit."""
        list(range(3))
        return super().__enter__()

    def __exit__(self, *how: object) -> None:
        """Note and end."""
        super().__exit__(*how)  # type: ignore[arg-type] # what was given is passed on


def test_blocks_of_a_subclass_in_overlapping_tasks() -> None:
    """Each task ends its own block, though the frames that entered them are gone."""
    breaker = Noted("notes", failure_threshold=1)

    async def main() -> None:
        gate = asyncio.Event()

        async def first() -> None:
            with breaker:
                await gate.wait()

        async def second() -> None:
            with breaker:
                await asyncio.sleep(0)
                gate.set()
                await asyncio.sleep(0)
                raise Down

        await asyncio.gather(first(), second(), return_exceptions=True)

    asyncio.run(main())
    assert breaker.state.is_open
    assert not breaker._entries


def test_many_open_blocks_of_one_stack() -> None:
    """Each of 700 blocks of an ExitStack ends."""
    breaker = CircuitBreaker("many", failure_threshold=None, failure_rate=None)
    with contextlib.ExitStack() as stack:
        for _ in range(700):
            stack.enter_context(breaker)
    assert not breaker._entries
