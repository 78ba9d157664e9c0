"""How many connections the control socket may have, as the configuration says. Knows no connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from supervisor.settings import SupervisorSettings

FIRST_REQUEST_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections there may be."""

    unsaid_max: int = 256
    """Connections that have not made a request yet; the oldest one is dropped beyond it."""
    connections_max: int = 4096
    per_uid_max: int = 256
    first_request_s: float = FIRST_REQUEST_S
    """Seconds in which a new connection must have made its first request."""

    @classmethod
    def of(cls, told: SupervisorSettings) -> Limits:
        """As the configuration says."""
        return cls(told.unsaid_max, told.connections_max, told.per_uid_max, told.hello_within_s)
