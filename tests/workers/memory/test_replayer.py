"""The replayer as a program: which memory layers it is told of."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.workers.memory.posts import Stage, free, stage
from tests.workers.memory.test_replay import Pretend
from workers.errors import MemoryConfigError
from workers.memory.leases import LEASES, MANAGED
from workers.memory.records import Conversation
from workers.memory.replayer import Crew, Turner, configurations

__all__ = ["stage"]


def test_one_directory_for_two_databases_is_refused(tmp_path: Path) -> None:
    """What waits there does not say where it belongs; the same database twice is one."""
    files = []
    for number, database in enumerate(("one", "two", "one")):
        files.append(str(tmp_path / f"{number}.toml"))
        text = f'[memory]\ndatabase_url = "sqlite:///{tmp_path}/{database}.db"\n'
        Path(files[-1]).write_text(text + f'spool_directory = "{tmp_path}/spool"\n')
    with pytest.raises(MemoryConfigError, match="is given for two databases"):
        configurations(files)
    assert len(configurations([files[0], files[2]])) == 1


def test_without_files_the_environment_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for the application."""
    monkeypatch.setenv("MEMORY_SPOOL_DIRECTORY", str(tmp_path / "spool"))
    assert [one.spool_directory for one in configurations([])] == [str(tmp_path / "spool")]


class Stuck(Pretend):
    """A database whose driver does not come back before it is let go, or that ends the thread."""

    def __init__(self, end: BaseException | None = None) -> None:
        super().__init__()
        self.end = end
        self.asked, self.go = threading.Event(), threading.Event()

    def insert(self, conversations: Sequence[Conversation]) -> int:
        """Wait."""
        self.asked.set()
        if self.end is not None:
            raise self.end
        self.go.wait()
        return super().insert(conversations)


def test_a_driver_that_ignores_its_deadlines_is_noticed(stage: Stage) -> None:
    """A thread that is away for longer than its calls may take is late, and no longer when it is back."""
    stage.orphan("one")
    store = Stuck()
    turner = Turner(dataclasses.replace(stage.layer, store=store), stage.directory, lambda: stage.now)
    assert store.asked.wait(10.0)
    stage.now = turner.limit_s - 1.0
    assert not turner.late()
    stage.now = turner.limit_s + 1.0
    assert turner.late()
    turner.stop()
    store.go.set()
    turner.join(stage.now + 10.0)
    assert (turner.late(), turner.error) == (False, None)
    assert stage.left() == [] or store.order == ["one"]


def test_several_layers_are_emptied_until_a_signal_comes(stage: Stage, tmp_path: Path) -> None:
    """Each into its own database, by its own thread: one that hangs delays no other; SIGTERM ends all."""
    other = Stage(tmp_path / "other")
    stuck, ready = Stuck(), Stuck()
    ready.go.set()
    stage.orphan("one")
    other.orphan("two")
    layers = [dataclasses.replace(each.layer, store=at) for each, at in ((stage, stuck), (other, ready))]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])

    def end() -> None:
        assert stuck.asked.wait(10.0)
        assert ready.asked.wait(10.0)
        stuck.go.set()
        os.kill(os.getpid(), signal.SIGTERM)

    helper = threading.Thread(target=end)
    helper.start()
    try:
        Crew(layers, time.monotonic).work()
    finally:
        helper.join(10.0)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    assert (stuck.order, ready.order) == (["one"], ["two"])
    assert free(*(f"{one.directory}/{name}" for one in (stage, other) for name in (LEASES[0], MANAGED)))


def test_what_ends_a_thread_ends_the_program(stage: Stage) -> None:
    """The nursery starts another one; what waits is still there."""
    stage.orphan("one")
    crew = Crew([dataclasses.replace(stage.layer, store=Stuck(SystemExit(3)))], time.monotonic)
    with pytest.raises(SystemExit):
        crew.work()
    assert len(stage.left()) > 0
