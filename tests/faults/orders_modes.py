"""Orders that tell who decides for this worker: the supervisor, or it alone.

Neighbours: `crew` (who obeys).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ipc.process import default_client

if TYPE_CHECKING:
    from tests.faults.crew import Crew

LOOK_S: Final = 0.002


_changes: Final[list[tuple[bool, float]]] = []


def watch_mode(crew: Crew) -> dict[str, Any]:
    """From now on note whenever it changes who decides."""
    link = default_client().link

    def look() -> None:
        before = link.local
        while True:
            now = link.local
            if now is not before:
                before = now
                _changes.append((now, time.monotonic()))
            time.sleep(LOOK_S)

    threading.Thread(target=look, daemon=True).start()
    return {"local": link.local}


def mode(crew: Crew) -> dict[str, Any]:
    """Whether this process decides alone, and each change that was noted: to what, and when (s)."""
    return {"local": default_client().link.local, "changes": list(_changes)}


ORDERS: Final[dict[str, Callable[..., dict[str, Any]]]] = {"watch_mode": watch_mode, "mode": mode}
