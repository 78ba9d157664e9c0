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
from supervisor.errors import AlreadyRunning, ConfigurationError
from supervisor.lock import Holders, Lock, take_first, take_second


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


def test_whoever_may_not_write_the_lock_cannot_hold_it(tmp_path: Path) -> None:
    """A lock needs no more than a descriptor: the file is its owner's alone, an older one too."""
    path = tmp_path / lock.LOCK_NAME
    path.touch(0o644)
    os.close(take_first(str(tmp_path)).fd)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["link", "directory", "nowhere"])
def test_a_lock_that_cannot_be_is_one_sentence(tmp_path: Path, kind: str) -> None:
    """It names the file; nothing behind a link is touched."""
    folder = tmp_path / "run"
    if kind != "nowhere":
        folder.mkdir()
    if kind == "link":
        (folder / lock.LOCK_NAME).symlink_to(tmp_path / "elsewhere")
    elif kind == "directory":
        (folder / lock.LOCK_NAME).mkdir()
    with pytest.raises(ConfigurationError, match=f"{folder / lock.LOCK_NAME}: cannot be used: "):
        take_first(str(folder))
    assert not (tmp_path / "elsewhere").exists()
    if kind != "nowhere":
        assert take_second(str(folder), str(tmp_path)) is None, "a copy is not worth a start"


def test_a_lock_without_room_for_its_text_is_held(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As on a full disk; the second one waits for it and then cannot name its holder."""
    path = tmp_path / lock.LOCK_NAME
    path.touch()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        held = Lock.take(str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "does not name who holds it" in caplog.text
    with path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(held.fd)


def test_two_supervisors_do_not_share_a_state_directory(tmp_path: Path) -> None:
    """Each has its runtime directory; the second is told which directory it is about."""
    first = take_second(str(tmp_path), str(tmp_path / "one"))
    assert first is not None
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()} holds the lock of {tmp_path}"):
        take_second(str(tmp_path), str(tmp_path / "two"))
    os.close(first.fd)


def test_one_directory_for_both_has_one_lock(tmp_path: Path) -> None:
    """By whatever name it goes: a supervisor does not lock itself out."""
    (tmp_path / "other").symlink_to(tmp_path)
    held = take_first(str(tmp_path))
    assert take_second(str(tmp_path / "other"), str(tmp_path)) is None
    os.close(held.fd)
