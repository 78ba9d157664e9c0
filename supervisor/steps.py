"""Named steps of the crash protocol, at each of which a test can have the process killed.

`BREAKERD_CRASH_AT=committed:3` kills this process with SIGKILL when it passes the step `committed` for
the third time. Without the variable a step costs one call of an empty function.
Neighbours: `mind`, `hello`, `daemon` pass the steps; the nursery gives the variable to its first daemon only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

Step = Callable[[str], None]


def passes_by(name: str) -> None:
    """Nothing is asked for: go on."""


def crash_at(told: str | None) -> Step:
    """The function to call at each step; `told` is `step:n` or None."""
    if not told:
        return passes_by
    wanted, _, count = told.partition(":")
    left = int(count or 1)

    def passed(name: str) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return passed
