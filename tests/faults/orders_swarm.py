"""Orders for many attachments: clients by the score in one process, and short-lived forked workers.

Neighbours: `crew` (who obeys).
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import ipc
from tests.faults.body import body
from tests.faults.oracle import Ledger

if TYPE_CHECKING:
    from tests.faults.crew import Crew

_kept: Final[list[Any]] = []


def clients(crew: Crew, count: int, seconds: float = 10.0) -> dict[str, Any]:
    """Attach `count` clients at once, each from a thread of its own; how long the slowest took."""
    errors: list[str] = []
    took: list[float] = []
    kept: list[Any] = []
    gate = threading.Barrier(count)

    def attach(number: int) -> None:
        gate.wait()
        start = time.monotonic()
        try:
            client = ipc.Client(name=f"{crew.options['name']}.{number}")
            while not client.attached:
                client.connect()
                if time.monotonic() - start > seconds:
                    raise TimeoutError(f"client {number} is not attached after {seconds:g} s")
            kept.append(client)
            took.append(time.monotonic() - start)
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=attach, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _kept.extend(kept)
    return {"attached": len(kept), "slowest_s": max(took, default=0.0), "errors": errors[:5]}


def short_lives(crew: Crew, count: int, breaker: str) -> dict[str, Any]:
    """Fork `count` children one after the other: each attaches, makes one call, and exits."""
    bad: list[str] = []
    for number in range(count):
        pid = os.fork()
        if not pid:
            code = 1
            with contextlib.suppress(BaseException):
                code = _short_life(crew, breaker, number)
            os._exit(code)
        _, status = os.waitpid(pid, 0)
        if status:
            bad.append(f"child {number} ended with status {status}")
    return {"bad": bad[:5]}


def _short_life(crew: Crew, breaker: str, number: int) -> int:
    """The whole life of a short-lived worker; 0 = as it should be, 2 = it could not attach."""
    ipc.connect(name=f"short.{number}")
    ledger = Ledger(crew.options["ledgers"], breaker, f"short.{number}")
    guarded = crew.breakers[breaker](body)
    guarded("ok", ledger)
    ledger.done(ipc.OutcomeKind.SUCCESS)
    ledger.left()
    return 0


ORDERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {"clients": clients, "short_lives": short_lives}
