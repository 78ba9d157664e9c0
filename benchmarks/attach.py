"""A thousand clients at once: 50 processes with 20 `ipc.Client` each, released by one word.

Neighbour: `supervised`. What is asked: all attached within 5 s, none refused.
"""

from __future__ import annotations

import mmap
import sys
import time
from functools import partial
from typing import Final

import ipc
from benchmarks.figures import Figure, main
from benchmarks.supervised import end, forked, supervisor

PROCESSES: Final = 50
CLIENTS: Final = 20
LIMIT_S: Final = 30.0
TARGET_S: Final = 5.0


def work(cells: memoryview[float], number: int, socket: str) -> None:
    """Wait for the word, attach all clients at once, say when, and keep them."""
    cells[1 + 2 * number] = -1.0
    while not cells[0]:
        time.sleep(0.001)
    clients = [ipc.Client(socket, name=f"attach-{number}-{index}") for index in range(CLIENTS)]
    waiting = list(clients)
    while waiting:
        # A first look sends the hello of each, so that all of them are on their way at once.
        waiting = [client for client in waiting if not client.connect(0.001)]
    cells[2 + 2 * number] = time.monotonic()
    time.sleep(3600)


def measure() -> list[Figure]:
    """One row: seconds until the last of a thousand is attached, and how many the supervisor sees."""
    cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")
    with supervisor() as running:
        pids = [forked(partial(work, cells, number, running.socket)) for number in range(PROCESSES)]
        try:
            while not all(cells[1 + 2 * number] for number in range(PROCESSES)):
                time.sleep(0.01)
            time.sleep(0.5)
            began = time.monotonic()
            cells[0] = 1.0
            done: list[float] = []
            while len(done) < PROCESSES and time.monotonic() < began + LIMIT_S:
                time.sleep(0.005)
                done = [cells[2 + 2 * number] for number in range(PROCESSES) if cells[2 + 2 * number]]
            took = max(done, default=began + LIMIT_S) - began
            seen = len(running.ask("workers")["workers"])
        finally:
            end(pids)
    everyone = PROCESSES * CLIENTS
    return [
        Figure(
            f"{everyone:,} clients attaching at once ({PROCESSES} processes x {CLIENTS})",
            f"{took:.2f} s, {seen} attached, {everyone - seen} refused",
            f"{took / TARGET_S:.2f} x target",
            "all attached <= 5 s, none refused",
            took <= TARGET_S and seen == everyone and len(done) == PROCESSES,
        )
    ]


if __name__ == "__main__":
    sys.exit(main(measure))
