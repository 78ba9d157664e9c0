"""What a request commands of a breaker, checked: nothing of a request is believed to have a shape.

Neighbours: `control_server` (who may command, and what becomes of it), `engine` (which breakers there are).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from ipc.vocabulary import MANUAL_DEFAULT_S, Verb
from supervisor.engine import Engine
from supervisor.errors import BadRequest, BreakerNotFound

REASON_MAX: Final = 500
NAME_SHOWN: Final = 128
"""Characters of a name from outside that the log shows."""
_VERBS: Final = frozenset(Verb)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A command as it was asked for; `breaker` may be a short name."""

    breaker: str
    action: str
    for_s: float | None
    reason: str

    @property
    def shown(self) -> str:
        """The command in a few words."""
        return f"{self.action} {self.breaker[:NAME_SHOWN]}"


def read_command(body: dict[str, Any]) -> Wanted:
    """The command of this request. Raises BadRequest."""
    action, reason, breaker = body.get("action"), body.get("reason", ""), body.get("breaker")
    if not isinstance(action, str) or action not in _VERBS:
        raise BadRequest(f"action must be one of {', '.join(Verb)}, got {action!r:.40}")
    for_s = body.get("for_s", MANUAL_DEFAULT_S)
    if for_s is not None and (not isinstance(for_s, int | float) or not 0 < for_s < math.inf):
        raise BadRequest(f"for_s must be a number of seconds above 0 or null, got {for_s!r:.40}")
    if not isinstance(reason, str) or not isinstance(breaker, str):
        raise BadRequest("breaker and reason must be text")
    return Wanted(breaker, action, for_s, reason[:REASON_MAX])


def read_forget(body: dict[str, Any]) -> Wanted:
    """Which breaker is to be forgotten; an empty name = all that are unused. Raises BadRequest."""
    breaker, unused = body.get("breaker"), body.get("unused", False)
    named = isinstance(breaker, str) and breaker != "" and unused is False
    if not named and (breaker is not None or unused is not True):
        raise BadRequest("forget takes the name of a breaker, or unused = true")
    return Wanted(str(breaker) if named else "", "forget", None, "")


def full_name(engine: Engine, wanted: Wanted) -> str:
    """The full name of the breaker that is meant. Raises BreakerNotFound, with the whole commands."""
    try:
        return engine.resolve(wanted.breaker)
    except BreakerNotFound as error:
        raise error.of(f"breaker {wanted.action}") from None
