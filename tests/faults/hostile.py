"""A hand inside another process's segment: every word of it, to read and to spoil.

The segment is found among the process's descriptors and mapped a second time. Nothing of the library is
asked for but the layout, so that what is spoiled here is spoiled as a stray pointer would.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

from ipc import layout as at

NAME: Final = "/memfd:breakerd-segment"


def segment_descriptors(pid: int) -> list[str]:
    """Paths of the descriptors of the process that are segments."""
    folder = f"/proc/{pid}/fd"
    found: list[str] = []
    for number in os.listdir(folder):
        try:
            target = os.readlink(f"{folder}/{number}")
        except FileNotFoundError:
            continue
        if target.startswith(NAME):
            found.append(f"{folder}/{number}")
    return found


class Inside:
    """The one segment of a worker process, mapped here too."""

    def __init__(self, pid: int) -> None:
        paths = segment_descriptors(pid)
        assert paths, f"process {pid} has no segment open"
        with open(paths[0], "r+b") as file:
            self.words = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        self.layout = at.Layout(self.words[at.W_GEOMETRY] & 0xFFFF_FFFF)

    def slot(self, position: int) -> int:
        """The index of the word of a ring position."""
        return self.layout.ring + (position & (self.layout.slots - 1))

    def published(self) -> list[int]:
        """The rows whose board word the supervisor has written."""
        return [row for row in range(at.ROWS) if self.words[at.W_BOARD + row]]

    @property
    def granted(self) -> int:
        """How far the worker has been granted slots."""
        return self.words[at.W_GRANTED]

    @property
    def committed(self) -> int:
        """How far the supervisor has told the worker that slots are free."""
        return self.words[at.W_COMMITTED]

    @property
    def heartbeat(self) -> int:
        """The supervisor's last sign of life, ns."""
        return self.words[at.W_HEARTBEAT]
