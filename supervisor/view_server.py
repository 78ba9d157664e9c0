"""Answers the verbs that only ask: from the engine and the daemon's facts, in the turns of a `view_queue`.

Neighbours: `control_server` (which passes questions on), `views` (which makes the answers).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from supervisor import views
from supervisor.connections import Connections, Request
from supervisor.errors import BadRequest
from supervisor.facts import Facts
from supervisor.mind import Mind
from supervisor.view_queue import ViewQueue


class ViewServer:
    """Owns the questions. `facts` tells what the engine cannot know, as far as a verb shows it; `after` asks
    the loop to have `turn` called in so many seconds.
    """

    def __init__(
        self,
        mind: Mind,
        facts: Callable[[Any], Facts],
        connections: Connections,
        after: Callable[[float], object],
        clock: Callable[[], float],
    ) -> None:
        self._mind = mind
        self._facts = facts
        self._connections = connections
        self._after = after
        self._clock = clock
        self._queue = ViewQueue(self._show, self._refuse, clock)
        self._queue.is_privileged = connections.is_privileged
        self._turn_asked = False
        self.clear = self._queue.clear

    def ask(self, request: Request) -> None:
        """Answer now, or when this user's turn comes."""
        self._queue.ask(request)
        self._turn_later()

    def turn(self) -> None:
        """The time for which `after` was asked has come."""
        self._turn_asked = False
        self._queue.turn()
        self._turn_later()

    def sweep(self) -> None:
        """A few times a second: ask for the turn again, whatever became of the last."""
        self._turn_asked = False
        self._turn_later()

    def _turn_later(self) -> None:
        at = self._queue.next_time()
        if at is not None and not self._turn_asked:
            self._turn_asked = True
            self._after(max(0.0, at - self._clock()))

    def _show(self, request: Request) -> None:
        """Make one answer and send it."""
        facts = self._facts(request.body.get("verb"))
        if request.usage is not None:
            facts = replace(facts, usage=request.usage)
        try:
            value = views.answer(self._mind.engine, request.body, facts, self._clock(), time.time())
        except BadRequest as error:
            self._connections.refuse(request.connection, request.number, error.code, str(error))
            return
        self._connections.answer(request.connection, request.number, value)

    def _refuse(self, request: Request) -> None:
        text = "the supervisor has too much to do; try again"
        self._connections.refuse(request.connection, request.number, "busy", text)
