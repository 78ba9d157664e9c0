"""The installed files of breakerd: how long ago they changed. While they do, nothing else is to blame.

An upgrade in place replaces files one after the other, and a daemon that starts meanwhile finds a mixture.
The time of change is the kernel's, so no installer can give files an old one. Neighbours: `lives`.
"""

from __future__ import annotations

import os
from typing import Final

_HERE: Final = os.path.dirname(os.path.abspath(__file__))
FOLDERS: Final = (_HERE, os.path.join(os.path.dirname(_HERE), "ipc"))
"""What a daemon is made of."""


def age_s(now: float, folders: tuple[str, ...] = FOLDERS) -> float:
    """Seconds at `now` (of the wall clock) since a source file changed; 0 = one cannot be looked at."""
    newest = 0.0
    try:
        for folder in folders:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name.endswith(".py"):
                        newest = max(newest, entry.stat().st_ctime)
    except OSError:
        return 0.0
    return now - newest if newest else 0.0
