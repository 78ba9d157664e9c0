"""What an idle daemon with 64 attached idle workers costs: CPU and memory. Neighbour: `supervised`."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import Final

import ipc
from benchmarks.figures import Figure, main
from benchmarks.supervised import Supervisor, cpu_s, end, forked, rss_mb, supervisor

WORKERS: Final = 64
SETTLE_S: Final = 2.0
WATCH_S: Final = 10.0
ATTACH_S: Final = 30.0
CPU_TARGET: Final = 0.01
MEMORY_TARGET_MB: Final = 60.0


def idle_worker(socket: str, until: int) -> None:
    """Attach, make one call, then do nothing until the pipe `until` closes."""
    ipc.connect(socket, name="idle")
    breaker = ipc.CircuitBreaker("database")
    breaker.call(int)
    os.read(until, 1)


def attached(running: Supervisor) -> int:
    """How many workers the supervisor sees."""
    return len(running.ask("workers")["workers"])


def measure() -> list[Figure]:
    """Two rows: share of one core, and memory."""
    reading, writing = os.pipe()
    with supervisor() as running:
        pids = [forked(partial(idle_worker, running.socket, reading)) for _ in range(WORKERS)]
        try:
            deadline = time.monotonic() + ATTACH_S
            while (seen := attached(running)) < WORKERS:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"only {seen} of {WORKERS} workers attached")
                time.sleep(0.1)
            time.sleep(SETTLE_S)
            before, nursery_before, began = cpu_s(running.daemon), cpu_s(running.nursery), time.monotonic()
            time.sleep(WATCH_S)
            took = time.monotonic() - began
            share = (cpu_s(running.daemon) - before) / took
            nursery = (cpu_s(running.nursery) - nursery_before) / took
            memory, nursery_memory = rss_mb(running.daemon), rss_mb(running.nursery)
        finally:
            end(pids)
            os.close(reading)
            os.close(writing)
    what = f"idle daemon with {WORKERS} attached idle workers"
    return [
        Figure(
            f"{what}: CPU",
            f"{share:.2%} of one core (nursery {nursery:.2%})",
            f"{share / CPU_TARGET:.2f} x target",
            "<= 1 % of one core",
            share <= CPU_TARGET,
        ),
        Figure(
            f"{what}: memory",
            f"{memory:.0f} MB resident (nursery {nursery_memory:.0f} MB)",
            f"{memory / MEMORY_TARGET_MB:.2f} x target",
            f"<= {MEMORY_TARGET_MB:.0f} MB",
            memory <= MEMORY_TARGET_MB,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(measure))
