"""Named steps of the crash protocol, at each of which a test can have the process killed.

`BREAKERD_CRASH_AT=committed:3` kills this process with SIGKILL when it passes the step `committed` for
the third time; `adopted:1:2` does so in the second life. Without it a step is one call of an empty function.
Neighbours: `mind`, `hello`, `daemon` pass the steps; the nursery gives the variable to one daemon only.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

Step = Callable[[str], None]


def passes_by(name: str) -> None:
    """Nothing is asked for: go on."""


def life_of(told: str) -> int:
    """Which daemon of the nursery is to be killed, 1 = the first."""
    return _parse(told)[2]


def _parse(told: str) -> tuple[str, int, int]:
    """Step, number of the pass, number of the life."""
    name, passes, life = (*told.split(":"), "1", "1")[:3]
    if not (passes.isdecimal() and life.isdecimal()):
        return "", 0, 0  # no step: what cannot be read asks for nothing
    return name, int(passes), int(life)


def crash_at(told: str | None) -> Step:
    """The function to call at each step; `told` is `step`, `step:n`, `step:n:life` or None."""
    if not told:
        return passes_by
    wanted, left, _ = _parse(told)

    def passed(name: str) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return passed
