"""Tells one process from every other one: its user, its pid, and the clock tick at which it began.

The kernel gives a pid away again when its process is gone, but never twice within one tick. From Linux 6.9 on
the inode of a pidfd would be enough. Before that all pidfds share one inode, so it is only one more check.
In another PID namespace the kernel shows pid 0 and hides the tick: the user and the inode are left then.
Neighbours: `hello` and `control_server` (who asks), `start` and `figures` (which process is meant).
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from supervisor.descriptors import stat_of

TICK_S: Final = 0.02
"""How much later than its birth a process may seem to have begun: the kernel counts in ticks."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process as the kernel reports it."""

    uid: int
    pid: int
    """0 = in another PID namespace."""
    tick: int
    """When it began, in clock ticks since boot; 0 = not known."""
    inode: int
    """Of its pidfd."""

    def is_process_of(self, about: Mapping[str, Any]) -> bool:
        """Whether this is the process of an attachment that was told to the nursery as `about`."""
        told = about.get("tick", 0)
        return (
            self.pid == about.get("pid")
            and may_be_user(self.pid, about.get("uid", -1), self.uid)
            and (not self.tick or not told or self.tick == told)
            and (self.pid != 0 or self.inode == about.get("inode", self.inode))
        )


def may_be_user(pid: int, uid: int, now: int) -> bool:
    """Whether the process with this pid that was `uid` may be `now`: itself, or, once root, anybody.

    Servers begin as root and give that up. Nobody else can become another user without another program.
    """
    return uid == now or (uid == 0 and pid != 0)


def start_tick(pid: int) -> int:
    """The clock tick at which a process began; 0 = it is not here to be asked."""
    try:
        return int(stat_of(pid)[19]) if pid > 0 else 0
    except (FileNotFoundError, ProcessLookupError, IndexError, ValueError):
        return 0


def origin(pid: int) -> tuple[float, int]:
    """When a process began, s of CLOCK_MONOTONIC, and its parent. The kernel counts sleep, too.

    Raises OSError and IndexError where there is no such process.
    """
    fields = stat_of(pid)
    slept = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") - slept, int(fields[1])


def has_run_since(pid: int, then: float) -> bool:
    """Whether the process that has this pid now had begun by `then`, s of CLOCK_MONOTONIC.

    A pid has one process at a time, so whoever had this pid `then` is the same process.
    """
    try:
        return origin(pid)[0] <= then + TICK_S
    except (OSError, IndexError, ValueError):
        return False
