"""When to try again: the schedule of retries, as steps that somebody else takes and waits between.

Waiting times are tenacity's exponential back-off with full jitter: a random share of base x 2^n, so that
callers who failed together do not come back together. Neighbours: `handler` (calls functions),
`recovery` (runs `with` bodies). Calls nothing and sleeps nowhere; clock and chance are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from tenacity import RetryCallState, Retrying, stop_after_attempt, wait_exponential

from workers.classify import Classification

RETRIES_MAX: Final = 100
DEFAULT_RETRIES: Final = 3


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """How long to wait between attempts, and how long in all."""

    base_s: float = 0.1
    """The longest wait before the second attempt; each further one may be twice as long (s)."""
    wait_max_s: float = 5.0
    """Beyond this a wait does not grow (s)."""
    deadline_s: float = 30.0
    """No attempt begins later than this after the first one began (s)."""

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        for key in ("base_s", "wait_max_s", "deadline_s"):
            if not 0.0 <= getattr(self, key) <= 86_400.0:
                raise ValueError(f"{key} must be 0 to 86,400 s, got {getattr(self, key)!r}")


class Schedule:
    """The attempts of one call. Made when the first one has failed, or before it."""

    __slots__ = ("_chance", "_clock", "_deadline", "_retrying", "_state")

    def __init__(
        self,
        max_retries: int,
        settings: RetrySettings,
        clock: Callable[[], float],
        chance: Callable[[], float],
        began: float,
    ) -> None:
        check_retries(max_retries)
        self._clock, self._chance = clock, chance
        self._deadline = began + settings.deadline_s
        self._retrying = Retrying(
            stop=stop_after_attempt(max_retries + 1),
            wait=wait_exponential(multiplier=settings.base_s, max=settings.wait_max_s),
        )
        self._state = RetryCallState(self._retrying, None, (), {})

    @property
    def attempt(self) -> int:
        """Number of the attempt that is made now or failed last, from 1."""
        return self._state.attempt_number

    def failed(self, found: Classification) -> float | None:
        """The attempt failed so: seconds to wait before the next one; None = there is none."""
        if not found.retriable or self._retrying.stop(self._state):
            return None
        bound = cast("Callable[[Any], float]", self._retrying.wait)(self._state)
        wait_s = bound * self._chance()
        if self._clock() + wait_s > self._deadline:
            return None
        self._state.attempt_number += 1
        return wait_s


def check_retries(max_retries: int) -> None:
    """Raises ValueError for what is no number of retries."""
    whole = isinstance(max_retries, int) and not isinstance(max_retries, bool)
    if not whole or not 0 <= max_retries <= RETRIES_MAX:
        raise ValueError(f"max_retries must be a whole number from 0 to {RETRIES_MAX}, got {max_retries!r}")
