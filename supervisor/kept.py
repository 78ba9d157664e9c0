"""The configuration as the nursery keeps it: the text with which every daemon begins, and who asked for more.

Read once at the start; later a daemon gives it another text, whole and checked, in a memory file. It is
kept only after it was read again here, so a text that this side cannot use changes nothing on either side.
Written and read by the nursery alone. If the daemon dies before its text has come, the old one is kept; if
after, the next daemon begins with the new one. If the nursery dies, the next one reads the file.
Neighbours: `nursery` (the only caller), `reload` (the daemon's side), `settings`.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from supervisor import descriptors
from supervisor.errors import ConfigurationError
from supervisor.places import default_configuration
from supervisor.settings import FILE_MAX, SupervisorSettings, decode, parse


class Kept:
    """The text in force, and what was wrong with the last reload."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        """The path of the configuration file; empty = there is none."""
        self.appeared = default_configuration
        """Finds a first one, which was not there at the start."""
        self.text = text
        self.problem = ""
        """Told by a daemon, kept for the next one; empty = nothing."""

    def take(self, numbers: list[int]) -> SupervisorSettings:
        """Keep the text in that memory file from now on; its settings. Closes the descriptors.

        Raises ConfigurationError, and then the text from before stays.
        """
        try:
            if len(numbers) != 1:
                raise ConfigurationError(("the text of the configuration did not come: no free descriptor",))
            try:
                data = os.pread(numbers[0], FILE_MAX + 1, 0)
            except OSError as error:
                raise ConfigurationError((f"the text of the configuration: {error.strerror}",)) from error
            file = self.file or self.appeared() or ""
            text = decode(data, file)
            settings = parse(text, file)
            self.file, self.text, self.problem = file, text, ""
            return settings
        finally:
            descriptors.close_all(numbers)


class Hangups:
    """SIGHUPs, each of which some daemon shall answer by a reload, whichever of them dies over it."""

    def __init__(self) -> None:
        self._came = 0
        self._done = 0
        self._told = (0, 0)
        """(pid, number) that was said last: each daemon is told once."""

    def came(self) -> None:
        """One more."""
        self._came += 1

    def done(self, number: int) -> None:
        """A reload is over that began after so many."""
        self._done = max(self._done, number)

    def tell(self, pid: int, send: Callable[[bytes], bool]) -> bool:
        """Tell the daemon that serves, if there is something to tell and room for it; True = told now."""
        telling = (pid, self._came)
        if self._came <= self._done or telling == self._told:
            return False
        if not send(descriptors.HANGUP + self._came.to_bytes(8, "big")):
            return False
        self._told = telling
        return True
