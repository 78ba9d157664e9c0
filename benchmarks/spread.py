"""How long a verdict takes: last failure in one process -> first refusal in another.

Four workers call 500 times a second each; a shared byte makes the dependency fail for all of them. The
decisive failure is the one that completes the run (the threshold-th to end); the answer is the first
call that is refused in a process other than the one it happened in.

Between its calls, worker 0 watches `breaker.state` instead of sleeping and calls as soon as it turns: its
figure is the way of the verdict. The others find out at their next call, up to 2 ms later by the rate
alone: reported beside it. Neighbour: `supervised`.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time
from functools import partial
from typing import Final

import ipc
from benchmarks.figures import Figure, main, middle, share
from benchmarks.supervised import Supervisor, end, forked, supervisor
from ipc.errors import ControlError

WORKERS: Final = 4
PERIOD_S: Final = 1.0 / 500.0
THRESHOLD: Final = 5
TRIALS: Final = 200
BUSY_TRIALS: Final = 60
BUSY: Final = 2
SETTLE_S: Final = 2.0
LIMIT_S: Final = 2.0
"""An outage that nobody refused after this long is given up and counted as lost."""
P50_TARGET_S: Final = 200e-6
P99_TARGET_S: Final = 3e-3

DOWN: Final = 0
ROUND: Final = 1
ENDS: Final = 8
"""Where worker n's failure ends (16 of them), their number and its first refusal begin: ENDS + 32 n."""


class Down(ConnectionError):
    """The dependency is down."""


class Board:
    """What the workers and the measuring process share: doubles in anonymous shared memory."""

    def __init__(self) -> None:
        self.cells = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("d")

    def failures(self, worker: int) -> list[float]:
        """When this worker's failures of the current outage ended."""
        at = ENDS + 32 * worker
        return list(self.cells[at : at + int(self.cells[at + 16])])

    def refused(self, worker: int) -> float:
        """When this worker was first refused in the current outage; 0 = not yet."""
        return self.cells[ENDS + 32 * worker + 17]

    def clear(self) -> None:
        """Forget the last outage."""
        for worker in range(WORKERS):
            at = ENDS + 32 * worker
            self.cells[at + 16] = self.cells[at + 17] = 0.0


def work(board: Board, worker: int, socket: str, watches: bool) -> None:
    """Call 500 times a second for ever, and write down failures and the first refusal."""
    ipc.connect(socket, name=f"spread-{worker}")
    breaker = ipc.CircuitBreaker(
        "spread", failure_threshold=THRESHOLD, failure_rate=None, recovery_timeout=3600.0
    )
    cells, clock, at = board.cells, time.monotonic, ENDS + 32 * worker

    @breaker
    def query() -> None:
        if cells[DOWN]:
            raise Down

    state = breaker.state
    due = clock() + random.random() * PERIOD_S
    while True:
        try:
            query()
        except Down:
            count = int(cells[at + 16])
            if count < 16:
                cells[at + count] = clock()
                cells[at + 16] = count + 1.0
        except ipc.CircuitOpenError:
            if not cells[at + 17]:
                cells[at + 17] = clock()
        due += PERIOD_S
        if watches:
            was_open = state.is_open
            while clock() < due and state.is_open == was_open:
                pass
        elif (wait := due - clock()) > 0:
            time.sleep(wait)


def burn() -> None:
    """A CPU-bound worker."""
    while True:
        sum(range(10_000))


def outage(board: Board, running: Supervisor) -> tuple[float | None, float | None] | None:
    """One outage: seconds until the watching and until any other process refused; None = lost."""
    board.clear()
    board.cells[DOWN] = 1.0
    deadline = time.monotonic() + LIMIT_S
    while not all(map(board.refused, range(WORKERS))) and time.monotonic() < deadline:
        time.sleep(0.001)
    board.cells[DOWN] = 0.0
    ends = sorted((end_s, worker) for worker in range(WORKERS) for end_s in board.failures(worker))
    refusals = [board.refused(worker) for worker in range(WORKERS)]
    _reset(running)
    if len(ends) < THRESHOLD or not all(refusals):
        return None
    decisive, culprit = ends[THRESHOLD - 1]
    watched = refusals[0] - decisive if culprit != 0 else None
    natural = min(refusals[worker] for worker in range(1, WORKERS) if worker != culprit) - decisive
    return watched, natural


def _reset(running: Supervisor) -> None:
    """Close the breaker again and let every worker call a few times."""
    deadline = time.monotonic() + LIMIT_S
    while True:
        try:
            running.ask("command", breaker="spread", action="reset", reason="next outage")
            break
        except ControlError:
            if time.monotonic() > deadline:
                raise
    time.sleep(0.010 + random.random() * 0.010)


def series(trials: int, busy: int) -> tuple[list[float], list[float], int]:
    """`trials` outages beside `busy` CPU-bound processes: (watched, natural, lost)."""
    watched: list[float] = []
    natural: list[float] = []
    lost = 0
    board = Board()
    with supervisor() as running:
        pids = [forked(burn) for _ in range(busy)]
        works = [partial(work, board, number, running.socket, number == 0) for number in range(WORKERS)]
        pids += [forked(each) for each in works]
        try:
            time.sleep(SETTLE_S)
            for _ in range(trials):
                seen = outage(board, running)
                lost += seen is None
                if seen is not None:
                    watched += [seen[0]] if seen[0] is not None else []
                    natural += [seen[1]] if seen[1] is not None else []
        finally:
            end(pids)
    return watched, natural, lost


def measure() -> list[Figure]:
    """Three rows: watched, by the next call, and beside CPU-bound workers."""
    watched, natural, lost = series(TRIALS, 0)
    busy, _, busy_lost = series(BUSY_TRIALS, BUSY)
    p50, p99 = middle(watched), share(watched, 0.99)
    return [
        Figure(
            "last failure in one process -> first refusal in another (4 workers x 500 calls/s, idle machine)",
            f"p50 {p50 * 1e6:.0f} us, p99 {p99 * 1e3:.2f} ms (n = {len(watched)}, lost {lost})",
            f"p50 {p50 / P50_TARGET_S:.2f} x, p99 {p99 / P99_TARGET_S:.2f} x target",
            "p50 <= 200 us, p99 <= 3 ms",
            p50 <= P50_TARGET_S and p99 <= P99_TARGET_S,
        ),
        Figure(
            "the same, found out by the next call alone (three others, one call each 2 ms)",
            f"p50 {middle(natural) * 1e6:.0f} us, p99 {share(natural, 0.99) * 1e3:.2f} ms",
            f"{middle(natural) / (PERIOD_S / 3):.2f} x the wait that the call rate alone makes",
            "-",
        ),
        Figure(
            f"the first, beside {BUSY} CPU-bound processes on {os.cpu_count()} cores",
            f"p50 {middle(busy) * 1e6:.0f} us, p99 {share(busy, 0.99) * 1e3:.1f} ms (lost {busy_lost})",
            f"p50 {middle(busy) / p50:.1f} x the idle one",
            "-",
        ),
    ]


if __name__ == "__main__":
    sys.exit(main(measure))
