"""A stage for the managed replayer: a directory, a pretend database, dead processes, other users.

Neighbours: the tests of `replay_post` and of what it stands on.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipc import CircuitBreaker
from tests.conftest import could_not_run
from tests.workers.memory.test_replay import Pretend
from workers.classify import counts_as_failure
from workers.memory.cache import LocalCache
from workers.memory.config import MemoryConfig
from workers.memory.leases import MovingLock
from workers.memory.locks import ProcessLock
from workers.memory.records import Conversation
from workers.memory.replay_post import Layer, Post
from workers.memory.spool import Spool
from workers.memory.spooled import record_of

NOBODY = 65534
MIB = 1 << 20


class Stage:
    """A post at a directory that is not there yet, a pretend database, and a clock that is moved."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.folder = folder
        self.directory = str(folder / "spool")
        self.config = MemoryConfig(
            database_url=f"sqlite:///{folder}/memory.db",
            spool_directory=self.directory,
            replay_rate_per_s=1000,
        )
        self.store = Pretend()
        # One that never opens: its open time is on another clock.
        guard = CircuitBreaker(
            "database", failure_threshold=10_000, failure_rate=None, is_failure=counts_as_failure
        )
        self.layer = Layer(self.config, self.store, LocalCache(10), guard)
        self.post = self.another()

    def another(self, directory: str = "") -> Post:
        """One more post at the directory, or at another one of the same layer."""
        return Post(self.layer, directory or self.directory, lambda _step: None, lambda: self.now)

    def turns(self, seconds: float = 3.0, post: Post | None = None) -> None:
        """Turn it as often as it wants to be turned in so many seconds."""
        until = self.now + seconds
        while self.now < until:
            self.now += max(0.01, (post or self.post).turn())

    def orphan(self, *texts: str, directory: str = "") -> None:
        """Something that a process said that was killed afterwards."""

        def put() -> None:
            spool = Spool(directory or self.directory, 64 * MIB)
            spool.put(*(record_of(Conversation.now("ann", text, "x")) for text in texts))
            os.kill(os.getpid(), signal.SIGKILL)

        assert in_child(put) == signal.SIGKILL

    def left(self) -> list[str]:
        """The files of the spool."""
        return [name for name in os.listdir(self.directory) if ".spool" in name]


def in_child(work: Callable[[], object]) -> int:
    """Run `work()` in a forked child that ends with 0 if it returns; its wait status."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitpid(pid, 0)[1]


def free(*names: str) -> bool:
    """Whether another process could take these locks."""

    def take() -> None:
        os._exit(0 if all(ProcessLock(name).acquire() for name in names) else 1)

    return in_child(take) == 0


@contextlib.contextmanager
def holder(*names: str) -> Iterator[None]:
    """Another process that has these locks."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            locks = [MovingLock(name) for name in names]
            if all(one.acquire() for one in locks):
                for one in locks:
                    one.move()
                os.write(tell, b"!")
                signal.pause()
        os._exit(1)
    try:
        os.close(tell)
        assert os.read(told, 1) == b"!"
        yield
    finally:
        os.close(told)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def stage(tmp_path: Path, unattached: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A post that has nothing to look after yet, in a home of its own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    made = Stage(tmp_path)
    yield made
    made.post.close()


def as_nobody(work: Callable[[], object]) -> None:
    """Run it as another user, in a child; AssertionErrors fail here."""
    if os.geteuid() != 0:
        could_not_run("G12", "it needs root to be another user")

    def there() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        work()

    assert in_child(there) == 0


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that every user may enter."""
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    return tmp_path
