"""The thread that replays in an application's own process, while there is something to replay.

It is started when something was spooled or found, and ends when the spool is empty; a fork leaves it with
the parent, and the end of the process waits for its last step, a bounded time. Neighbours: `replay`.
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
from workers.memory.replay import Replayer

WAIT_MAX_S: Final = 1.0
"""The longest wait between two looks."""
FAILED_S: Final = 1.0
JOIN_S: Final = 3.0
"""How long the end of the process, or `close`, waits for a step that is under way."""
POLL_S: Final = 0.02
TEND_S: Final = 1.0
"""How often it looks after the files: its own empty one, and those of dead processes."""

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

    def _run(self) -> None:
        """Step until the spool is empty."""
        spool, tended = self.replayer.spool, float("-inf")
        while not self._stop.is_set():
            self._woken.clear()
            wait_s = FAILED_S
            try:
                wait_s = self.replayer.step().wait_s
                if self._clock() - tended >= TEND_S or not spool.next_batch(1):
                    spool.tend()
                    tended = self._clock()
                if self._idle():
                    return
            except Exception:
                log.exception("a step of replay failed")
            if wait_s > 0.0:
                self._stop.wait(min(WAIT_MAX_S, wait_s))  # whoever puts meanwhile need not wake it
            else:
                self._woken.wait(POLL_S)
        self._over()

    def _idle(self) -> bool:
        """End here if there is nothing left to do; whoever puts now starts another thread."""
        with self._lock:
            if self._woken.is_set() or not self.replayer.spool.is_empty:
                return False
            self._thread = None
        self.replayer.give_lease()
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
            self.wake()
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


_all: Final = _All()
