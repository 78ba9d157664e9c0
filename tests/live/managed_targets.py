"""What managed workers of the live tests do: ordinary users of `ipc`, each outcome in a ledger of the oracle.

They find their supervisor by themselves; nothing here says where it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ipc
from ipc.vocabulary import OutcomeKind
from tests.faults.body import body
from tests.faults.oracle import Ledger
from tests.faults.orders_permits import ask_permit

_over = threading.Event()


def calls(ledgers: str, breaker: str, per_s: float, patient: bool = True) -> None:
    """Guarded calls, `per_s` a second, until SIGTERM. A `patient` one makes none before it is attached."""
    signal.signal(signal.SIGTERM, _told)
    while patient and not _over.is_set() and not ipc.connect():
        pass
    guard = ipc.CircuitBreaker(breaker, failure_threshold=None, failure_rate=None)
    guarded, ledger = guard(body), Ledger(ledgers, breaker, breaker)
    began, made = time.monotonic(), 0
    while not _over.is_set():
        due = int((time.monotonic() - began) * per_s)
        if made >= due:
            time.sleep(0.001)
        for _ in range(min(due - made, 100)):
            made += 1
            try:
                guarded("ok", ledger)
            except ipc.CircuitOpenError:
                ledger.refused()
            else:
                ledger.done(OutcomeKind.SUCCESS)
    ledger.left()


def answers_for_permits(ledgers: str, breaker: str, per_s: float, door: str) -> None:
    """As `calls`; whoever connects to `door` has this process ask for a permit of its own by hand."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(door)
    listener.listen()

    def serve() -> None:
        while True:
            client, _ = listener.accept()
            with client, client.makefile("rw") as line:
                line.write(json.dumps(ask_permit(**json.loads(line.readline()))) + "\n")

    threading.Thread(target=serve, daemon=True).start()
    calls(ledgers, breaker, per_s)


def _told(_number: int, _frame: Any) -> None:
    _over.set()


def ignores(name: str) -> None:
    """Attaches, and then cannot be ended by any signal that can be ignored."""
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, signal.SIG_IGN)
    ipc.connect(name=name)
    while True:
        time.sleep(60.0)


def fails() -> None:
    """At once, with an exit code."""
    sys.exit(7)


def leaves_orphans(folder: str) -> None:
    """Five grandchildren that outlive this process a little, and an exit code."""
    for number in range(5):
        child = os.fork()
        if not child:
            if os.fork():
                os._exit(0)
            Path(folder, f"{os.getpid()}-{number}").touch()
            time.sleep(0.2)
            os._exit(number)
        os.waitpid(child, 0)
    sys.exit(7)
