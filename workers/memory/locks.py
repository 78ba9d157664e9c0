"""Locks between processes that die with their process and that a forked child never inherits.

POSIX record locks: the kernel drops them when the process ends, however it ends, and a child has none of
them. Their trap (closing any descriptor of the file drops them) is avoided by one descriptor per file and
process, kept in a register; the register is also what threads of one process exclude each other by.
Neighbours: `spool` (who owns a file), `replay` (the lease), `single_flight` (one loader per key).
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from typing import Final

from workers.memory import forking

try:
    import fcntl
except ImportError:
    raise ImportError(
        f"the memory layer needs record locks of POSIX: it runs on Linux and macOS, and not on {sys.platform}"
    ) from None


class _Held:
    """Lock files that this process holds open: their descriptors, by real path."""

    def __init__(self) -> None:
        self.guard = forking.StillLock()
        self.files: dict[str, int] = {}
        self._pid = os.getpid()
        forking.remember(self)

    def before_fork(self) -> None:
        """No other thread is half-way through taking a lock."""
        self.guard.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.guard.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """This is a child: the locks are its parent's, and closing their files here drops none of them."""
        self.guard.after_fork_in_child()
        for number in self.files.values():
            _close(number)
        self.files, self._pid = {}, os.getpid()

    def look(self) -> None:
        """Notice a fork that told nobody (a fork in C)."""
        if self._pid != os.getpid():
            self.after_fork_in_child()


def _close(number: int) -> None:
    try:
        os.close(number)
    except OSError:
        pass


_held: Final = _Held()


class ProcessLock:
    """An exclusive lock on a file of its own, held by one holder in one process."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)

    def acquire(self, create: bool = True) -> bool:
        """Take it without waiting; False = somebody holds it, in this process or another.

        Raises OSError where the file cannot be opened (FileNotFoundError without `create`).
        """
        _held.look()
        with _held.guard:
            if self.path in _held.files:
                return False
            number = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)
            try:
                fcntl.lockf(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The file may have been removed by its former holder between the two steps.
                alive = os.path.samestat(os.fstat(number), os.stat(self.path))
            except OSError as error:
                os.close(number)
                if isinstance(error, BlockingIOError | PermissionError | FileNotFoundError):
                    return False
                raise
            if not alive:
                os.close(number)
                return False
            _held.files[self.path] = number
            return True

    @property
    def held(self) -> bool:
        """Whether a holder in this process has it."""
        _held.look()
        return self.path in _held.files

    @property
    def stands(self) -> bool:
        """Whether a holder here has it, and its file still has the name by which others see it."""
        _held.look()
        with _held.guard:
            number = _held.files.get(self.path)
            try:
                return number is not None and os.path.samestat(os.fstat(number), os.stat(self.path))
            except OSError:
                return False

    def elsewhere(self) -> bool:
        """Whether another process has it now, asked without taking it; False for a file that cannot be read.

        The question is a shared lock for an instant: who takes it just then fails, and has to try again.
        """
        _held.look()
        with _held.guard:  # nobody here takes it meanwhile: closing its file would drop it
            if self.path in _held.files:
                return False
            try:
                number = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False
            try:
                fcntl.lockf(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                return True
            except OSError:
                return False
            finally:
                os.close(number)
            return False

    def write(self, data: bytes) -> None:
        """Write to its file, if a holder in this process has it; what the disk does not take is lost."""
        _held.look()
        with _held.guard:
            number = _held.files.get(self.path)
            if number is not None:
                with contextlib.suppress(OSError):
                    os.pwrite(number, data, 0)

    def read(self, size: int) -> bytes:
        """What its holder, or the last one, wrote there; b"" if nothing can be read."""
        _held.look()
        with _held.guard:
            number = _held.files.get(self.path)
            with contextlib.suppress(OSError):
                if number is not None:
                    return os.pread(number, size, 0)
                number = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    return os.pread(number, size, 0)
                finally:
                    os.close(number)
            return b""

    def release(self, remove: bool = False) -> None:
        """Give it back; with `remove` its file goes first, so that nobody waits on a name without a file."""
        _held.look()
        with _held.guard:
            number = _held.files.pop(self.path, None)
            if number is None:
                return
            if remove:
                try:
                    os.unlink(self.path)
                except OSError:
                    pass
            os.close(number)


class KeyLocks:
    """Any number of locks in one file: a key is a byte of it, far beyond its end. Between processes only."""

    SPAN: Final = 1 << 60

    def __init__(self, path: str) -> None:
        self._path = os.path.realpath(path)
        self._guard = threading.Lock()
        self._number: int | None = None
        self._pid = os.getpid()
        forking.remember(self)

    def before_fork(self) -> None:
        """Nothing here is half-way for long."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """This is a child: it has no lock."""
        self._guard = threading.Lock()
        if self._number is not None:
            _close(self._number)
        self._number, self._pid = None, os.getpid()

    def acquire(self, key: int) -> bool:
        """Take a key's lock without waiting; False = another process has it.

        Threads of one process do not exclude each other here. Raises OSError where there is no such file.
        """
        fcntl.lockf(self._file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, key % self.SPAN)
        return True

    def try_acquire(self, key: int) -> bool:
        """As `acquire`; a file that cannot be used is no obstacle: True."""
        try:
            return self.acquire(key)
        except (BlockingIOError, PermissionError):
            return False
        except OSError:
            return True

    def release(self, key: int) -> None:
        """Give it back."""
        if self._number is not None and self._pid == os.getpid():
            try:
                fcntl.lockf(self._number, fcntl.LOCK_UN, 1, key % self.SPAN)
            except OSError:
                pass

    def close(self) -> None:
        """Give every lock back."""
        with self._guard:
            number, self._number = self._number, None
        if number is not None and self._pid == os.getpid():
            _close(number)

    def _file(self) -> int:
        if self._pid != os.getpid():
            self.after_fork_in_child()
        with self._guard:
            if self._number is None:
                self._number = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            return self._number
