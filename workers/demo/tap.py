"""Asks the supervisor what the audience should see, one question at a time, and never waits for an answer.

A supervisor that was killed leaves a question unanswered; it is dropped after `PATIENCE_S` and asked again.
Neighbours: `ipc.control` (the exchange), `stage` (calls `poll` once per frame).
"""

from __future__ import annotations

import itertools
from typing import Any, Final

from ipc.control import Exchange
from ipc.errors import ControlError
from workers.demo.scene import BreakerView

VERBS: Final = ("breakers", "events", "status")
PATIENCE_S: Final = 0.5
EVENTS_MAX: Final = 200
"""Events asked for at once."""


class Tap:
    """What the supervisor said last."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._verbs = itertools.cycle(VERBS)
        self._exchange: Exchange | None = None
        self._verb = ""
        self._asked = 0.0
        self._next_event = 0
        self.breaker: BreakerView | None = None
        self.daemon_pid = 0
        self.answers = False
        """False once a question went unanswered."""
        self.news: list[str] = []
        """Texts of events that nobody took yet."""

    def poll(self, now: float) -> None:
        """Read an answer if one is there; ask the next question if none is under way."""
        try:
            if self._exchange is None:
                self._ask(now)
            elif self._exchange.receive():
                self._take(self._exchange.value())
                self._ask(now)
            elif now - self._asked > PATIENCE_S:
                self._hang_up()
        except ControlError:
            self._hang_up()

    def take_news(self) -> list[str]:
        """The events since the last time."""
        taken, self.news = self.news, []
        return taken

    def close(self) -> None:
        """Drop the question under way."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None

    def _hang_up(self) -> None:
        self.answers = False
        self.close()

    def _ask(self, now: float) -> None:
        """The next question."""
        self.close()
        self._verb = next(self._verbs)
        self._asked = now
        self._exchange = Exchange(self._path)
        if self._verb == "events":
            self._exchange.send(self._verb, after=self._next_event, limit=EVENTS_MAX)
        else:
            self._exchange.send(self._verb)

    def _take(self, answer: dict[str, Any]) -> None:
        """Keep what the audience sees of it."""
        self.answers = True
        if self._verb == "breakers":
            self.breaker = next(map(_breaker, answer["breakers"]), None)
        elif self._verb == "events":
            self.news += [str(event["text"]) for event in answer["events"]]
            self._next_event = int(answer["next"])
        else:
            pids = {one["name"]: one["pid"] for one in answer["processes"]}
            self.daemon_pid = int(pids.get("daemon") or 0)


def _breaker(said: dict[str, Any]) -> BreakerView:
    """The audience's part of one breaker."""
    trials = said["trials"]
    return BreakerView(
        name=str(said["name"]),
        state=str(said["state"]),
        generation=int(said["generation"]),
        failures_in_a_row=int(said["failure_count"]),
        retry_after_s=float(said["retry_after_s"] or 0.0),
        trials=f"{trials['in_flight']} of {trials['permitted']} in flight, {trials['passed']} passed",
    )
