"""One descriptor in reserve, spent to turn somebody away when no other is free. Knows no connection."""

from __future__ import annotations

import contextlib
import os


class DescriptorReserve:
    """Holds it from the beginning."""

    def __init__(self) -> None:
        self._number = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def spend(self) -> None:
        """Give it away: one descriptor is free now, if it was there."""
        if self._number >= 0:
            os.close(self._number)
            self._number = -1

    def refill(self) -> bool:
        """Take one again; whether it is there."""
        if self._number < 0:
            with contextlib.suppress(OSError):
                self._number = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        return self._number >= 0
