"""The actor that has the checkpoint copied to the state directory: once a second when it changed.

The bytes are taken in the loop, written and fsynced in a thread, and the result comes back as a message:
the loop never waits for a disk. A copy that fails is told by health and tried again with the next one.
Neighbours: `disk` (the file), `journal` (whose bytes), `daemon` (which posts the time).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from supervisor.actor import Stage
from supervisor.disk import DiskCopy
from supervisor.errand import Errand
from supervisor.mind import Mind

log = logging.getLogger("breakerd.disk")

COPY_WAIT_S: Final = 1.0
"""How long the end waits for a copy that is being written."""
RATE_S: Final = 60.0
"""The rate of copying is that of so many seconds."""


@dataclass(frozen=True, slots=True)
class CopyDue:
    """It is time for a copy."""


@dataclass(frozen=True, slots=True)
class CopyDone:
    """A copy ended, well or not."""


class DiskActor:
    """Owns the copy on disk; at most one write is under way."""

    name = "disk"

    def __init__(
        self, disk: DiskCopy, mind: Mind, errand: Errand, clock: Callable[[], float], boot: int
    ) -> None:
        self.stage: Stage
        self.problem = ""
        """Why the last copy failed; empty = it did not."""
        self.failures = 0
        self.took_s: float | None = None
        """How long the last copy took, its fsyncs included; None = there was none yet."""
        self._disk = disk
        self._mind = mind
        self._errand = errand
        self._clock = clock
        self._boot = boot
        self._busy = False
        self._last = b""
        self._written: deque[tuple[float, int]] = deque(((clock(), 0),))
        """When the last copies ended, and the bytes of all copies by then: RATE_S back, and one more."""

    @property
    def bytes_per_s(self) -> float:
        """Bytes that go to the state directory per second, over the last RATE_S."""
        now = self._clock()
        while len(self._written) > 1 and self._written[1][0] <= now - RATE_S:
            self._written.popleft()
        begun, before = self._written[0]
        return (self._disk.written - before) / max(1.0, now - begun)

    def receive(self, message: CopyDue | CopyDone) -> None:
        """One message."""
        if isinstance(message, CopyDone):
            self._busy = False
            self._note()
        elif not self._busy:
            image = self._mind.journal.image()
            if image == self._last and not self.problem:
                return
            self._last = image
            self._busy = True
            saved_at = self._clock()
            try:
                self._errand(lambda: self._save(image, saved_at), self._done)
            except RuntimeError as error:
                # At the limit of processes: nothing ran, and the next copy is due soon.
                self._busy = False
                self._disk.problem = f"{self._disk.path}: no thread can write it: {error}"
                self._note()

    def restart(self) -> None:
        """The next copy is made as if it were the first."""
        self._busy = False
        self._last = b""

    def save_now(self) -> None:
        """At the end: copy in this thread, unless the disk hangs: two must not write one file."""
        if self._errand.idle(COPY_WAIT_S):
            self._disk.save(self._mind.journal.image(), self._boot, self._clock())
        self._note()

    def _save(self, image: bytes, saved_at: float) -> None:
        """In the thread."""
        self._disk.save(image, self._boot, saved_at)
        self.took_s = self._clock() - saved_at

    def _done(self) -> None:
        self.stage.post(self.name, CopyDone())

    def _note(self) -> None:
        """Log a problem when it begins and when it ends, not each second."""
        problem = self._disk.problem
        self._written.append((self._clock(), self._disk.written))
        while len(self._written) > 2 and self._written[1][0] <= self._written[-1][0] - RATE_S:
            self._written.popleft()
        if problem and not self.problem:
            log.error("the copy in the state directory failed: %s", problem)
        if self.problem and not problem:
            log.warning("the copy in the state directory works again")
        self.failures += bool(problem)
        self.problem = problem
