"""`wait`: look again until something is so, or until the time is over."""

from __future__ import annotations

from typing import Any, Final

from ipc.errors import BreakerdError, ControlRefused, SupervisorUnavailable
from supervisor.ctl.ask import Asker, Clock
from supervisor.ctl.page import Page, Verdict, span
from supervisor.ctl.parse import TIMEOUT_S, Request

PAUSE_S: Final = 0.1
"""Between two looks."""
LATER: Final = frozenset({"unknown"})
"""Refusals that time may mend: a breaker is known when the first worker has declared it."""


def wait(request: Request, path: str, clock: Clock) -> Page:
    """Wait; FAIL if it is not so in the end. Raises ControlError where waiting cannot help."""
    begin = clock.now()
    deadline = begin + request.timeout_s
    what = f"breaker {request.words[1]} {request.words[2]}" if len(request.words) > 1 else request.words[0]
    while True:
        trouble: BreakerdError | None = None
        reached, seen = False, ""
        asker = Asker(path, max(0.01, min(TIMEOUT_S, deadline - clock.now())), clock)
        try:
            reached, seen = _look(request, asker)
        except SupervisorUnavailable as error:
            trouble = error
        except ControlRefused as error:
            if error.code not in LATER:
                raise
            seen = str(error)
        waited = clock.now() - begin
        if reached:
            return Page(_answer(True, waited, seen), (f"{what} after {span(waited)}",))
        if clock.now() + PAUSE_S >= deadline:
            break
        clock.sleep(PAUSE_S)
    if trouble is not None:
        raise trouble
    line = f"not {what} after {span(waited)}: {seen}"
    return Page(_answer(False, waited, seen), (line,), Verdict.FAIL)


def _look(request: Request, asker: Asker) -> tuple[bool, str]:
    """Whether it is so, and what was seen."""
    if request.words[0] == "breaker":
        _, name, state = request.words
        now = str(asker.look("breaker", name=name)["breaker"]["state"])
        return now == state.upper().replace("-", "_"), f"it is {now}"
    answer = asker.look("health", level=request.words[0])
    return answer["status"] != "fail", str(answer.get("output") or answer["status"])


def _answer(reached: bool, waited: float, seen: str) -> dict[str, Any]:
    return {"schema": 1, "reached": reached, "waited_s": round(waited, 3), "seen": seen}
