"""breakerd's ground floor: what worker processes import and what both ends share."""

from ipc.beating import beat
from ipc.client import Client
from ipc.counters import Counters, process_counters
from ipc.errors import (
    BreakerdError,
    CircuitOpenError,
    ControlDenied,
    ControlError,
    ControlRefused,
    ProtocolError,
    SegmentError,
    SettingsError,
    SupervisorUnavailable,
    UnguardableError,
)
from ipc.guard import CircuitBreaker
from ipc.process import connect, connect_async, query_health
from ipc.vocabulary import BreakerSettings, BreakerState, CountWindow, OutcomeKind, TimeWindow

__all__ = [
    "BreakerSettings",
    "BreakerState",
    "BreakerdError",
    "CircuitBreaker",
    "CircuitOpenError",
    "Client",
    "ControlDenied",
    "ControlError",
    "ControlRefused",
    "CountWindow",
    "Counters",
    "OutcomeKind",
    "ProtocolError",
    "SegmentError",
    "SettingsError",
    "SupervisorUnavailable",
    "TimeWindow",
    "UnguardableError",
    "beat",
    "connect",
    "connect_async",
    "process_counters",
    "query_health",
]
