"""--watch: the same look again and again, and events as they come. Ends when it is interrupted.

A supervisor that goes away is said once and waited for. Neighbours: `main` gives the look and the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from ipc.errors import ControlError, SupervisorUnavailable
from supervisor.ctl.ask import Asker
from supervisor.ctl.listings import EVENTS_MAX, EVENTS_SHOWN, event_line
from supervisor.ctl.page import Page
from supervisor.ctl.parse import WATCH_S, Request

FOLLOW_S: Final = 0.25
"""Between two looks for new events, where --watch names no time."""


def looks(
    look: Callable[[], Page], period_s: float, sleep: Callable[[float], None]
) -> Iterator[Page | ControlError]:
    """A page after every period, or why there is none."""
    while True:
        try:
            yield look()
        except ControlError as error:
            yield error
        sleep(period_s)


def follow(request: Request, asker: Asker) -> Iterator[Page | ControlError]:
    """Pages of new events, the last ones first of all; an error once for every time it is away."""
    after = 0
    show = int(request.words[0]) if request.words else EVENTS_SHOWN
    away = False
    period_s = FOLLOW_S if request.watch_s in (None, WATCH_S) else request.watch_s
    while True:
        try:
            answer = asker.look("events", after=after, limit=EVENTS_MAX, newest=after == 0)
        except SupervisorUnavailable as error:
            if not away:
                yield error
            away = True
        else:
            away = False
            if answer["next"] < after:
                # A supervisor that lost its journal counts from 1 again.
                after = 0
                continue
            events = answer["events"][-show:] if after == 0 else answer["events"]
            after = answer["next"]
            if events:
                yield Page({**answer, "events": events}, tuple(map(event_line, events)))
        asker.clock.sleep(period_s or FOLLOW_S)
