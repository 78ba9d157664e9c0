"""The weather of a dependency that many workers call: one shared word, fine or foul for all at once."""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

FINE: Final = 0
FOUL: Final = 1


class Weather:
    """Set by the test, read by every load that was given its path."""

    def __init__(self, folder: Path, name: str = "weather") -> None:
        self.path = str(folder / name)
        with open(self.path, "x+b") as file:
            file.truncate(mmap.PAGESIZE)
            self._words = memoryview(mmap.mmap(file.fileno(), mmap.PAGESIZE)).cast("Q")

    def turns(self, to: int) -> None:
        """Every call from now on meets this."""
        self._words[0] = to
