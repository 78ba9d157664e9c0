"""`tail`: the last lines that a managed worker logged; with -f, those that follow, also over a new daemon."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ipc.errors import ControlError, SupervisorUnavailable
from supervisor.ctl.ask import Asker
from supervisor.ctl.page import Page
from supervisor.ctl.parse import Request

LINES: Final = 20
"""Shown where no number is said."""
LINES_MAX: Final = 1000
"""Lines of one answer."""
LOST: Final = "... (lines were thrown away before they could be shown) ..."


def fields(request: Request) -> dict[str, Any]:
    """What to ask."""
    return {"name": request.words[0], "lines": int(request.words[1]) if len(request.words) > 1 else LINES}


def page(answer: Any, _request: Request) -> Page:
    """The lines as they were logged."""
    lines = tuple(map(str, answer["lines"]))
    return Page(answer, (LOST, *lines) if answer["lost"] else lines)


def follow(request: Request, asker: Asker) -> Iterator[Page | ControlError]:
    """The last lines, then each that comes; an error once for every time the supervisor is away."""
    asked = fields(request)
    away = False
    while True:
        try:
            answer = asker.look("tail", **asked)
        except SupervisorUnavailable as error:
            if not away:
                yield error
            away = True
        else:
            away = False
            asked = {**asked, "lines": LINES_MAX, "after": answer["position"]}
            if answer["lines"] or answer["lost"]:
                yield page(answer, request)
            if len(answer["lines"]) >= LINES_MAX:
                continue  # there is more
        asker.clock.sleep(request.watch_s or 0.0)
