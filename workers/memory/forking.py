"""Tells what must not be carried through a fork that one is about to happen, and the child that it is one.

SQLite keeps the state of every open file in the process: a child that inherited it would trust locks that
it does not have. So connections are closed before `os.fork` and opened anew on both sides. A fork in C
tells nobody; whoever cares compares `os.getpid()`. Neighbours: everything here that holds a descriptor.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from typing import Final, Protocol

STILL_S: Final = 1.0
"""How long a fork waits for a thread that is in the middle of something."""


class Forkable(Protocol):
    """Something that a fork must not surprise."""

    def before_fork(self) -> None:
        """The process is about to fork: finish, and hold still until one of the other two."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: this is the child's only thread, and nothing that is held is its own."""


class _All:
    """Who is told of forks, the youngest first: it may wait for what was made before it."""

    def __init__(self) -> None:
        self._members: weakref.WeakKeyDictionary[Forkable, int] = weakref.WeakKeyDictionary()
        self._still: list[list[Forkable]] = []
        """Of each fork under way, those that hold still; more than one only if a hook itself forks."""
        self._turn = threading.RLock()
        """Threads that fork at the same time do so in turn: each must find what it has taken."""
        self._numbers = itertools.count()
        self._hooked = False

    def add(self, one: Forkable) -> None:
        """Tell it of every fork from now on."""
        if not self._hooked and hasattr(os, "register_at_fork"):
            self._hooked = True
            os.register_at_fork(
                before=self.before, after_in_parent=self.in_parent, after_in_child=self.in_child
            )
        self._members[one] = next(self._numbers)

    def before(self) -> None:
        """Those that hold still are remembered: they alone are told to go on."""
        self._turn.acquire()
        members = list(self._members.items())
        still = [one for one, _ in sorted(members, key=lambda item: item[1], reverse=True)]
        self._still.append(still)
        for one in still:
            one.before_fork()

    def in_parent(self) -> None:
        """Go on, in the opposite order."""
        if not self._still:
            return  # the hooks were set while this fork was under way
        for one in reversed(self._still.pop()):
            one.after_fork_in_parent()
        self._turn.release()

    def in_child(self) -> None:
        """Begin anew."""
        still = self._still.pop() if self._still else list(self._members)
        self._still, self._turn = [], threading.RLock()
        for one in still:
            one.after_fork_in_child()


_all: Final = _All()


def remember(one: Forkable) -> None:
    """Tell `one` of every fork of this process."""
    _all.add(one)


class StillLock:
    """A lock that a fork waits for, a bounded time, and that is free in the child."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forking = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()

    def before_fork(self) -> bool:
        """Wait for whoever has it, at most `STILL_S`; False = in vain."""
        self._forking = self._lock.acquire(timeout=STILL_S)
        return self._forking

    def after_fork_in_parent(self) -> None:
        """Free it again, if it was taken."""
        forking, self._forking = self._forking, False
        if forking:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Nobody has it."""
        self._lock = threading.RLock()
        self._forking = False
