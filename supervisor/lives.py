"""The daemon's lives: each is started by fork and exec, watched, ended if it must be, and followed.

Nothing here waits: a start that is not due yet is a time (`next_time`), so that the nursery serves its
workers meanwhile. A new daemon inherits everything by numbers of descriptors; one message of the old one
that was sent is never lost, because its queue is read after its death.
Neighbours: `nursery` (the only caller), `descriptors` (the channel). Knows no deposit and no worker.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from supervisor import descriptors, package
from supervisor.descriptors import (
    P_BEAT,
    P_NURSERY,
    P_PHASE,
    PHASE_CHECKPOINT,
    PHASE_COPY,
    PHASE_STARTING,
    Inheritance,
)
from supervisor.steps import life_of

log = logging.getLogger("breakerd.nursery")

EXIT_CONFIGURATION: Final = 78
EXIT_FAILED: Final = 71
NEVER: Final = float("inf")

HUNG_S: Final = 10.0
"""A daemon whose heartbeat is older than this is killed."""
STOOD_S: Final = 2.0
"""A loop that has not turned for this long stood still, and perhaps all that it watches with it (a container
that was paused): a heartbeat that is old then says nothing, and has its whole time once more."""
STOP_S: Final = 5.0
"""How long a daemon may take to end when it is asked to."""
FAILURES_MAX: Final = 5
"""Failures of daemons that served, within FAILURE_WINDOW_S, beyond which the nursery gives up (exit 71) where
nothing else depends on it. With starts that fail it has patience for the whole window."""
FAILURE_WINDOW_S: Final = 60.0
FRESH_AFTER: Final = 3
"""Starts that failed with what they had read, after which that is set aside."""
FAULTS: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE})
"""Signals by which a process ends for what it did itself; any other is sent by somebody."""
PACKAGE_QUIET_S: Final = 10.0
"""While the installed files are younger, an upgrade may be under way: a failed start says nothing."""
PAUSE_FIRST_S: Final = 0.1
PAUSE_MAX_S: Final = 60.0
"""The pause before the next start doubles with each failure, from the first to the last of these."""
SHORTAGE_PAUSE_S: Final = 1.0
PATIENCE_MAX: Final = 8
"""So many times HUNG_S may a daemon take to start, if earlier ones were killed because they were slow."""
SHORTAGES: Final = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC)
"""Why no process can be had for a while: no fault of a daemon, and another nursery would fare no better. No
space: semaphores are made in /dev/shm."""
CRASH_VARIABLE: Final = "BREAKERD_CRASH_AT"

Inherit = Callable[[int, int], Inheritance]
"""Makes a new daemon's table from the number of its channel and `Inheritance.fresh`."""
Take = Callable[[bytes, list[int]], None]


@dataclass(slots=True)
class _Life:
    """One life of the daemon."""

    process: subprocess.Popen[bytes]
    pidfd: int
    channel: socket.socket
    ready: bool = False
    asked_at: float = NEVER
    began_at: float = 0.0
    slow: bool = False
    """It was killed because it gave no sign."""


class Lives:
    """Keeps one daemon alive; `code` says when it cannot be."""

    def __init__(
        self, poll: select.poll, inherit: Inherit, take: Take, started: Callable[[int], None]
    ) -> None:
        """`take` gets every message, `started` the pid of every new daemon."""
        self._poll = poll
        self._inherit = inherit
        self._take = take
        self._started = started
        self.pulse_fd = os.memfd_create("breakerd-pulse", os.MFD_CLOEXEC)
        os.ftruncate(self.pulse_fd, mmap.PAGESIZE)
        page = mmap.mmap(self.pulse_fd, mmap.PAGESIZE)
        page.madvise(mmap.MADV_DONTFORK)
        self._pulse = memoryview(page).cast("Q")
        """Written by the daemon alone, and set here before it starts."""
        self.code: int | None = None
        """The exit code with which the nursery has to end: no daemon can be kept alive; None = one can."""
        self.why = ""
        """A sentence about the last end, for people."""
        self._life: _Life | None = None
        self._turned_at = self._woke_at = 0.0
        """The last turn, and the last one after the loop stood still."""
        self._due = 0.0
        self._wanting = ""
        """Why the last start failed, if none has succeeded since."""
        self._failures: deque[float] = deque()
        """When daemons that had served failed."""
        self._failed_loads = {PHASE_CHECKPOINT: 0, PHASE_COPY: 0}
        """Starts that failed with what they had read from there, since one succeeded."""
        self._streak = 0
        """Failures one soon after the other."""
        self._streak_at = 0.0
        """When the first of them was."""
        self._patience = 1
        self._served = False
        """A daemon has served."""
        self.program = sys.executable
        self.package_age_s: Callable[[], float] = lambda: package.age_s(time.time())
        self.keep: Callable[[], bool] = lambda: False
        """Whether something lives here that must outlive any failure of the daemon."""
        self._count = 0

    @property
    def pid(self) -> int:
        """The daemon's pid; 0 = there is none now."""
        return self._life.process.pid if self._life else 0

    @property
    def ready(self) -> bool:
        """True while a daemon serves."""
        return self._life is not None and self._life.ready

    @property
    def asked(self) -> bool:
        """True if the daemon that lives was asked to end."""
        return self._life is not None and self._life.asked_at != NEVER

    def age_s(self, now: float) -> float:
        """How old the daemon's last sign of life is."""
        return now - self._pulse[P_BEAT] / 1e9

    def next_time(self, now: float) -> float:
        """When `turn` has to be called at the latest, s."""
        if self._life is None:
            return self._due if self.code is None else NEVER
        return min(now + HUNG_S / 10.0, self._life.asked_at + STOP_S)

    def served(self) -> None:
        """The daemon says that it serves."""
        if self._life is not None:
            self._life.ready = self._served = True
            self._failed_loads = dict.fromkeys(self._failed_loads, 0)
            self._patience = 1

    def send(self, data: bytes, numbers: tuple[int, ...] = ()) -> bool:
        """One message to the daemon; False = there is none, or its queue is full: nothing was sent."""
        return self._life is not None and descriptors.send(self._life.channel, data, numbers)

    def ask(self, now: float) -> None:
        """Let it end: SIGTERM, and SIGKILL after STOP_S."""
        if self._life is not None and not self.asked:
            self._life.asked_at = now
            self._life.process.terminate()

    def kill(self) -> None:
        """End it now."""
        if self._life is not None:
            self._life.process.kill()

    def turn(self, ready: set[int], now: float) -> None:
        """Serve the channel of the daemon that lives and see whether it still does; start one that is due."""
        self._pulse[P_NURSERY] = int(now * 1e9)
        if now - self._turned_at > STOOD_S:
            self._woke_at = now
        self._turned_at = now
        life = self._life
        if life is not None:
            if life.channel.fileno() in ready and not self._serve(life):
                self._poll.unregister(life.channel)
            if life.pidfd in ready:
                self._bury(life, life.process.wait(), now)
            else:
                self._look(life, now)
        if self._life is None and self.code is None and now >= self._due:
            self._begin(now)

    def _look(self, life: _Life, now: float) -> None:
        """Kill it if it hangs, or takes too long to end."""
        if now - life.asked_at > STOP_S:
            life.process.kill()
            return
        hung_s = HUNG_S if life.ready else HUNG_S * self._patience
        age_s = self.age_s(now)
        if age_s > hung_s and now - self._woke_at > hung_s and not life.slow:
            log.error("the daemon (pid %d) gave no sign for %.1f s: killing it", life.process.pid, age_s)
            life.slow = True
            life.process.kill()

    def _begin(self, now: float) -> None:
        """Start a daemon; where there is no process or no descriptor to be had, later."""
        try:
            self._life = self._spawn()
            self._life.began_at = now
        except OSError as error:
            # What is kept here must outlive that, too.
            text = f"the daemon cannot be started: {error.strerror}"
            if text != self._wanting:
                log.error("%s", text)  # noqa: TRY400 (one line)
            self._wanting = self.why = text
            if error.errno in SHORTAGES:
                self._due = now + SHORTAGE_PAUSE_S
            else:
                self._count_failure(now, served=False)
        else:
            self._wanting = ""

    def _spawn(self) -> _Life:
        """Fork and exec a daemon that inherits everything. Raises OSError, and then there is none."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            try:
                process = self._execute(theirs)
                try:
                    pidfd = os.pidfd_open(process.pid)
                except OSError:
                    process.kill()
                    process.wait()
                    raise
            except OSError:
                ours.close()
                raise
        self._started(process.pid)
        self._poll.register(ours, select.POLLIN)
        self._poll.register(pidfd, select.POLLIN)
        return _Life(process, pidfd, ours)

    def _execute(self, theirs: socket.socket) -> subprocess.Popen[bytes]:
        table = os.memfd_create("breakerd-table", 0)
        try:
            inheritance = self._inherit(theirs.fileno(), self._fresh())
            os.write(table, inheritance.to_json())
            self._pulse[P_BEAT] = time.monotonic_ns()
            self._pulse[P_PHASE] = PHASE_STARTING
            return subprocess.Popen(
                # -P: nothing is imported from the directory in which somebody happens to start this.
                [self.program, "-P", "-m", "supervisor.daemon", str(table)],
                pass_fds=(*inheritance.numbers(), table),
                env=self._surroundings(),
                stdin=subprocess.DEVNULL,
            )
        finally:
            os.close(table)

    def _surroundings(self) -> dict[str, str]:
        """The daemon's environment. The hook is for one life only: the next shows that nothing was lost."""
        self._count += 1
        told = os.environ.get(CRASH_VARIABLE)
        kept = dict(os.environ)
        if told and life_of(told) != self._count:
            del kept[CRASH_VARIABLE]
        return kept

    def _serve(self, life: _Life) -> bool:
        """Take what the daemon sent; False = its end is closed."""
        while (got := descriptors.receive(life.channel)) is not None:
            data, numbers = got
            if not data:
                return False
            self._take(data, numbers)
        return True

    def _bury(self, life: _Life, code: int, now: float) -> None:
        """After the reap nobody can send any more: take every message that is still in the queue."""
        self._serve(life)
        self._poll.unregister(life.pidfd)
        try:
            self._poll.unregister(life.channel)
        except KeyError:
            pass  # its end was closed before
        life.channel.close()
        os.close(life.pidfd)
        self._life = None
        if life.asked_at != NEVER:
            self._due = NEVER
            return
        if code == EXIT_CONFIGURATION and not (self._served or self.keep()):
            self.code = code
            self.why = "the daemon refused its configuration; the log says why"
            return
        log.warning("the daemon (pid %d) ended: %s", life.process.pid, how_ended(code))
        self._due = now
        if life.ready and code in (0, -signal.SIGKILL) and not life.slow:
            self.why = f"the daemon ended ({how_ended(code)}): a new one starts"
            return  # it served and was killed from outside: it is back at once
        if now - life.began_at > FAILURE_WINDOW_S and life.ready:
            self._streak = 0
        if not life.ready:
            self._learn(life, code)
        self._count_failure(now, life.ready)
        self.why = f"the daemon ended ({how_ended(code)}): a new one starts in {self._due - now:.1f} s"

    def _learn(self, life: _Life, code: int) -> None:
        """What a failed start says of the state: nothing, unless it failed by itself with what it read."""
        phase = self._pulse[P_PHASE]
        if life.slow:
            self._patience = min(PATIENCE_MAX, 2 * self._patience)
        if phase == PHASE_COPY:
            self._failed_loads[PHASE_CHECKPOINT] = 0  # it is out of the way
        by_itself = code > 0 or -code in FAULTS
        if phase not in self._failed_loads or not by_itself or life.slow:
            return
        if self.package_age_s() < PACKAGE_QUIET_S:
            log.warning("the installed files of breakerd have just changed: the state is not blamed for this")
            return
        self._failed_loads[phase] += 1

    def _fresh(self) -> int:
        """What the next daemon sets aside."""
        return sum(phase for phase, failed in self._failed_loads.items() if failed >= FRESH_AFTER)

    def _count_failure(self, now: float, served: bool) -> None:
        """One more failure: the next start waits, or there were too many and nothing is here to be kept."""
        if not self._streak:
            self._streak_at = now
        self._streak += 1
        self._due = now + min(PAUSE_MAX_S, PAUSE_FIRST_S * 2 ** min(self._streak - 1, 16))
        if served:
            self._failures.append(now)
        while self._failures and now - self._failures[0] > FAILURE_WINDOW_S:
            self._failures.popleft()
        waited_long = not served and now - self._streak_at > FAILURE_WINDOW_S
        if not (waited_long or len(self._failures) > FAILURES_MAX) or self.keep():
            return
        self.code = EXIT_FAILED
        self.why = "the daemon failed too often; the log says why"
        log.critical("the daemon failed %d times in a row: breakerd gives up", self._streak)


def how_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"  # a real-time signal has no name
