"""What moves between two looks of a manager: nothing twice, nothing missing, nobody erased is shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy.exc import OperationalError

from tests.servers import RedisServer
from workers.memory.config import MemoryConfig
from workers.memory.engines import Begin
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import Conversation, Source, ToolCall
from workers.memory.spooled import record_of
from workers.memory.store import Store

T = TypeVar("T")

CALLS = [ToolCall("c", "search", True, 0.5)]
VERBS: dict[str, Callable[[EnhancedMemoryLayerManager], object]] = {
    "tools of one": lambda memory: [(one.used, one.calls) for one in memory.tool_statistics("ann")],
    "tools of all": lambda memory: [(one.used, one.calls) for one in memory.tool_statistics()],
    "export": lambda memory: [json.loads(line)["user_message"] for line in memory.export_user("ann")],
    "history": lambda memory: [one.conversation.user_message for one in memory.history("ann")],
    "search": lambda memory: sorted(
        one.conversation.user_message for one in memory.retrieve_context_safe("word", "ann")
    ),
}
TOLD = {
    "tools of one": [(3, 3)],
    "tools of all": [(3, 3)],
    "export": ["word 1", "word 2", "word 3"],
    "history": ["word 3", "word 2", "word 1"],
    "search": ["word 1", "word 2", "word 3"],
}


class Meanwhile(Store):
    """A real store that lets something happen once, right before or right after it looks."""

    before: Callable[[], object] | None = None
    after: Callable[[], object] | None = None

    def _run(self, how: Begin, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if how is not Begin.READ:
            return super()._run(how, work, *args, **kwargs)
        before, self.before = self.before, None
        if before is not None:
            before()
        found = super()._run(how, work, *args, **kwargs)
        after, self.after = self.after, None
        if after is not None:
            after()
        return found


class Scene:
    """A manager whose replay steps when it is told to, with one conversation stored and two that wait."""

    def __init__(self, config: MemoryConfig) -> None:
        self.store = Meanwhile(config)
        self.manager = EnhancedMemoryLayerManager(config, store=self.store)
        self.backing = self.manager._backing
        self.backing.thread.wake = lambda: None  # type: ignore[method-assign]  # it steps when it is told
        said = [Conversation.now("ann", f"word {n}", "x", ["search"], CALLS) for n in (1, 2, 3)]
        self.store.insert([said[1]])
        self.backing.spool.put(record_of(said[0]), record_of(said[2]))

    def commit(self) -> None:
        """Replay gets as far as the database, and the records still wait."""
        done, self.backing.spool.done = self.backing.spool.done, lambda _records: None  # type: ignore[assignment,method-assign]  # for one step
        try:
            assert self.backing.replayer.step().applied == 2
        finally:
            self.backing.spool.done = done  # type: ignore[method-assign]  # as it was

    def replay(self) -> None:
        """Replay all that waits."""
        assert self.backing.replayer.step().applied == 2
        assert self.backing.spool.next_batch(1) == []


def _fail() -> None:
    raise OperationalError("SELECT 1", {}, ConnectionRefusedError(111, "connection refused"))


@pytest.fixture
def config(tmp_path: Path) -> MemoryConfig:
    """Files of this test alone."""
    return MemoryConfig(
        database_url=f"sqlite:///{tmp_path}/memory.db", spool_directory=str(tmp_path / "spool")
    )


@pytest.fixture
def scene(config: MemoryConfig, unattached: object) -> Iterator[Scene]:
    """A scene without a supervisor."""
    made = Scene(config)
    yield made
    made.manager.close()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("step", ["commit", "replay"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_replay_in_the_middle_of_a_read_neither_doubles_nor_loses(
    scene: Scene, verb: str, step: str, when: str
) -> None:
    """Between the look at the spool and the look at the database, or right after it: each counts once."""
    setattr(scene.store, when, getattr(scene, step))
    assert VERBS[verb](scene.manager) == TOLD[verb]
    assert VERBS[verb](scene.manager) == TOLD[verb]
    assert (scene.store.before, scene.store.after) == (None, None)


def test_another_hosts_page_does_not_hide_what_this_host_stored(
    config: MemoryConfig, valkey: RedisServer, unattached: object
) -> None:
    """One cache for two hosts: the other's page was loaded before, and this host reads its own writes."""
    config = replace(config, cache_url=valkey.url(), cache_timeout_s=2.0)
    there = replace(config, spool_directory=config.spool_directory + "-there")
    with EnhancedMemoryLayerManager(config) as mine, EnhancedMemoryLayerManager(there) as other:
        other.store_conversation("ann", "word 1", "x")
        assert VERBS["history"](other) == ["word 1"]
        mine.store_conversation("ann", "word 2", "x")
        assert VERBS["history"](mine) == ["word 2", "word 1"]
        assert [one.source for one in mine.history("ann")] == [Source.CACHE] * 2


def test_close_lets_go_of_the_epochs(scene: Scene, config: MemoryConfig) -> None:
    """No file of the spool's directory stays in this process's memory."""
    assert config.spool_directory in Path("/proc/self/maps").read_text()
    scene.manager.close()
    assert config.spool_directory not in Path("/proc/self/maps").read_text()


def test_without_shared_epochs_no_cache_shows_what_another_process_erased(
    config: MemoryConfig, unattached: object, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can tell this process of it: so it keeps nothing, and says so."""
    Path(config.spool_directory).mkdir(mode=0o700)
    (Path(config.spool_directory) / "epochs").mkdir()
    store = Meanwhile(config)
    with EnhancedMemoryLayerManager(config, store=store) as mine, EnhancedMemoryLayerManager(config) as other:
        assert "cannot tell each other" in caplog.text
        mine.store_conversation("ann", "word", "x")
        assert [one.source for _ in "12" for one in mine.history("ann")] == [Source.DATABASE] * 2
        assert [one.source for _ in "12" for one in mine.retrieve_context_safe("word", "ann")] == [
            Source.DATABASE
        ] * 2
        assert other.delete_user("ann") == "deleted"
        for verb in ("history", "search"):
            assert VERBS[verb](mine) == []
            store.before = _fail
            assert VERBS[verb](mine) == []
        cache = mine.get_system_health()["memory"]["cache"]
        assert (cache["in_use"], cache["epochs_shared"]) == (False, False)
        assert cache["last_error"].startswith("IsADirectoryError: ")


def test_with_shared_epochs_health_says_that_the_cache_is_in_use(scene: Scene) -> None:
    """The usual case."""
    cache = scene.manager.get_system_health()["memory"]["cache"]
    assert cache == {"in_use": True, "epochs_shared": True, "last_error": ""}


def test_what_was_set_aside_is_tried_again_on_demand(scene: Scene) -> None:
    """`release_quarantine` takes all of it back, says how much, and replay stores it."""
    for record in scene.backing.spool.next_batch(10):
        scene.backing.spool.quarantine(record, "its cause")
    assert scene.manager.get_system_health()["memory"]["spool"]["quarantined"] == 2
    assert scene.manager.release_quarantine() == 2
    assert scene.manager.release_quarantine() == 0
    scene.replay()
    assert VERBS["history"](scene.manager) == TOLD["history"]
