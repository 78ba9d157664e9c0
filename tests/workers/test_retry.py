"""When to try again."""

from __future__ import annotations

import pytest

from workers.classify import classify
from workers.retry import RetrySettings, Schedule

PASSES, STAYS = classify(TimeoutError()), classify(ValueError())


def waits(schedule: Schedule, count: int) -> list[float | None]:
    """The waits after so many failures that pass."""
    return [schedule.failed(PASSES) for _ in range(count)]


def test_waits_grow_to_their_limit_by_a_random_share() -> None:
    """Exponential back-off with full jitter: a share of base x 2^n, at most the limit."""
    settings = RetrySettings(base_s=1.0, wait_max_s=5.0, deadline_s=100.0)
    most = Schedule(5, settings, lambda: 0.0, lambda: 1.0, 0.0)
    assert waits(most, 6) == [1.0, 2.0, 4.0, 5.0, 5.0, None]
    half = Schedule(5, settings, lambda: 0.0, lambda: 0.5, 0.0)
    assert waits(half, 2) == [0.5, 1.0]
    assert half.attempt == 3


def test_what_does_not_pass_is_not_tried_again() -> None:
    """Whatever is left of the retries."""
    assert Schedule(5, RetrySettings(), lambda: 0.0, lambda: 0.0, 0.0).failed(STAYS) is None


def test_no_attempt_begins_after_the_deadline() -> None:
    """Counted from the beginning of the first attempt, the wait included."""
    settings = RetrySettings(base_s=1.0, deadline_s=10.0)
    assert Schedule(5, settings, lambda: 9.5, lambda: 0.4, 0.0).failed(PASSES) == 0.4
    assert Schedule(5, settings, lambda: 9.5, lambda: 0.6, 0.0).failed(PASSES) is None


@pytest.mark.parametrize("retries", [-1, 101, True, 1.5, "3"])
def test_a_wrong_number_of_retries_is_refused(retries: object) -> None:
    """With its bounds."""
    with pytest.raises(ValueError, match="from 0 to 100"):
        Schedule(retries, RetrySettings(), lambda: 0.0, lambda: 0.0, 0.0)  # type: ignore[arg-type]  # that is it


def test_settings_are_checked() -> None:
    """Each named with its unit."""
    with pytest.raises(ValueError, match=r"base_s must be 0 to 86,400 s, got -1"):
        RetrySettings(base_s=-1)
