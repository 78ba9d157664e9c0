"""The process that takes the database away: `python -m workers.demo.outage PARENT DATABASE CUES SECONDS`.

It holds SQLite's exclusive lock, so everybody else's statements fail with a real `database is locked`. It
writes LOCKED_NS once it has the lock and RELEASED_NS once it has let go; if it dies in between, the kernel
drops the lock and the demo sees its exit.
"""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from typing import Final

from workers.demo.leash import tie
from workers.demo.ledger import Cue, Cues

PATIENCE_S: Final = 5.0
"""How long it waits for the lock: the workers hold theirs for milliseconds."""


def main(arguments: list[str]) -> None:
    """Lock the database for a while."""
    parent, path, cues_path, seconds = arguments
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tie(int(parent))
    cues = Cues(cues_path)
    database = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    cues.words[Cue.LOCKED_NS] = time.monotonic_ns()
    time.sleep(float(seconds))
    database.execute("ROLLBACK")
    cues.words[Cue.RELEASED_NS] = time.monotonic_ns()
    database.close()
    cues.close()


if __name__ == "__main__":
    main(sys.argv[1:])
