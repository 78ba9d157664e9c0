"""Actors in one thread: bounded mailboxes, one message at a time to its end, restarts with a limit.

A stage owns the mailboxes. An actor that raises loses the message it was at, is told to `restart` and
goes on with the next one; the others never notice. More than `restarts_max` failures within
`window_s` are the level above's business: `give_up` is called once, with the reason.
Neighbours: `mind`, `intake_actor`, `control_server`, `disk_actor` are the actors, `daemon` the level above.
Knows no socket, no clock of its own and no message's meaning.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from supervisor.errors import ActorFailed

log = logging.getLogger("breakerd.actor")

MAILBOX_MAX: Final = 4096
"""Messages that wait for one actor; beyond it `post` says no and the sender decides."""
TURN_MAX: Final = 512
TURN_S: Final = 0.005
"""Messages and time of one turn of the loop; then sockets and timers are looked at again."""


class Actor(Protocol):
    """Somebody who owns state and is told messages, one at a time."""

    name: str

    def receive(self, message: Any) -> None:
        """Handle one message to its end; must not wait."""

    def restart(self) -> None:
        """After `receive` raised: drop what is half done; what was committed stays."""


@dataclass(frozen=True, slots=True)
class RestartRules:
    """How often one actor may fail."""

    restarts_max: int = 5
    window_s: float = 10.0


@dataclass(slots=True)
class _Seat:
    actor: Actor
    mailbox: deque[Any] = field(default_factory=deque)
    received: int = 0
    failures: deque[float] = field(default_factory=deque)
    restarts: int = 0


class Fault:
    """Test hook `actor:n` or `actor:n+`: that actor raises at its n-th message (and at all later ones)."""

    def __init__(self, told: str | None) -> None:
        name, _, when = (told or "").partition(":")
        self._name = name
        self._always = when.endswith("+")
        self._at = int(when.rstrip("+") or 0)

    def check(self, name: str, received: int) -> None:
        """Raise if this message is the one."""
        if name == self._name and (received == self._at or (self._always and received > self._at)):
            raise RuntimeError(f"asked to raise at message {received} of {name}")


class Stage:
    """Runs the actors. `later(callback)` asks the loop for another turn; `clock` is monotonic seconds."""

    def __init__(
        self,
        later: Callable[[Callable[[], None]], object],
        clock: Callable[[], float],
        give_up: Callable[[ActorFailed], None],
        rules: RestartRules = RestartRules(),
        fault: Fault | None = None,
    ) -> None:
        self._later = later
        self._clock = clock
        self._give_up = give_up
        self._rules = rules
        self._fault = fault or Fault(None)
        self._seats: dict[str, _Seat] = {}
        self._ready: deque[str] = deque()
        """Names of actors with mail, in the order in which the mail came."""
        self._busy = False
        self._asked = False

    def add(self, actor: Actor) -> None:
        """Give an actor its mailbox."""
        self._seats[actor.name] = _Seat(actor)

    def restarts(self) -> dict[str, int]:
        """How often each actor was restarted so far."""
        return {name: seat.restarts for name, seat in self._seats.items()}

    def failed_at(self) -> tuple[tuple[str, float], ...]:
        """When each actor that ever failed did so last."""
        return tuple((name, seat.failures[-1]) for name, seat in self._seats.items() if seat.failures)

    def post(self, name: str, message: Any) -> bool:
        """Put a message into a mailbox; False = full, nothing was put.

        From outside any actor the message is handled before `post` returns, together with everything
        that it causes, up to the turn's limit; from inside one it waits for its turn.
        """
        seat = self._seats[name]
        if len(seat.mailbox) >= MAILBOX_MAX:
            return False
        seat.mailbox.append(message)
        self._ready.append(name)
        if not self._busy:
            self.turn()
        return True

    def turn(self) -> None:
        """Handle waiting messages, oldest first, within a turn's limits; ask for another if some are left."""
        if self._busy:
            return
        self._busy = True
        self._asked = False
        end = self._clock() + TURN_S
        try:
            for _ in range(TURN_MAX):
                if not self._ready or self._clock() > end:
                    return
                self._handle(self._seats[self._ready.popleft()])
        finally:
            self._busy = False
            if self._ready and not self._asked:
                self._asked = True
                self._later(self.turn)

    def _handle(self, seat: _Seat) -> None:
        message = seat.mailbox.popleft()
        seat.received += 1
        try:
            self._fault.check(seat.actor.name, seat.received)
            seat.actor.receive(message)
        except Exception as error:  # noqa: BLE001 (the boundary of an actor: whatever it is, it stays inside)
            self._failed(seat, error)

    def _failed(self, seat: _Seat, error: Exception) -> None:
        """Count the failure; restart the actor, or tell the level above."""
        name, now, rules = seat.actor.name, self._clock(), self._rules
        log.error("actor %s failed at message %d", name, seat.received, exc_info=error)
        seat.failures.append(now)
        while seat.failures and now - seat.failures[0] > rules.window_s:
            seat.failures.popleft()
        if len(seat.failures) > rules.restarts_max:
            last = f"{type(error).__name__}: {error}"
            self._give_up(
                ActorFailed(name, f"{len(seat.failures)} times in {rules.window_s:g} s, last {last}")
            )
            return
        seat.restarts += 1
        try:
            seat.actor.restart()
        except Exception as worse:  # noqa: BLE001 (as above: not even able to restart is one more failure)
            self._failed(seat, worse)
