"""Asking the supervisor within a time limit. Knows no verb and prints nothing.

A look may be asked again when the supervisor dies over it: its nursery has a new one in half a second,
and the socket queues meanwhile. A command may not: whether it was carried out is not known.
Neighbours: `ipc.control` makes the exchange; `trouble` says what its errors mean and what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ipc import control
from ipc.errors import ProtocolError, SupervisorUnavailable

SCHEMA: Final = 1
AGAIN_S: Final = 0.05
"""Pause before a look is asked again, and the least time that asking again must have left."""
PASSING: Final = frozenset({"closed", "full"})
"""Reasons that half a second may mend."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time as the verbs see it, so that a test can own it."""

    now: Callable[[], float]
    """Seconds that never go back."""
    sleep: Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Asker:
    """Where the supervisor is, and how long it is waited for."""

    path: str
    timeout_s: float
    clock: Clock

    def look(self, verb: str, **fields: Any) -> Any:
        """The answer to a question, asked again while that may help. Raises ControlError."""
        deadline = self.clock.now() + self.timeout_s
        while True:
            try:
                return self._once(verb, max(0.0, round(deadline - self.clock.now(), 3)), fields)
            except SupervisorUnavailable as error:
                if error.reason not in PASSING or self.clock.now() + 2 * AGAIN_S > deadline:
                    raise
            self.clock.sleep(AGAIN_S)

    def command(self, verb: str, **fields: Any) -> Any:
        """The answer to a command, asked once. Raises ControlError."""
        return self._once(verb, self.timeout_s, fields)

    def _once(self, verb: str, timeout_s: float, fields: dict[str, Any]) -> Any:
        answer = control.ask(self.path, verb, timeout_s, **fields)
        if not isinstance(answer, dict) or answer.get("schema") != SCHEMA:
            raise ProtocolError(f"the supervisor's answer to {verb} is not of schema {SCHEMA}")
        return answer


def find(given: str | None) -> str:
    """The socket's path. Raises SupervisorUnavailable if the environment says that there is none."""
    path = control.socket_path(given)
    if path is None:
        raise SupervisorUnavailable(f"{control.SOCKET_VARIABLE} is off: there is no supervisor to ask", "off")
    return path
