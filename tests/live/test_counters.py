"""Error metrics are as exact as outcomes: counted in worker processes, added up by a real supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Final

from tests.live.house import House, wait_for

PROGRAM: Final = """
import os, sys
from memory_error_handler import ErrorType, MemoryErrorHandler
handler = MemoryErrorHandler()
handler.logger.disabled = True
for number in range(int(sys.argv[1])):
    handler.handle_database_error(ConnectionError("refused"), "load")
child = os.fork()
if child == 0:
    for _ in range(5):
        handler.handle_cache_error(ConnectionError("refused"), "load")
    assert handler.get_error_metrics()[ErrorType.DATABASE_CONNECTION].error_count == 0
    os._exit(0)
os.waitpid(child, 0)
handler.reset_error_metrics()
print("done", flush=True)
for line in sys.stdin:
    metric = handler.get_error_metrics()[ErrorType.DATABASE_CONNECTION]
    print(metric.error_count, metric.host_count, flush=True)
"""


def start(house: House, errors: int) -> subprocess.Popen[str]:
    """A worker that has that many errors of the database, and a child with 5 of the cache."""
    made = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(errors)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=house.surroundings(),
    )
    assert made.stdout is not None
    assert made.stdout.readline() == "done\n"
    return made


def say(worker: subprocess.Popen[str]) -> list[str]:
    """What the worker's handler knows of DATABASE_CONNECTION: its own count, and the host's."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    return worker.stdout.readline().split()


def counted(house: House) -> dict[str, int]:
    """The supervisor's counters by kind."""
    return {one["kind"]: one["count"] for one in house.ask_patiently("errors")["counters"]}


def test_errors_are_counted_host_wide_over_any_death(house: House) -> None:
    """Two workers with a child each; one worker and the daemon are killed: every error is counted once."""
    wanted = {"DATABASE_CONNECTION": 1030, "CACHE_CONNECTION": 10}
    workers = [start(house, 1000), start(house, 30)]
    try:
        wait_for("all are counted", lambda: counted(house) == wanted, 5.0)
        assert say(workers[1]) == ["0", "1030"]
        os.kill(workers[0].pid, signal.SIGKILL)
        workers[0].wait(10)
        house.wait_reborn(house.kill_daemon())
        wait_for("they are counted after a restart", lambda: counted(house) == wanted, 5.0)
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
