"""Programs that use the memory while tests hurt what it stands on: `python -m tests.faults.talkers ORDER`.

ORDER is a JSON object: `play` names one of PLAYS, the rest is the play's. Each program tells what was
acknowledged in a ledger of its own, a line per conversation, written after the acknowledgement and before
the next call: it outlives any death. Neighbours: the fault tests of database, cache and spool.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from ipc import CircuitBreaker
from tests.live.house import ROOT
from workers.classify import counts_as_failure
from workers.handler import MemoryErrorHandler
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import Found
from workers.memory.store import Store

RECOVERY_S: Final = 0.2
"""Breakers of the tests try again soon."""
NUMBERS: Final = itertools.count(1)


def handler(recovery_s: float = RECOVERY_S) -> MemoryErrorHandler:
    """An error handler whose breakers try again soon, and are no other test's."""
    made, number = MemoryErrorHandler(), next(NUMBERS)
    for name in ("database", "cache"):
        made.circuit_breakers[name] = CircuitBreaker(
            f"{name}-{number}", failure_threshold=5, recovery_timeout=recovery_s, is_failure=counts_as_failure
        )
    return made


def memory(config: MemoryConfig, **given: Any) -> EnhancedMemoryLayerManager:
    """A manager with such a handler."""
    return EnhancedMemoryLayerManager(config, handler=handler(), **given)


class Ledger:
    """What a program says it was told, line by line."""

    def __init__(self, path: str) -> None:
        self._number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, *words: str) -> None:
        """One line, in one piece."""
        os.write(self._number, (" ".join(words) + "\n").encode())


def read(paths: list[Path]) -> list[list[str]]:
    """The lines of several ledgers, in words."""
    return [line.split() for path in paths if path.exists() for line in path.read_text().splitlines()]


# --- plays --------------------------------------------------------------------------------------------


def talk(order: dict[str, Any]) -> None:
    """Threads that store until the file `stop` is there, or `times` each; the ledger has outcome and id."""
    ledger, stop = Ledger(order["ledger"]), order.get("stop", "")
    manager = memory(MemoryConfig(**order["config"]))

    def say(thread: int) -> None:
        number = 0
        while number < order.get("times", 1 << 30) and not os.path.exists(stop):
            done = manager.store_conversation(order["user"], f"{thread}-{number}", "x" * 200, ["search"])
            ledger.write(done.outcome.value, done.id or "-", done.reason.replace(" ", "_"))
            number += 1

    threads = [threading.Thread(target=say, args=(one,)) for one in range(order.get("threads", 1))]
    print("begun", flush=True)
    for one in threads:
        one.start()
    if order.get("die"):
        while len(read([Path(order["ledger"])])) < order["die"]:
            time.sleep(0.001)
        os._exit(9)
    if not order.get("leave"):
        for one in threads:
            one.join()
        manager.close()
    # else the interpreter ends with whatever is still going on


def stampede(order: dict[str, Any]) -> None:
    """Threads that want the same page at the same time; the ledger has a line per load."""
    ledger, start = Ledger(order["ledger"]), threading.Barrier(order["threads"] + 1)

    class Counting(Store):
        def search(self, user_id: str, query: str, limit: int = 10) -> list[Found]:
            ledger.write("loaded")
            return super().search(user_id, query, limit)

    config = MemoryConfig(**order["config"])
    manager = memory(config, store=Counting(config))
    manager.retrieve_context_safe("warm", "somebody")
    wrong: list[int] = []

    def want() -> None:
        start.wait()
        if len(manager.retrieve_context_safe(order["query"], order["user"])) != order["expected"]:
            wrong.append(1)

    threads = [threading.Thread(target=want) for _ in range(order["threads"])]
    for one in threads:
        one.start()
    print("begun", flush=True)
    sys.stdin.readline()
    start.wait()
    for one in threads:
        one.join()
    manager.close()
    print(len(wrong), flush=True)


PLAYS: Final[dict[str, Callable[[dict[str, Any]], None]]] = {"talk": talk, "stampede": stampede}


# --- the asking side ----------------------------------------------------------------------------------


@contextlib.contextmanager
def programs(orders: list[dict[str, Any]]) -> Iterator[list[subprocess.Popen[str]]]:
    """One program per order, each of which has begun; what still runs at the end is killed."""
    environment = {**os.environ, "BREAKERD_SOCKET": "off", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.faults.talkers", json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        for order in orders
    ]
    try:
        for one in started:
            assert one.stdout is not None
            assert one.stdout.readline() == "begun\n", one.communicate()[1]
        yield started
    finally:
        for one in started:
            one.kill()
            one.communicate()


def wait_until(what: str, true: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition. Fails with `what` after so many seconds."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.01)


if __name__ == "__main__":
    ORDER = json.loads(sys.argv[1])
    PLAYS[ORDER["play"]](ORDER)
