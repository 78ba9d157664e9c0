"""What goes into a breaker and what comes out of it: frozen values, without behaviour.

Neighbours: `breaker` (takes and gives them), the engine and `local` (on the other side).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ipc.vocabulary import BreakerState, OutcomeKind


@dataclass(frozen=True, slots=True)
class Observation:
    """`count` equal outcomes of one party."""

    party: str
    kind: OutcomeKind
    generation: int
    """Generation code under which they were admitted, 1 to 15."""
    permit: int
    """Low six bits of the trial's permit; -1 = no trial."""
    end: float
    """Seconds; several ended in the eighth of a second in which this lies, and none later than this."""
    count: int


class Grant(NamedTuple):
    """A permit for one trial call."""

    permit: int
    generation: int
    lease_until: float
    """When the permit expires, s."""


class Manual(NamedTuple):
    """Who put the breaker into its manual state, why, and when it ends (s; FOREVER = by a verb only)."""

    who: str
    reason: str
    until: float


class Totals(NamedTuple):
    """What the shared window holds."""

    calls: int
    failures: int
    slow: int


class Cause(NamedTuple):
    """Why a circuit moves."""

    text: str
    """Words for people, such as "5 failures in a row"."""
    party: str = ""
    """Whose outcome decided, where one did."""


class Transition(NamedTuple):
    """A circuit moved; or, where old and new are METRICS_ONLY, it would have."""

    scope: str
    """"" = the host, else the party that is isolated."""
    old: BreakerState
    new: BreakerState
    generation: int
    cause: str
    """Words for people, such as "5 failures in a row"."""
    party: str = ""
    """Whose outcome decided, where one did."""
