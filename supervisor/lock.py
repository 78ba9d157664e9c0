"""One breakerd per runtime and per state directory: locks, taken by a nursery, inherited by its daemon only.

The lock is a flock on `breakerd.lock`; the file's text names who holds it (for a person, and for the next
nursery). Written by the holder alone, after it has the lock; a reader that meets half a text waits for
the rest. The lock goes when both holders are gone, so there are never two writers of a checkpoint.
A daemon that is stopped does not notice that its nursery died: the next nursery kills exactly that
process, after a second (one that runs, but does not end: after two), if its parent is no longer the recorded
nursery.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import signal
import time
from dataclasses import dataclass
from typing import Final

from supervisor.descriptors import identity, parent_of, state_of
from supervisor.errors import AlreadyRunning, ConfigurationError

log = logging.getLogger("breakerd.lock")

LOCK_NAME: Final = "breakerd.lock"
FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
MODE: Final = 0o600
"""Whoever may read it may lock it, and keep the next supervisor away for ever."""
ORPHAN_GRACE_S: Final = 2.0
"""A daemon whose nursery died has this long to see the managed workers end, 1.5 s at most, and to write its
last checkpoint, before it is killed."""
STOPPED_GRACE_S: Final = 1.0
"""One that is stopped does neither."""
PATIENCE_S: Final = 3.0
"""How long a new nursery waits for a lock whose holder it cannot name or cannot end."""
LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Holders:
    """Who holds the lock, as the file says."""

    nursery: int = 0
    nursery_identity: str = ""
    daemon: int = 0
    daemon_identity: str = ""

    def nursery_lives(self) -> bool:
        """True if the recorded nursery is still that process."""
        return bool(self.nursery) and identity(self.nursery) == self.nursery_identity

    def orphan(self) -> int:
        """The pid of a daemon that lives without its nursery; 0 = there is none."""
        if not self.daemon or identity(self.daemon) != self.daemon_identity:
            return 0
        return 0 if parent_of(self.daemon) == self.nursery else self.daemon


class Lock:
    """The held lock. `fd` is inherited by daemons."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def take(cls, directory: str) -> Lock:
        """Take the lock. Raises AlreadyRunning, which names the holder, after 3 s at most; OSError where
        there can be no lock.
        """
        fd = os.open(os.path.join(directory, LOCK_NAME), FLAGS, MODE)
        began = time.monotonic()
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                try:
                    _wait(fd, time.monotonic() - began)
                except AlreadyRunning as error:
                    os.close(fd)
                    raise AlreadyRunning(error.pid, directory) from None
            except OSError:
                os.close(fd)
                raise
            else:
                lock = cls(fd)
                lock.name_holders(Holders(os.getpid(), identity(os.getpid())))
                return lock

    def write(self, holders: Holders) -> None:
        """Say who holds it; a kill in the middle leaves a text that no reader can parse: 'not known'."""
        text = json.dumps({name: getattr(holders, name) for name in Holders.__slots__}).encode()
        # In this order: where the disk is full, its block is kept, and the text before stays whole.
        os.pwrite(self.fd, text, 0)
        os.ftruncate(self.fd, len(text))

    def daemon_started(self, pid: int) -> None:
        """Record the daemon, so that the next nursery can end it if it is left alone and stopped."""
        me = os.getpid()
        self.name_holders(Holders(me, identity(me), pid, identity(pid)))

    def name_holders(self, holders: Holders) -> None:
        """Say who holds it; where that cannot be written the lock is held all the same, and a stopped orphan
        would only be waited for longer.
        """
        try:
            self.write(holders)
        except OSError as error:
            log.warning("%s does not name who holds it: %s", LOCK_NAME, error.strerror)


def take_first(directory: str) -> Lock:
    """The lock on the runtime directory. Raises AlreadyRunning; ConfigurationError if there can be none."""
    try:
        lock = Lock.take(directory)
    except OSError as error:
        path = os.path.join(directory, LOCK_NAME)
        raise ConfigurationError((f"{path}: cannot be used: {error.strerror}; see who owns it",)) from error
    with contextlib.suppress(OSError):
        os.fchmod(lock.fd, MODE)  # an earlier version let its group read it
    return lock


def take_second(state: str, runtime: str) -> Lock | None:
    """The lock on the state directory: two supervisors must not overwrite one copy. Raises AlreadyRunning.

    None = it is the runtime directory, or there can be none: what is kept there is a copy, and a start does
    not fail for that.
    """
    with contextlib.suppress(OSError):
        if os.path.samefile(state, runtime):
            return None
    try:
        return Lock.take(state)
    except OSError as error:
        log.warning("%s: cannot be locked against a second supervisor: %s", state, error.strerror)
        return None


def _wait(fd: int, waited_s: float) -> None:
    """Between two tries for the lock. Raises AlreadyRunning if waiting longer is of no use."""
    holders = read(fd)
    if holders.nursery_lives():
        raise AlreadyRunning(holders.nursery)
    orphan = holders.orphan()
    if orphan and waited_s > (STOPPED_GRACE_S if state_of(orphan) in ("T", "t") else ORPHAN_GRACE_S):
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)
    if waited_s > PATIENCE_S:
        raise AlreadyRunning(orphan)
    time.sleep(LOOK_S)


def read(fd: int) -> Holders:
    """Who the file says holds the lock; nobody, if it cannot be read."""
    try:
        return Holders(**json.loads(os.pread(fd, 4096, 0)))
    except (ValueError, TypeError):
        return Holders()
