"""Asks by running a program in a process group of its own: 0 is yes. The whole group goes when it ends.

The group is told before it is waited for: the prober kills it when the time is over or it has to end, and
the daemon kills the group that a dead prober had told of. Where nobody is left who was told, the daemon
finds the program by its environment, which names the prober.
Neighbours: `question`, `prober`. Knows no shell.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from functools import partial
from typing import Final

from ipc.vocabulary import PROBER_VARIABLE
from workers.probes.question import Ask, CannotAsk, Passed, ProbeFailed, Question

LINE_BYTES_MAX: Final = 4096
"""Of what it prints, as much is kept; the rest is read and thrown away."""
LEFT_BYTES_MAX: Final = 1 << 20
"""Of what is still in its pipe when it has ended."""
HELD: Final = (signal.SIGALRM, signal.SIGTERM)
RESET: Final = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGHUP)


def prepare(question: Question, tell: Callable[[int], None]) -> Ask:
    """Nothing to be loaded; `tell` says the group to whoever outlives this process."""
    return partial(_run, question.command, tell)


def _run(command: tuple[str, ...], tell: Callable[[int], None]) -> Passed:
    reading, writing = os.pipe()
    pid = code = 0
    try:
        # An alarm or SIGTERM in here would leave a program that nobody knows of.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            pid = _start(command, writing)
            tell(pid)
        finally:
            os.close(writing)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        line = _watch(pid, reading)
    except OSError as error:
        raise CannotAsk(f"{command[0]} cannot be run: {error.strerror}") from error
    finally:
        if pid:
            code = _end(pid)
        os.close(reading)
    if code:
        how = f"exit code {code}" if code > 0 else f"killed by signal {-code}"
        raise ProbeFailed(f"{how}: {line}" if line else how)
    return Passed(line or "exit code 0")


def _start(command: tuple[str, ...], writing: int) -> int:
    """The process that leads a group of its own; posix_spawn returns when it is in it."""
    return os.posix_spawn(
        command[0],
        command,
        {**os.environ, PROBER_VARIABLE: _mark()},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, writing, 1),
            (os.POSIX_SPAWN_DUP2, writing, 2),
        ],
        setpgroup=0,
        setsigmask=(),
        setsigdef=RESET,
    )


def _mark() -> str:
    """What this process is told apart by from a later one with the same pid."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        return f"{os.getpid()}:{file.read().rpartition(')')[2].split()[19]}"


def _watch(pid: int, reading: int) -> str:
    """Wait until it has ended, however long that takes; the first line that it printed."""
    kept = b""
    os.set_blocking(reading, False)
    ended = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(reading, select.POLLIN)
        while ended not in dict(poll.poll()):
            data = os.read(reading, LINE_BYTES_MAX)
            kept = (kept + data)[:LINE_BYTES_MAX]
            if not data:
                poll.unregister(reading)  # it has closed what it could print to
    finally:
        os.close(ended)
    with contextlib.suppress(OSError):
        kept += os.read(reading, LEFT_BYTES_MAX)
    return kept.strip().partition(b"\n")[0][:LINE_BYTES_MAX].decode(errors="replace").strip()


def _end(pid: int) -> int:
    """Kill what is left of the group, then reap its leader: until then no other group has its number."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
