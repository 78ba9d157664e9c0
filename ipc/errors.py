"""What can go wrong on the asking side, split by whose fault it is and whether a retry helps.

    BreakerdError
    ├── CircuitOpenError        the dependency's fault: retry after `retry_after_s`
    ├── ControlError            the talk with the supervisor failed
    │   ├── SupervisorUnavailable   nobody answers: away, hung or refusing; retry later
    │   ├── ControlDenied           this user may not command; a retry does not help
    │   ├── ControlRefused          the supervisor understood and said no; the text says why
    │   └── ProtocolError           one side sent what the other cannot read
    ├── SegmentError            a shared segment is not what it must be
    ├── SettingsError           the caller's fault: a value is out of its bounds
    └── UnguardableError        the caller's fault: this cannot be guarded by a decorator

Neighbours: everything in `ipc` raises from here; `supervisor` and `workers` have trees of their own.
"""

from __future__ import annotations

import enum


class BreakerdError(Exception):
    """The root of everything that breakerd raises."""


class CircuitOpenError(BreakerdError):
    """The call was refused: nothing was tried. Made from (breaker, state, retry_after_s), and pickles so.

    It has no `__init__` of its own, because a refusal must be cheap: the facts are its `args`.
    """

    @property
    def breaker(self) -> str:
        """The breaker's name as the process knows it; "" for one without a name."""
        name: str = self.args[0]
        return name

    @property
    def state(self) -> enum.IntEnum:
        """The BreakerState that refused: OPEN, HALF_OPEN (no trial free), FORCED_OPEN, CLOSED (ramp)."""
        state: enum.IntEnum = self.args[1]
        return state

    @property
    def retry_after_s(self) -> float:
        """Seconds, from the refusal on, until calls are let in again; 0.0 = may be tried at once.

        Where a probe decides, it is the latest that this can be; in a ramp, when all are.
        """
        seconds: float = self.args[2]
        return seconds

    def __str__(self) -> str:
        """Contains "Circuit breaker is OPEN", whatever the reason, for those who look at texts."""
        name = f" {self.breaker}" if self.breaker else ""
        return f"Circuit breaker is OPEN:{name} ({self.state.name}), retry in {self.retry_after_s:.1f} s"


class ControlError(BreakerdError):
    """The talk with the supervisor failed."""


class SupervisorUnavailable(ControlError, ConnectionError):
    """No socket, connection refused, or no answer in time: `reason` says which.

    `reason` is one of "absent", "refused", "denied", "timeout", "full", "closed".
    """

    def __init__(self, text: str, reason: str = "absent") -> None:
        super().__init__(text)
        self.reason = reason


class ControlDenied(ControlError, PermissionError):
    """The supervisor does not take commands from this user; the text names `[control] commanders`."""


class ControlRefused(ControlError):
    """The supervisor understood the request and refused it; `code` is a fixed short word."""

    def __init__(self, text: str, code: str = "refused") -> None:
        super().__init__(text)
        self.code = code


class ProtocolError(ControlError):
    """A frame that cannot be read, or one of another protocol version."""


class SegmentError(BreakerdError):
    """A shared segment has the wrong size, seals, magic, layout version or boot id."""


class SettingsError(BreakerdError, ValueError):
    """A setting is out of its bounds; `key` names it."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(f"{key}: {text}")
        self.key = key
        self.text = text

    def __reduce__(self) -> tuple[type[SettingsError], tuple[str, str]]:
        """Pickle by the two facts, not by the joined text."""
        return SettingsError, (self.key, self.text)


class UnguardableError(BreakerdError, TypeError):
    """A generator function was decorated: its body runs after the call has returned."""
