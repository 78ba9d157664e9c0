"""One breakerd per directory: the lock names its holder, and an orphan never keeps a new one away."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor import lock
from supervisor.descriptors import identity
from supervisor.errors import AlreadyRunning
from supervisor.lock import Holders, Lock


def test_the_second_is_told_the_pid_of_the_first(tmp_path: Path) -> None:
    """At once, because the first is known to live."""
    first = Lock.take(str(tmp_path))
    with pytest.raises(AlreadyRunning) as caught:
        Lock.take(str(tmp_path))
    os.close(first.fd)
    assert caught.value.pid == os.getpid()


def test_a_foreign_holder_is_waited_for_and_then_told(tmp_path: Path) -> None:
    """A5: somebody else's lock, without a text that names anybody: nothing is killed or removed."""
    path = tmp_path / lock.LOCK_NAME
    with path.open("w") as foreign:
        fcntl.flock(foreign, fcntl.LOCK_EX)
        with pytest.raises(AlreadyRunning, match="another process"):
            Lock.take(str(tmp_path))
    assert path.exists()


def test_a_stopped_orphan_that_holds_the_lock_is_ended(tmp_path: Path) -> None:
    """A daemon whose nursery is gone and that does not react is killed, and only that process."""
    fd = os.open(tmp_path / lock.LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=(fd,), stdin=subprocess.PIPE)
    try:
        os.kill(sleeper.pid, signal.SIGSTOP)
        # Its recorded nursery is a process that never was, hence not its parent.
        Lock(fd).write(Holders(2**22 - 1, "1:1", sleeper.pid, identity(sleeper.pid)))
        os.close(fd)
        taken = Lock.take(str(tmp_path))
        assert lock.read(taken.fd) == Holders(os.getpid(), identity(os.getpid()))
        os.close(taken.fd)
        assert sleeper.wait(5.0) == -signal.SIGKILL
    finally:
        sleeper.kill()
        sleeper.communicate()


def test_half_a_text_names_nobody(tmp_path: Path) -> None:
    """A holder that was killed while it wrote."""
    path = tmp_path / "half"
    path.write_text('{"nursery": 12')
    with path.open() as file:
        assert lock.read(file.fileno()) == Holders()


def test_a_daemon_that_cannot_be_named_lives_all_the_same(tmp_path: Path) -> None:
    """On a disk that takes nothing the text from before stays whole."""
    held = Lock.take(str(tmp_path))
    before = lock.read(held.fd)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        held.daemon_started(os.getpid())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert lock.read(held.fd) == before
    held.daemon_started(os.getpid())
    assert lock.read(held.fd).daemon == os.getpid()
    held.write(before)
    assert lock.read(held.fd) == before
    os.close(held.fd)
