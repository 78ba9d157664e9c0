"""Orders by which a worker becomes something else: another user, another program; and hasty calls for trials.

Neighbours: `crew` (who obeys).
"""

from __future__ import annotations

import codecs
import json
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import ipc
from ipc import control
from tests.faults.body import body
from tests.faults.oracle import Ledger

if TYPE_CHECKING:
    from tests.faults.crew import Crew

LOOKED_BY: Final = "/proc/self/fd"


def become(crew: Crew, uid: int, groups: list[int]) -> dict[str, Any]:
    """Be another user from now on, for good."""
    codecs.lookup("ascii")  # what Python loads late may not be readable for that user: this one is needed
    os.setgroups(groups)
    os.setgid(uid)
    os.setuid(uid)
    return {}


def execute(crew: Crew, **options: Any) -> dict[str, Any]:
    """Become a new crew with other options: no close, no farewell, whatever the other threads are doing."""
    line = [sys.executable, "-m", "tests.faults.crew", json.dumps({**crew.options, **options})]
    os.execv(sys.executable, line)


def descriptors(crew: Crew) -> dict[str, Any]:
    """What each open descriptor of this process stands for."""
    found: dict[str, str] = {}
    for number in os.listdir(LOOKED_BY):
        try:
            found[number] = os.readlink(f"{LOOKED_BY}/{number}")
        except FileNotFoundError:
            continue  # by which the folder was read
    return {"open": found}


def ask(crew: Crew, verb: str, **fields: Any) -> dict[str, Any]:
    """Ask the supervisor something as this user; the code of a refusal, empty = it was answered."""
    path = control.socket_path(None)
    assert path is not None
    try:
        control.ask(path, verb, 2.0, **fields)
    except ipc.ControlDenied:
        return {"code": "denied"}
    except ipc.ControlError as error:
        return {"code": getattr(error, "code", type(error).__name__)}
    return {"code": ""}


class Trials:
    """A thread that calls all the time, and notes of each call that was admitted when that was."""

    def __init__(self, crew: Crew, breaker: str, inside_s: float) -> None:
        self.stop = threading.Event()
        self.seen: list[tuple[float, float, float]] = []
        """Before the call, its beginning and its end, s."""
        self.error = ""
        self._crew, self._breaker, self._inside_s = crew, breaker, inside_s
        self._guarded = crew.breakers[breaker](self._inside)
        self._began = 0.0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _inside(self, ledger: Ledger) -> None:
        self._began = time.monotonic()
        time.sleep(random.uniform(0.0, self._inside_s))
        body("ok", ledger)

    def _run(self) -> None:
        ledger = self._crew.ledger(self._breaker)
        try:
            while not self.stop.is_set():
                self._one(ledger)
        except BaseException as error:
            # Whatever comes out that was not put in is what these tests look for.
            self.error = repr(error)
            raise
        ledger.left()

    def _one(self, ledger: Ledger) -> None:
        before = time.monotonic()
        try:
            self._guarded(ledger)
        except ipc.CircuitOpenError:
            ledger.refused()
            time.sleep(0.002)
            return
        ledger.done(ipc.OutcomeKind.SUCCESS)
        self.seen.append((before, self._began, time.monotonic()))


_trials: Final[list[Trials]] = []


def try_always(crew: Crew, breaker: str, inside_s: float) -> dict[str, Any]:
    """Start a thread that calls that breaker all the time and stays inside for up to `inside_s`."""
    _trials.append(Trials(crew, breaker, inside_s))
    return {}


def tried(crew: Crew) -> dict[str, Any]:
    """End it; when its calls were."""
    trials = _trials.pop()
    trials.stop.set()
    trials.thread.join(10.0)
    return {"seen": trials.seen, "failed": trials.error}


ORDERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {
    "ask": ask, "become": become, "execute": execute, "descriptors": descriptors, "try_always": try_always,
    "tried": tried,
}  # fmt: skip
