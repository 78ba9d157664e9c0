"""Eight threads through one breaker around a 5 ms sleep: does the breaker hold a lock during the call?

Ideal is the same threads and sleeps without any breaker. Neighbours: `calls`, which measures one thread.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import circuitbreaker
import interlock
import pybreaker

import ipc
from benchmarks.figures import Figure, main, middle
from benchmarks.supervised import supervisor

THREADS: Final = 8
CALLS: Final = 60
SLEEP_S: Final = 0.005
ROUNDS: Final = 3
TARGET: Final = 1.1


def work() -> None:
    """The dependency: 5 ms of waiting."""
    time.sleep(SLEEP_S)


def elapsed(call: Callable[[], None]) -> float:
    """Seconds that all threads need for all their calls."""
    start = threading.Barrier(THREADS + 1)

    def run() -> None:
        start.wait()
        for _ in range(CALLS):
            call()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.monotonic()
    for thread in threads:
        thread.join()
    return time.monotonic() - began


def measure() -> list[Figure]:
    """One row: ours against ideal, with the others beside it."""
    with supervisor() as running:
        ipc.connect(running.socket, name="threads")
        rivals: dict[str, Callable[[], None]] = {
            "ideal": work,
            "breakerd": ipc.CircuitBreaker("threads")(work),
            "circuitbreaker": circuitbreaker.circuit(work),
            "interlock-cb": interlock.CircuitBreaker(name="threads")(work),
            "pybreaker": pybreaker.CircuitBreaker()(work),
        }
        took: dict[str, list[float]] = {name: [] for name in rivals}
        for number in range(ROUNDS):
            for name, call in rivals.items():
                # pybreaker runs the calls one after the other: once is enough.
                if name != "pybreaker" or number == 0:
                    took[name].append(elapsed(call))
    ideal = middle(took["ideal"])
    ratios = {name: middle(times) / ideal for name, times in took.items()}
    others = ", ".join(f"{name} {ratios[name]:.2f} x" for name in list(rivals)[2:])
    return [
        Figure(
            f"{THREADS} threads through one breaker around a 5 ms sleep",
            f"{middle(took['breakerd']) * 1e3:.0f} ms for {CALLS} calls each",
            f"**{ratios['breakerd']:.2f} x ideal** ({others})",
            f"<= {TARGET} x ideal",
            ratios["breakerd"] <= TARGET,
        )
    ]


if __name__ == "__main__":
    sys.exit(main(measure))
