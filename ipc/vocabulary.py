"""The words that workers, supervisor and operator share: fixed integers and frozen values.

Every number here leaves the process (in a segment, a checkpoint or an answer), so it is fixed by
hand, once, and pinned by `tests/ipc/test_vocabulary.py`. Neighbours: `layout` turns these words into
bits, `breaker` decides with them. This file knows no clock, no bytes and no breaker.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, fields
from typing import Any, Final

from ipc.errors import SettingsError

PROTOCOL_VERSION: Final = 1
NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
FOREVER: Final = float("inf")
PROBER_VARIABLE: Final = "BREAKERD_PROBER"
"""In the environment of a program that a probe has started: `pid:tick` of the prober, tick = when the kernel
says that it began."""
MANUAL_DEFAULT_S: Final = 3600.0
"""How long a manual state lasts when the operator does not say."""
CLASSES_PER_BREAKER: Final = 32
"""How many exception classes a breaker tells apart; the rest are counted as `OTHER_CLASS`."""
COUNTERS_PER_PROCESS: Final = 256
OTHER_CLASS: Final = "other"


class BreakerState(enum.IntEnum):
    """What a breaker admits. 0 is not a state: it is a board row that was never published."""

    CLOSED = 1
    OPEN = 2
    HALF_OPEN = 3
    FORCED_OPEN = 4
    DISABLED = 5
    METRICS_ONLY = 6


MANUAL_STATES: Final = frozenset({BreakerState.FORCED_OPEN, BreakerState.DISABLED, BreakerState.METRICS_ONLY})


class OutcomeKind(enum.IntEnum):
    """How a guarded call ended. The numbers are the low four bits of a slow word's kind code."""

    SUCCESS = 2
    FAILURE = 3
    SLOW_SUCCESS = 4
    SLOW_FAILURE = 5
    IGNORED = 6
    """Neither success nor failure: proves nothing about the dependency."""
    CANCELLED = 7
    """Cancelled, and not by an end of the caller: neither, unless it took `cancelled_is_failure_s`."""
    CANCELLED_LATE = 8
    """Cancelled after `cancelled_is_failure_s`: a failure."""
    COUNT = 11
    """Not a call: one more on a counter row."""


FAILURES: Final = frozenset({OutcomeKind.FAILURE, OutcomeKind.SLOW_FAILURE, OutcomeKind.CANCELLED_LATE})
SUCCESSES: Final = frozenset({OutcomeKind.SUCCESS, OutcomeKind.SLOW_SUCCESS})
SLOW: Final = frozenset({OutcomeKind.SLOW_SUCCESS, OutcomeKind.SLOW_FAILURE})


class Tally(enum.IntEnum):
    """Places in a row's 16 cumulative words that are not overflow of an `OutcomeKind`."""

    REJECTED = 12
    """Refused at once: the row was OPEN, FORCED_OPEN or out of permits."""
    PERMIT_TIMEOUT = 13
    """Refused because the supervisor did not answer for a permit in time."""
    RAMPED = 14
    """Refused by the ramp after a closing."""


class Verb(enum.StrEnum):
    """What an operator may tell a breaker to do."""

    FORCE_OPEN = "force-open"
    DISABLE = "disable"
    METRICS_ONLY = "metrics-only"
    RESET = "reset"
    ENABLE = "enable"


def _between(key: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(key, f"must be a number, got {value!r}")
    if not low <= value <= high:
        raise SettingsError(key, f"must be {low:g} to {high:g}, got {value!r}")


def _whole(key: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingsError(key, f"must be a whole number, got {value!r}")
    if value < low:
        raise SettingsError(key, f"must be >= {low}, got {value}")
    if value > high:
        raise SettingsError(key, f"must be <= {high}, got {value}")


def _share(key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
        raise SettingsError(key, f"must be above 0 and at most 1, got {value!r}")


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """Outcomes of the last `seconds` (1 to 3,600 s)."""

    seconds: float = 30.0

    def __post_init__(self) -> None:
        """Refuse what the window cannot hold."""
        _between("window.seconds", self.seconds, 1.0, 3600.0)


@dataclass(frozen=True, slots=True)
class CountWindow:
    """The last `calls` outcomes (1 to 100,000)."""

    calls: int = 100

    def __post_init__(self) -> None:
        """Refuse what the window cannot hold."""
        _whole("window.calls", self.calls, 1, 100_000)


Window = TimeWindow | CountWindow


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """Everything that decides about a breaker, and nothing that cannot leave the process.

    Durations are seconds, rates are shares in (0, 1]. None turns a rule off. Raises SettingsError.
    """

    failure_threshold: int | None = 5
    """Consecutive failures, host-wide, that open the breaker (1 to 1,000,000; None = rule off)."""
    failure_rate: float | None = 0.5
    """Share of failures in the window that opens the breaker (above 0, up to 1; None = rule off)."""
    window: Window = TimeWindow(30.0)
    """The outcomes that the rates look at."""
    minimum_calls: int = 20
    """Outcomes that the window must hold before a rate decides (1 to 1,000,000)."""
    slow_call_s: float | None = None
    """A call that takes at least this many seconds is slow (0.001 to 3,600; None = none is)."""
    slow_call_rate: float | None = None
    """Share of slow calls in the window that opens the breaker (above 0, up to 1; None = rule off)."""
    recovery_timeout: float = 30.0
    """Seconds that the breaker stays open the first time (0.01 to 86,400)."""
    recovery_growth: float = 2.0
    """Factor by which the open time grows with each failed recovery (1 to 10)."""
    recovery_timeout_max: float = 300.0
    """Seconds beyond which the open time does not grow (recovery_timeout to 604,800)."""
    recovery_jitter: float = 0.1
    """Share of the open time that is added at random (0 to 1)."""
    permitted_trials: int = 3
    """Trial calls in flight on the whole host while half-open (1 to 32)."""
    successes_to_close: int = 3
    """Successful trials that close the breaker (1 to 1,000)."""
    trial_timeout: float = 10.0
    """Seconds that a trial may take; its permit expires one second later (0.01 to 3,600)."""
    cancelled_is_failure_s: float | None = None
    """A call cancelled after this many seconds is a failure (0 to 3,600; None = never)."""
    ramp_s: float = 0.0
    """Seconds after recovery in which more and more calls are let in, 10 to 100 % (0 to 3,600; 0 = off)."""

    def __post_init__(self) -> None:
        """Check every bound; the first one broken is named."""
        if self.failure_threshold is not None:
            _whole("failure_threshold", self.failure_threshold, 1, 1_000_000)
        _share("failure_rate", self.failure_rate)
        if not isinstance(self.window, TimeWindow | CountWindow):
            raise SettingsError("window", f"must be a TimeWindow or CountWindow, got {self.window!r}")
        _whole("minimum_calls", self.minimum_calls, 1, 1_000_000)
        if isinstance(self.window, CountWindow) and self.minimum_calls > self.window.calls:
            # A count window can never hold more than its size: the smaller number is what was meant.
            object.__setattr__(self, "minimum_calls", self.window.calls)
        if self.slow_call_s is not None:
            _between("slow_call_s", self.slow_call_s, 0.001, 3600.0)
        _share("slow_call_rate", self.slow_call_rate)
        if self.slow_call_rate is not None and self.slow_call_s is None:
            raise SettingsError("slow_call_rate", "needs slow_call_s, which says what slow is")
        _between("recovery_timeout", self.recovery_timeout, 0.01, 86_400.0)
        _between("recovery_growth", self.recovery_growth, 1.0, 10.0)
        _between("recovery_timeout_max", self.recovery_timeout_max, 0.01, 604_800.0)
        if self.recovery_timeout_max < self.recovery_timeout:
            object.__setattr__(self, "recovery_timeout_max", float(self.recovery_timeout))
        _between("recovery_jitter", self.recovery_jitter, 0.0, 1.0)
        _whole("permitted_trials", self.permitted_trials, 1, 32)
        _whole("successes_to_close", self.successes_to_close, 1, 1000)
        _between("trial_timeout", self.trial_timeout, 0.01, 3600.0)
        if self.cancelled_is_failure_s is not None:
            _between("cancelled_is_failure_s", self.cancelled_is_failure_s, 0.0, 3600.0)
        _between("ramp_s", self.ramp_s, 0.0, 3600.0)

    def to_json(self) -> dict[str, Any]:
        """The settings as JSON values; the window is {"seconds": s} or {"calls": n}."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        window = self.window
        values["window"] = (
            {"seconds": window.seconds} if isinstance(window, TimeWindow) else {"calls": window.calls}
        )
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> BreakerSettings:
        """Settings from (possibly hostile) JSON values; what is left out keeps its default."""
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise SettingsError(str(key), "unknown key")
        given = dict(values)
        if "window" in given:
            given["window"] = window_from_json(given["window"])
        return cls(**given)


def window_from_json(value: Any) -> Window:
    """A window from {"seconds": s} or {"calls": n}."""
    if isinstance(value, dict) and len(value) == 1:
        if "seconds" in value:
            return TimeWindow(value["seconds"])
        if "calls" in value:
            return CountWindow(value["calls"])
    raise SettingsError("window", f"must be {{seconds = s}} or {{calls = n}}, got {value!r}")


def check_name(name: str, what: str = "name") -> str:
    """Return `name` if it may name a breaker, worker or namespace; else raise SettingsError."""
    if not isinstance(name, str) or not NAME_PATTERN.fullmatch(name):
        raise SettingsError(what, f"must be 1 to 128 of [A-Za-z0-9_.:-], got {name!r}")
    return name
