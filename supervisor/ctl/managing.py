"""`start`, `stop`, `restart`: order it, then look until every process is where it should be, or will not be.

The supervisor answers when it has accepted the order; what becomes of it is seen in `status`, also in that of
a daemon that was started meanwhile. What stood there before the order tells a state of then from one of now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ipc.errors import ProtocolError, SupervisorUnavailable
from supervisor.ctl.ask import Asker, Clock
from supervisor.ctl.page import Page, Verdict, span
from supervisor.ctl.parse import MANAGE_S, TIMEOUT_S, Request

PAUSE_S: Final = 0.1
"""Between two looks."""
ACCEPT_S: Final = 5.0
"""How long the supervisor may take to accept an order: longer than it takes to say that it cannot."""
SPARE_S: Final = 10.0
"""How much longer than the tables allow it may take."""
_DONE: Final = {"start": "started", "stop": "stopped", "restart": "restarted"}
Key = tuple[str, int, float]


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one process."""

    title: str
    state: str
    pid: int
    text: str
    settled: bool = True
    """False = it may still become something else."""
    done: bool = False
    """It is what was asked for."""

    def to_json(self) -> dict[str, Any]:
        """As --json shows it."""
        return {
            "name": self.title,
            "state": self.state,
            "done": self.done,
            "pid": self.pid,
            "text": self.text,
        }


def command(request: Request, asker: Asker) -> Page:
    """Order it and wait, at most --timeout; FAIL if somebody is not there in the end. Raises ControlError."""
    began = asker.clock.now()
    before = {title: _key(item) for title, item in _look(asker.path, asker.clock, TIMEOUT_S).items()}
    asking = Asker(asker.path, min(ACCEPT_S, request.timeout_s), asker.clock)
    answer = asking.command(request.verb, name=request.words[0])
    try:
        titles, takes_s = list(map(str, answer["accepted"])), float(answer["takes_s"])
    except (LookupError, TypeError, ValueError) as error:
        raise ProtocolError(f"the answer to {request.verb} cannot be read: {error!r}") from error
    patience_s = request.timeout_s if request.patience_said else max(MANAGE_S, takes_s + SPARE_S)
    fates = _wait(request.verb, titles, before, asker, began + patience_s)
    waited_s = asker.clock.now() - began
    lines = [_line(fate, waited_s) for fate in fates] or ["there is no managed worker"]
    value = {"schema": 1, "verb": request.verb, "accepted": titles, "waited_s": round(waited_s, 3)}
    well = all(fate.done for fate in fates)
    return Page(
        {**value, "processes": [fate.to_json() for fate in fates]},
        tuple(lines),
        Verdict.OK if well else Verdict.FAIL,
    )


def _wait(verb: str, titles: list[str], before: dict[str, Key], asker: Asker, deadline: float) -> list[Fate]:
    """Look until all is settled or the time is over. Raises ControlError if nobody answers in the end."""
    clock = asker.clock
    while True:
        trouble: SupervisorUnavailable | None = None
        fates: list[Fate] = []
        try:
            found = _look(asker.path, clock, max(0.01, min(TIMEOUT_S, deadline - clock.now())))
            fates = [fate(verb, title, found.get(title), before.get(title)) for title in titles]
        except SupervisorUnavailable as error:
            trouble = error
        if trouble is None and all(one.settled for one in fates):
            return fates
        if clock.now() + PAUSE_S >= deadline:
            break
        clock.sleep(PAUSE_S)
    if trouble is not None:
        raise trouble
    return fates


def _look(path: str, clock: Clock, timeout_s: float) -> dict[str, Any]:
    """The managed processes, by title. Raises ControlError."""
    answer = Asker(path, timeout_s, clock).look("status")
    try:
        return {str(item["name"]): item for item in answer["processes"] if "managed" in item}
    except (LookupError, TypeError) as error:
        raise ProtocolError(f"the supervisor's answer to status cannot be read: {error!r}") from error


def _key(item: Any) -> Key:
    return str(item["state"]), int(item["pid"]), float(item["managed"]["since"])


def fate(verb: str, title: str, item: Any, before: Key | None) -> Fate:
    """What became of a process that looked like `before` when it was told to; None = it was not there."""
    if item is None:
        if verb == "stop":
            return Fate(title, "STOPPED", 0, "stopped, and not configured any more", done=True)
        return Fate(title, "UNKNOWN", 0, "not to be seen", settled=False)
    state, pid, _ = key = _key(item)
    why = str(item["description"])
    if verb == "stop":
        over = state == "STOPPED"
        return Fate(title, state, pid, "stopped" if over else why, settled=over, done=over)
    if state == "RUNNING":
        if verb == "start" and key == before:
            return Fate(title, state, pid, f"ran already (pid {pid})", done=True)
        if verb == "start" or before is None or pid != before[1]:
            return Fate(title, state, pid, f"{_DONE[verb]} (pid {pid})", done=True)
    if key == before or state not in ("EXITED", "FATAL", "STOPPED"):
        return Fate(title, state, pid, why, settled=False)
    well = state == "EXITED" and str(item["managed"]["last_exit"]) == "exit code 0"
    return Fate(title, state, pid, f"{_DONE[verb]}, and has ended: {why}" if well else why, done=well)


def _line(one: Fate, waited_s: float) -> str:
    """One process in one line."""
    if one.done:
        return f"{one.title}: {one.text}"
    still = "" if one.settled else f"still after {span(waited_s)}"
    return f"{one.title}: {one.state} {still}".rstrip() + (f": {one.text}" if one.text else "")
