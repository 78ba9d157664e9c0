"""Programs that probes have started and whose prober is dead: found by their environment, and killed.

A prober kills its program, and the daemon that of a dead prober, by its group. Nobody is left who knows the
group where both die in one probe, or a prober between starting and telling; but every program has the pid
and the start tick of its prober in its environment, and with it all that it has started, whatever group it
is in by now. Reads /proc and signals by pidfd, so that no pid of another is hit.
Neighbours: `talks` (which calls this in a thread), `workers.probes.program` (which leaves the mark).
"""

from __future__ import annotations

import contextlib
import os
import signal

from ipc.vocabulary import PROBER_VARIABLE
from supervisor.descriptors import stat_of

_MARK = f"{PROBER_VARIABLE}=".encode()


def kill_strays() -> int:
    """Kill every process whose prober has ended; how many."""
    return sum(_kill(int(name)) for name in os.listdir("/proc") if name.isdigit() and _is_stray(int(name)))


def _is_stray(pid: int) -> bool:
    """Whether it was started for a prober that is not there any more."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return False  # gone, or another user's
    mark = next((word for word in words if word.startswith(_MARK)), b"")
    prober, _, tick = mark.removeprefix(_MARK).partition(b":")
    if not prober.isdigit() or start_tick(int(prober)) == tick.decode(errors="replace"):
        return False
    return _is_seen_by_its_own_pid(pid)


def _is_seen_by_its_own_pid(pid: int) -> bool:
    """Whether it lives in our PID namespace: in a container, the pid of its prober is another one here."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid") == os.readlink("/proc/self/ns/pid")
    except OSError:
        return False


def start_tick(pid: int) -> str:
    """When the process was started, in the kernel's ticks; empty = it is not there, or a zombie."""
    try:
        fields = stat_of(pid)
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def _kill(pid: int) -> bool:
    """Kill it, if it is still the one that was looked at."""
    with contextlib.suppress(OSError):
        end = os.pidfd_open(pid)
        try:
            if _is_stray(pid):
                signal.pidfd_send_signal(end, signal.SIGKILL)
                return True
        finally:
            os.close(end)
    return False
