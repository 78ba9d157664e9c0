"""What the daemon has to know about managed processes, kept until there is a daemon that takes it.

Of each process only the newest state waits, and of each prober only the socket of its present life; so
what waits is bounded by their number. A daemon gets all of it after it says that it serves, then each change.
Written by the nursery alone. The daemon dies before it reads: the next one gets everything anew.
Neighbours: `wards` (which notes), `nursery` (which flushes), `descriptors` (the bytes). Knows no policy.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any, Final

from supervisor import descriptors
from supervisor.descriptors import Talk

AGAIN_S: Final = 0.05
"""How soon a daemon whose queue was full is tried again."""
Send = Callable[[bytes, tuple[int, ...]], bool]


class Reports:
    """The states of all processes, and who was told of them."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._serving = False
        self._states: dict[str, dict[str, Any]] = {}
        self._untold: dict[str, dict[str, Any]] = {}
        self._talks: dict[str, tuple[int, socket.socket]] = {}
        """By title: pid of the prober, and the daemon's end of the talk with it."""
        self._known: set[tuple[str, int]] = set()
        """The talks that the present daemon has: title and pid."""

    @property
    def waiting(self) -> bool:
        """True if a daemon that serves has to be told something."""
        return self._serving and bool(self._untold or self._strange())

    def inherited(self) -> tuple[Talk, ...]:
        """A new daemon begins, with these talks; it is told nothing before it serves."""
        self._serving = False
        self._known = {(title, pid) for title, (pid, _) in self._talks.items()}
        return tuple(Talk(title, pid, end.fileno()) for title, (pid, end) in self._talks.items())

    def serving(self) -> None:
        """It serves: it is told everything."""
        self._serving = True
        self._untold = dict(self._states)

    def changed(self, title: str, plain: dict[str, Any]) -> None:
        """A process is in this state."""
        if self._states.get(title) != plain:
            self.note(title, plain)

    def note(self, title: str, plain: dict[str, Any]) -> None:
        """The same, to be told in every case."""
        self._states[title] = self._untold[title] = plain

    def gone(self, title: str) -> None:
        """There is no such process any more."""
        plain = self._states.pop(title, None)
        if plain is not None:
            self._untold[title] = {**plain, "gone": True}

    def talks(self, title: str, pid: int, end: socket.socket) -> None:
        """A prober lives, and this is the daemon's end."""
        self._talks[title] = (pid, end)

    def silent(self, title: str) -> None:
        """It has died; the daemon sees that by itself."""
        talk = self._talks.pop(title, None)
        if talk is not None:
            # A later life may have the same pid, and is another one.
            self._known.discard((title, talk[0]))

    def flush(self) -> None:
        """Tell a daemon that serves what it does not know yet, as far as its queue takes it."""
        if not self._serving:
            return
        for title, pid in self._strange():
            told = json.dumps({"title": title, "pid": pid}).encode()
            if not self._send(descriptors.PROBER + told, (self._talks[title][1].fileno(),)):
                return
            self._known.add((title, pid))
        for title, plain in list(self._untold.items()):
            if not self._send(descriptors.MANAGED + json.dumps(plain).encode(), ()):
                return
            del self._untold[title]

    def _strange(self) -> list[tuple[str, int]]:
        """The talks that the present daemon has not got."""
        return [(title, pid) for title, (pid, _) in self._talks.items() if (title, pid) not in self._known]
