"""What the actor `control` is told besides requests: by itself, by the loop, by those who work for it."""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.connections import Request
from supervisor.user_database import Account


@dataclass(frozen=True, slots=True)
class Sweep:
    """A few times a second."""


@dataclass(frozen=True, slots=True)
class Greet:
    """Carry out some of the hellos that wait."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The next question of those that wait may be answered."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Systemd's store has this worker's descriptors."""

    worker: str


@dataclass(frozen=True, slots=True)
class Resolved:
    """The user database was asked about whoever makes this request; None = it does not answer."""

    request: Request
    account: Account | None
