"""error_recovery_context: a block that records its error, and attempts that retry it."""

from __future__ import annotations

import asyncio

import pytest

from tests.workers.stage import Failing, Stage
from workers.kinds import ErrorType


def errors(stage: Stage) -> int:
    """How many errors were counted."""
    return sum(one.error_count for one in stage.handler.get_error_metrics().values())


def test_a_with_block_records_and_raises_again() -> None:
    """Its body runs once, whatever `max_retries` says."""
    stage, work = Stage(), Failing(9)
    with pytest.raises(TimeoutError) as caught, stage.handler.error_recovery_context("work", max_retries=3):
        work()
    assert (work.calls, errors(stage), caught.value) == (1, 1, work.raised[0])
    with stage.handler.error_recovery_context("work"):
        pass
    assert (errors(stage), stage.waits) == (1, [])


def test_it_swallows_only_what_may_be_lost_or_was_said_to() -> None:
    """FAIL_GRACEFULLY is the advice for analytics; `suppress=True` is the caller's own word."""
    stage = Stage()
    with stage.handler.error_recovery_context("count", error_type=ErrorType.TOOL_ANALYTICS):
        raise RuntimeError("?")
    with stage.handler.error_recovery_context("work", suppress=True):
        raise ValueError("?")
    assert errors(stage) == 2
    with (
        pytest.raises(ConnectionError),
        stage.handler.error_recovery_context("count", error_type=ErrorType.TOOL_ANALYTICS),
    ):
        raise ConnectionError("refused")
    with pytest.raises(KeyboardInterrupt), stage.handler.error_recovery_context("work", suppress=True):
        raise KeyboardInterrupt
    assert errors(stage) == 3


def test_a_loop_of_attempts_really_retries() -> None:
    """Until one succeeds."""
    stage, work, numbers = Stage(), Failing(2), []
    for attempt in stage.handler.error_recovery_context("work", max_retries=3):
        with attempt:
            numbers.append(attempt.number)
            work()
    assert (numbers, work.calls, stage.waits, errors(stage)) == ([1, 2, 3], 3, [0.1, 0.2], 2)


def test_a_loop_ends_with_its_last_error_unchanged() -> None:
    """After `max_retries` + 1 attempts, or at once where a retry does not help."""
    stage, work = Stage(), Failing(9)
    with pytest.raises(TimeoutError) as caught:
        for attempt in stage.handler.error_recovery_context("work", max_retries=2):
            with attempt:
                work()
    assert (work.calls, caught.value) == (3, work.raised[-1])
    wrong = Failing(9, ValueError)
    for attempt in stage.handler.error_recovery_context("work", suppress=True):
        with attempt:
            wrong()
    assert wrong.calls == 1
    assert errors(stage) == 4


def test_a_context_may_be_used_again() -> None:
    """Each loop has its own attempts; an attempt that is not entered ends its loop."""
    stage = Stage()
    context = stage.handler.error_recovery_context("work", max_retries=1)
    for _ in range(2):
        work = Failing(1)
        for attempt in context:
            with attempt:
                work()
        assert work.calls == 2
    assert len(list(context)) == 1
    with pytest.raises(ValueError, match="max_retries"):
        stage.handler.error_recovery_context("work", max_retries=-1)


def test_on_an_event_loop() -> None:
    """`async with` and `async for` are the same, awaited."""
    stage, work, once = Stage(), Failing(2), Failing(1)

    async def main() -> None:
        async for attempt in stage.handler.error_recovery_context("work"):
            with attempt:
                await work.later()
        async with stage.handler.error_recovery_context("work", suppress=True):
            await once.later()

    asyncio.run(main())
    assert (work.calls, once.calls, stage.waits, errors(stage)) == (3, 1, [0.1, 0.2], 3)
