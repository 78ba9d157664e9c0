"""breakerd's ground floor: what worker processes import and what both ends share."""

from ipc.errors import (
    BreakerdError,
    ControlDenied,
    ControlError,
    ControlRefused,
    ProtocolError,
    SegmentError,
    SettingsError,
    SupervisorUnavailable,
    UnguardableError,
)
from ipc.vocabulary import BreakerSettings, BreakerState, CountWindow, OutcomeKind, TimeWindow

__all__ = [
    "BreakerSettings",
    "BreakerState",
    "BreakerdError",
    "ControlDenied",
    "ControlError",
    "ControlRefused",
    "CountWindow",
    "OutcomeKind",
    "ProtocolError",
    "SegmentError",
    "SettingsError",
    "SupervisorUnavailable",
    "TimeWindow",
    "UnguardableError",
]
