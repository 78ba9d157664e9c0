"""G11: a replayer that dies at any line; whatever is left of it, the next one makes it one row each."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from types import ModuleType

import pytest

from tests.dying import deaths
from tests.faults.effort import PATIENCE_S, effort
from tests.faults.talkers import handler
from workers.memory import replay, spool_views, store
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation
from workers.memory.replay import Replayer
from workers.memory.spool import Spool
from workers.memory.spooled import record_of
from workers.memory.store import Store

pytestmark = pytest.mark.timeout(PATIENCE_S)


def _filled(folder: Path) -> tuple[MemoryConfig, list[Conversation]]:
    """A spool with five conversations, and a database without any."""
    config = MemoryConfig(database_url=f"sqlite:///{folder}/memory.db", spool_directory=str(folder / "spool"))
    said = [Conversation.now("ann", str(number), "x", ["search"]) for number in range(5)]
    with Store(config) as kept:
        kept.ping()
    _fill(config, said)
    return config, said


def _fill(config: MemoryConfig, said: list[Conversation]) -> None:
    """The same again: into the spool, and out of the database."""
    path = config.database_url.partition("///")[2]
    with contextlib.closing(sqlite3.connect(f"/{path.lstrip('/')}")) as link, link:
        link.execute("PRAGMA foreign_keys = ON")
        link.execute("DELETE FROM memory_search")
        link.execute("DELETE FROM memory_conversations")
    spool = Spool(config.spool_directory, 1 << 30)
    spool.put(*map(record_of, said))
    spool.close()


def _replay(config: MemoryConfig) -> None:
    """Replay what there is, once."""
    guard = handler().get_circuit_breaker("database")
    Replayer(Spool(config.spool_directory, 1 << 30), Store(config), guard, 5000.0).step()


@pytest.mark.fault("G11")
@pytest.mark.fault("S14")
@pytest.mark.parametrize("module", [replay, store, spool_views], ids=lambda one: one.__name__[15:])
def test_g11_a_replayer_that_dies_before_any_line(tmp_path: Path, module: ModuleType) -> None:
    """Dead at every line in turn: nothing is lost, and the next one makes it one row each, in order."""
    config, said = _filled(tmp_path)
    for _ in deaths(module, lambda: config, _replay, every=effort(97 if module is spool_views else 9, 1)):
        _check(config, said)
        _fill(config, said)
    _check(config, said)


def _check(config: MemoryConfig, said: list[Conversation]) -> None:
    spool, kept = Spool(config.spool_directory, 1 << 30), Store(config)
    there = {one.id for one in kept.export("ann")} | {one.id for one in spool.next_batch(10)}
    assert there == {one.id for one in said}
    _replay_here(spool, kept)
    assert list(kept.export("ann")) == said
    assert [one.used for one in kept.tool_statistics()] == [5]
    assert spool.next_batch(1) == []
    spool.close()
    kept.close()


def _replay_here(spool: Spool, kept: Store) -> None:
    replayer = Replayer(spool, kept, handler().get_circuit_breaker("database"), 5000.0)
    replayer.step()
    replayer.give_lease()
