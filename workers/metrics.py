"""What one handler has counted since its last reset, by error type and operation.

Bounded: 8 types x 256 operations, the rest as `other`. Each type has its own baseline, which a reset moves.
Neighbours: `handler` (counts and asks). A forked child begins with nothing: what its parent counted is its
parent's. Reads no clock: whoever counts says when.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from workers.kinds import ErrorType

OPERATIONS_MAX: Final = 256
"""Operations of one error type that are told apart; the rest are counted as OTHER."""
OPERATION_LENGTH_MAX: Final = 128
OTHER: Final = "other"
RATE_WINDOW_S: Final = 60


@dataclass(frozen=True, slots=True)
class ErrorMetric:
    """What is known of one error type. Times and counts are this handler's since its last reset."""

    error_count: int = 0
    """Exceptions, each counted once however many layers saw it."""
    rejected_count: int = 0
    """Calls that an open breaker refused: no errors, nothing was tried."""
    last_error_at: datetime | None = None
    """When the last one was seen (UTC)."""
    last_error: str = ""
    """What it was: class and message, redacted."""
    rate_per_minute: float = 0.0
    """Errors of the last minute."""
    operations: dict[str, int] = field(default_factory=dict)
    """Errors by operation."""
    host_count: int | None = None
    """Errors of this type in every process of this namespace that the supervisor ever counted; None = no
    supervisor. No reset moves it."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "error_count": self.error_count,
            "rejected_count": self.rejected_count,
            "last_error_at": None if self.last_error_at is None else self.last_error_at.isoformat(),
            "last_error": self.last_error,
            "rate_per_minute": self.rate_per_minute,
            "operations": dict(self.operations),
            "host_count": self.host_count,
        }


@dataclass(slots=True)
class _Count:
    errors: int = 0
    rejected: int = 0
    last_at: float | None = None
    last: str = ""
    operations: dict[str, int] = field(default_factory=dict)
    recent: deque[list[int]] = field(default_factory=deque)
    """[second, errors] of the last minute, oldest first."""


class Counts:
    """The counts of one handler. Any thread may count and ask."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """This is a child: it has counted nothing, and nobody holds its lock."""
        self._lock = threading.Lock()
        self._counts = {kind: _Count() for kind in ErrorType}

    def error(self, kind: ErrorType, operation: str, what: str, now: float, wall: float) -> str:
        """Count one error; the operation as it is counted (`now` monotonic s, `wall` s since 1970)."""
        with self._lock:
            counted = self._counts[kind]
            operation = named(operation)
            if operation not in counted.operations and len(counted.operations) >= OPERATIONS_MAX:
                operation = OTHER
            counted.operations[operation] = counted.operations.get(operation, 0) + 1
            counted.errors += 1
            counted.last_at, counted.last = wall, what
            if counted.recent and counted.recent[-1][0] == int(now):
                counted.recent[-1][1] += 1
            else:
                counted.recent.append([int(now), 1])
                _forget(counted, now)
            return operation

    def rejected(self, kind: ErrorType) -> None:
        """Count one call that a breaker refused."""
        with self._lock:
            self._counts[kind].rejected += 1

    def reset(self, kind: ErrorType | None = None) -> None:
        """Begin anew, with one type or with all."""
        with self._lock:
            for one in ErrorType if kind is None else (kind,):
                self._counts[one] = _Count()

    def read(self, kind: ErrorType, now: float, host_count: int | None) -> ErrorMetric:
        """One type as it stands now."""
        with self._lock:
            counted = self._counts[kind]
            _forget(counted, now)
            rate = sum(errors for _, errors in counted.recent) * 60.0 / RATE_WINDOW_S
            at = None if counted.last_at is None else datetime.fromtimestamp(counted.last_at, tz=UTC)
            operations = dict(counted.operations)
            return ErrorMetric(
                counted.errors, counted.rejected, at, counted.last, rate, operations, host_count
            )


def _forget(counted: _Count, now: float) -> None:
    """Let go of what is older than the last minute."""
    while counted.recent and counted.recent[0][0] <= int(now) - RATE_WINDOW_S:
        counted.recent.popleft()


def named(operation: object) -> str:
    """An operation's name as it is kept: one printable line of bounded length."""
    text = str(operation)[:OPERATION_LENGTH_MAX]
    return "".join(letter if letter.isprintable() else "?" for letter in text) or "unnamed"
