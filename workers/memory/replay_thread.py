"""The thread that replays in an application's own process, while there is something to replay.

It is started when something was spooled or found, and ends when nothing waits; where a managed replayer is at
work it gives that one the lease, and sleeps as long as something of this process's own waits: if the other
dies, it goes on. A fork leaves it with the parent, and the end of the process waits for its last step, a
bounded time. Neighbours: `replay`.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Final

from workers.memory import forking
from workers.memory.replay import BACK_OFF_S, Replayer

WAIT_MAX_S: Final = 1.0
"""The longest wait between two looks."""
FAILED_S: Final = 1.0
JOIN_S: Final = 3.0
"""How long the end of the process, or `close`, waits for a step that is under way."""
POLL_S: Final = 0.02
TEND_S: Final = 1.0
"""How often it looks after the files: its own empty one, and those of dead processes."""
ASIDE_S: Final = 2.0
"""How often it looks whether the managed replayer is still there."""

log: Final = logging.getLogger("breakerd.memory.replay")


class ReplayThread:
    """Runs one Replayer. Any thread may wake it."""

    def __init__(self, replayer: Replayer, clock: Callable[[], float] = time.monotonic) -> None:
        self.replayer = replayer
        self._clock = clock
        self._closed = False
        self._begin()
        forking.remember(self)
        _all.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._woken = threading.Event()
        self._stop = threading.Event()
        self._rests_until = self._tends_at = float("-inf")
        self._pid = os.getpid()

    def wake(self) -> None:
        """There is something in the spool."""
        if self._pid != os.getpid():
            self.after_fork_in_child()
        with self._lock:
            if self._closed:
                return
            self._woken.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="breakerd-replay", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError as error:
                    # No thread to be had now: the next put, or another process, will do.
                    self._thread = None
                    log.warning("the replay thread could not be started: %s", error)

    def look(self) -> None:
        """There are files in the spool: wake it, unless it has just found that they are not its business."""
        if self._clock() >= self._rests_until:
            self.wake()

    def _run(self) -> None:
        """Step until nothing waits."""
        while not self._stop.is_set():
            self._woken.clear()
            wait_s, over = FAILED_S, False
            try:
                wait_s, over = self._turn()
            except Exception:
                log.exception("a step of replay failed")
            if over and self._ends():
                return
            if wait_s > 0.0:
                self._stop.wait(wait_s)  # whoever puts meanwhile need not wake it
            else:
                self._woken.wait(POLL_S)
        self._over()

    def _turn(self) -> tuple[float, bool]:
        """One step; how long to wait (0.0: until woken, a moment), and whether nothing is left to do here."""
        replayer, spool = self.replayer, self.replayer.spool
        if replayer.superseded:
            replayer.give_lease()
            self._rests_until = self._clock() + ASIDE_S
            return ASIDE_S, not spool.retire()
        progress = replayer.step()
        wait_s, waits = min(WAIT_MAX_S, progress.wait_s), spool.next_batch(1)
        if self._clock() >= self._tends_at or not waits:
            spool.tend()
            waits = spool.next_batch(1)  # it may have taken over more
            self._tends_at = self._clock() + TEND_S
        if waits and not progress.applied:
            return max(wait_s, BACK_OFF_S), False
        if waits or spool.is_empty:
            return wait_s, not waits
        # Only what was set aside, what cannot be read, and empty files of others who see to them.
        self._rests_until = self._clock() + TEND_S
        return TEND_S, not spool.views.unreadable

    def _ends(self) -> bool:
        """End here; whoever puts now starts another thread. False = somebody did just before."""
        self.replayer.give_lease()
        with self._lock:
            if self._woken.is_set():
                return False
            self._thread = None
        return True

    def _over(self) -> None:
        self.replayer.give_lease()
        with self._lock:
            self._thread = None

    def drain(self, timeout_s: float) -> bool:
        """Wait until nothing waits in the spool; False = it still does."""
        until = self._clock() + timeout_s
        pause = threading.Event()
        while self.replayer.spool.next_batch(1):
            if self._clock() >= until:
                return False
            self.look()
            pause.wait(POLL_S)
        return True

    def close(self) -> None:
        """End the thread after the step that is under way."""
        with self._lock:
            self._closed = True
            thread = self._thread if self._pid == os.getpid() else None
            self._stop.set()
            self._woken.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(JOIN_S)

    def before_fork(self) -> None:
        """Nothing here must be waited for: what the thread is doing waits by itself."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Begin anew: the thread is the parent's."""
        self.replayer.after_fork()
        self._begin()


class _All:
    """Every thread of this process: none may be in the middle of a step when the interpreter goes."""

    def __init__(self) -> None:
        self._members: weakref.WeakSet[ReplayThread] = weakref.WeakSet()
        self._hooked = False

    def add(self, one: ReplayThread) -> None:
        """Close it at exit."""
        if not self._hooked:
            self._hooked = True
            atexit.register(self._at_exit)
        self._members.add(one)

    def _at_exit(self) -> None:
        for one in list(self._members):
            with contextlib.suppress(RuntimeError):
                one.close()
                one.replayer.spool.close()  # 3.13 warns of connections left open


_all: Final = _All()
