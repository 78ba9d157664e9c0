"""What a prober calls in the tests of reloads: functions that a test holds up and lets go by files.

`BREAKERD_TEST_ROOM` of the supervisor's environment, which its probers have, says in which directory.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

ROOM: Final = "BREAKERD_TEST_ROOM"
PATIENCE_S: Final = 20.0


def _room() -> Path:
    return Path(os.environ[ROOM])


def held() -> bool:
    """Says that it was asked, and passes when it is let go, which lets no other one go."""
    (_room() / "held").touch()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            (_room() / "go").unlink()
            return True
        time.sleep(0.005)
    return False


def fails() -> bool:
    """Says that it was asked, and fails until it may pass."""
    (_room() / "failed").touch()
    return (_room() / "pass").exists()
