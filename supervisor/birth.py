"""The first moments of a managed worker, in the child: what it lets go of, what it gets, and its target.

Runs in a process that the nursery's main thread has forked, with the signals of the nursery blocked. A fork
copies every descriptor, whatever its flags say, so everything but a short list is closed first: an orphan
of a dead nursery must hold neither its lock nor its socket nor anybody's segment. Only then the target is
imported, so that the nursery never runs a line of it.
Who dies when: the nursery at any line below, and this process ends by SIGTERM; this process at any line,
and the nursery reaps it. Neighbours: `ward` (which forks), `ipc.beating`. Knows no policy.
"""

from __future__ import annotations

import functools
import importlib
import logging
import mmap
import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from ipc import beating
from ipc.attachment import NAME_VARIABLE
from ipc.control import SOCKET_VARIABLE
from supervisor.descriptors import die_with_parent
from supervisor.logs import Life
from supervisor.settings_workers import WorkerTable

log = logging.getLogger("breakerd.worker")

EXIT_RAISED: Final = 1
EXIT_ORPHANED: Final = 71
HELD_BACK: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
"""Signals that are blocked around the fork: one that came before the child has let go of the nursery's
wake-up descriptor would be read by the nursery as its own."""
HOOKS: Final = ("BREAKERD_CRASH_AT", "BREAKERD_RAISE_AT")
"""Meant for the daemon alone."""


@dataclass(frozen=True, slots=True)
class Birth:
    """What a child is given, made before the fork."""

    title: str
    table: WorkerTable
    address: str
    """Path of the supervisor's control socket."""
    nursery: int
    """The parent's pid."""
    page: mmap.mmap
    """Where it beats."""
    talk: socket.socket | None
    """Its end of the talk with the daemon; the target's first argument."""
    life: Life
    level: str
    log_format: str


def live(birth: Birth) -> None:
    """The whole life of the child. Ends the process by SystemExit."""
    keep = [*birth.life.descriptors]
    if birth.talk is not None:
        keep.append(birth.talk.fileno())
    parent = multiprocessing.parent_process()
    if parent is not None:
        keep.append(parent.sentinel)
    close_others(keep)
    os.setpgid(0, 0)
    _reset_signals()
    if not die_with_parent(birth.nursery):
        sys.exit(EXIT_ORPHANED)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    birth.life.enter(birth.level, birth.log_format)
    beating.watch(birth.page)
    try:
        _furnish(birth)
        arguments = birth.table.args if birth.talk is None else (birth.talk, *birth.table.args)
        find(birth.table.target)(*arguments)
    except Exception:
        # Whatever the target or its import raised, its traceback goes where its lines go.
        log.exception("%s raised", birth.table.target)
        sys.exit(EXIT_RAISED)


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor above 2 but these."""
    try:
        # Not the limit on descriptors: it may have been lowered after higher ones were opened.
        end = max(map(int, os.listdir("/proc/self/fd"))) + 1
    except OSError:
        end = os.sysconf("SC_OPEN_MAX")
    low = 3
    for number in sorted(keep):
        os.closerange(low, number)
        low = max(low, number + 1)
    os.closerange(low, end)


def find(target: str) -> Any:
    """What "package.module:name.name" names. Raises whatever its import raises."""
    module, _, path = target.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def _reset_signals() -> None:
    """As in a process that was just started. The nursery's wake-up descriptor is closed already."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _furnish(birth: Birth) -> None:
    """Name, environment and directory. Raises OSError where the directory cannot be entered."""
    sys.argv[:] = [birth.title]
    try:
        with open("/proc/self/comm", "w", encoding="ascii") as file:
            file.write(birth.title[:15])
    except OSError:
        pass  # only for those who look at `ps`
    for name in HOOKS:
        os.environ.pop(name, None)
    os.environ[SOCKET_VARIABLE] = birth.address
    os.environ[NAME_VARIABLE] = birth.title
    os.environ.update(birth.table.environment)
    if birth.table.directory:
        os.chdir(birth.table.directory)
        sys.path.insert(0, birth.table.directory)
