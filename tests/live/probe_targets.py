"""Functions that probers of the tests call."""

from __future__ import annotations

import os
import signal
import time

STUCK_FILE = "PROBE_STUCK_FILE"
"""The variable that names the file while which is there `stuck` is stuck."""


def stuck() -> None:
    """Wait like a driver that hangs in C: no alarm gets through."""
    while os.path.exists(os.environ[STUCK_FILE]):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
        time.sleep(60.0)
