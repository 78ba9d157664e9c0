"""Asking the supervisor for the permit of one trial call, within a time that a caller may lose.

An answer that comes too late must not leave a permit that nobody uses: the reading side is shut first and
what has arrived until then is read, so that either we hold the permit or the supervisor's send fails and
it takes the permit back. And a process that was stopped while it asked may read a permit whose lease is over
by now: nobody holds that one any more. Neighbours: `control` (the exchange), `admission` (which asks). Knows
no board.
"""

from __future__ import annotations

import math
import socket
import time
from typing import Any, Final, NamedTuple

from ipc.control import Exchange, wait_readable
from ipc.control_async import readable
from ipc.errors import BreakerdError

PERMIT_WAIT_S: Final = 0.05
"""How long a call may wait for the answer; then it is refused."""
LOOP_WAIT_S: Final = 0.005
"""The same for a call that is not async although an event loop runs in its thread."""


class Question(NamedTuple):
    """Whom to ask, for whom, and under which number: asked again, it gets the same answer."""

    path: str
    nonce: str
    row: int
    ask: int


class Reply(NamedTuple):
    """What the supervisor said; None in `permit` = no. `answered` False = it did not say anything."""

    permit: int | None = None
    generation: int = 0
    retry_after_s: float = 0.0
    answered: bool = True


SILENCE: Final = Reply(answered=False)


class PermitAsk:
    """One question on its way."""

    __slots__ = ("_began", "_exchange")

    def __init__(self, question: Question) -> None:
        self._began = time.monotonic()
        self._exchange = Exchange(question.path)
        try:
            self._exchange.send("permit", nonce=question.nonce, row=question.row, ask=question.ask)
        except BaseException:
            self._exchange.close()
            raise

    def wait(self, seconds: float) -> Reply:
        """The answer, or SILENCE after `seconds`."""
        deadline = time.monotonic() + seconds
        try:
            while wait_readable(self._exchange.connection, deadline - time.monotonic()):
                if self._exchange.receive():
                    return self._reply()
        except (BreakerdError, OSError):
            return SILENCE
        return self.last_word()

    async def wait_on(self, loop: Any, seconds: float) -> Reply:
        """The same, awaited on the running event loop."""
        deadline = time.monotonic() + seconds
        try:
            while await readable(loop, self._exchange.connection, deadline - time.monotonic()):
                if self._exchange.receive():
                    return self._reply()
        except (BreakerdError, OSError):
            return SILENCE
        return self.last_word()

    def last_word(self) -> Reply:
        """Take no more, and read what has come: from here on the supervisor cannot deliver any more."""
        try:
            self._exchange.connection.shutdown(socket.SHUT_RD)
            if self._exchange.receive():
                return self._reply()
        except (BreakerdError, OSError):
            pass
        return SILENCE

    def close(self) -> None:
        """Done with it."""
        self._exchange.close()

    def _reply(self) -> Reply:
        value = self._exchange.value()
        try:
            permit = value.get("permit")
            if permit is not None and time.monotonic() - self._began >= float(value.get("lease_s", math.inf)):
                # The lease began after the question, so a moment of it may be left: too little for a call.
                return Reply()
            return Reply(
                None if permit is None else int(permit),
                int(value.get("generation") or 0),
                float(value.get("retry_after_s") or 0.0),
            )
        except (AttributeError, TypeError, ValueError):
            return SILENCE
