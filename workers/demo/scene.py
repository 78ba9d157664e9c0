"""What the audience sees at one instant: frozen values, filled by `stage`, drawn by `screen` or `lines`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ipc import BreakerState

ACTS: Final = ("in-process breakers", "host-wide breaker")
"""The two runs, in turn."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker process."""

    number: int
    pid: int
    doing: str
    """starting, working, failing, refused, killed or stopped."""
    sees: BreakerState | None
    """The state that its breaker had at its last call."""
    calls_per_s: float
    """Calls it made, refused ones included."""
    succeeded: int
    failed: int
    refused: int


@dataclass(frozen=True, slots=True)
class BreakerView:
    """What the supervisor says about the host's breaker."""

    name: str
    state: str
    generation: int
    failures_in_a_row: int
    retry_after_s: float
    trials: str


@dataclass(frozen=True, slots=True)
class SupervisorView:
    """The supervisor as the demo knows it."""

    daemon_pid: int
    """0 = not known yet."""
    answers: bool


@dataclass(frozen=True, slots=True)
class Rates:
    """What all workers together did in one interval, per second."""

    succeeded: float
    failed: float
    refused: float


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    at_s: float
    """Since the demo began."""
    source: str
    """demo or breakerd."""
    text: str


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that is visible now."""

    at_s: float
    act: int
    """Index into ACTS."""
    phase: str
    progress: float
    """0 to 1."""
    workers: tuple[WorkerView, ...]
    breaker: BreakerView | None
    """None while every worker has its own."""
    supervisor: SupervisorView | None
    rates: Rates
    history: tuple[Rates, ...]
    """One value per `stage.HISTORY_STEP_S`, oldest first."""
    events: tuple[Event, ...]
    """All of them, oldest first."""
    result: str
    """What came of the act before; empty in the first one."""
    database: str
    """up or LOCKED."""
