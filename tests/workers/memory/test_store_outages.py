"""What the stores do when the database is away, slow, hung, or cut off in the middle of a commit."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError, OperationalError

from tests.chaos import Chaos, Moment
from tests.servers import Postgres
from tests.workers.memory.shelves import Shelf
from workers.errors import ErasureIncomplete
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation
from workers.memory.store import Store


@pytest.fixture
def remote(postgres: Postgres, postgres_proxy: Chaos) -> Iterator[Callable[..., Shelf]]:
    """Makes stores over PostgreSQL behind the fault proxy, all over one empty database."""
    database = postgres.database()
    made: list[Shelf] = []

    def make(timeout_s: float = 1.0) -> Shelf:
        config = MemoryConfig(
            database_url=postgres.through(postgres_proxy, database), database_timeout_s=timeout_s, pool_size=2
        )
        made.append(Shelf(config))
        return made[-1]

    yield make
    postgres_proxy.heal()
    for each in made:
        each.close()


def said(message: str = "hello") -> Conversation:
    """Something that ann says now."""
    return Conversation.now("ann", message, "hi", ["find"])


def test_down_at_the_start_and_up_later(remote: Callable[..., Shelf], postgres_proxy: Chaos) -> None:
    """A store that was made while nobody listened fails by the call and works as soon as somebody does."""
    postgres_proxy.refuse()
    shelf = remote()
    for _ in range(2):
        with pytest.raises(OperationalError, match="refused"):
            shelf.insert(said())
    postgres_proxy.heal()
    assert shelf.insert(said()) == 1


@pytest.mark.fault("G4")
def test_g4_a_restart_costs_nothing(remote: Callable[..., Shelf], postgres: Postgres) -> None:
    """Idle connections that the server closed are noticed when they are taken, and replaced."""
    shelf = remote()
    shelf.insert(said("before"))
    postgres.restart()
    assert shelf.insert(said("after")) == 1
    assert [one.user_message for one in shelf.history("ann")] == ["after", "before"]


@pytest.mark.fault("G2")
def test_g2_a_frozen_server_costs_its_time_limit(remote: Callable[..., Shelf], postgres: Postgres) -> None:
    """The deadline is kept on this side, the connection is dropped, and no answer is taken for another."""
    shelf = remote()
    shelf.insert(said("before"))
    postgres.freeze()
    began = time.monotonic()
    with pytest.raises(OperationalError, match="in time"):
        shelf.history("ann")
    assert 0.9 < time.monotonic() - began < 2.0
    postgres.thaw()
    assert [one.user_message for one in shelf.history("ann")] == ["before"]


@pytest.mark.fault("G2")
def test_g2_a_black_hole_costs_no_more(remote: Callable[..., Shelf], postgres_proxy: Chaos) -> None:
    """Neither on an open connection nor while connecting does a call take longer than it may."""
    shelf = remote(2.0)
    shelf.insert(said("before"))
    postgres_proxy.black_hole()
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(OperationalError, match="time"):
            shelf.insert(said())
        assert time.monotonic() - began < 3.0
    postgres_proxy.heal()
    assert shelf.history("ann")


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.fault("G5")
def test_g5_cut_in_the_commit(remote: Callable[..., Shelf], postgres_proxy: Chaos, moment: Moment) -> None:
    """Whether it was applied is unknown; the same again makes it one, with one tool, in both cases."""
    shelf = remote()
    shelf.ping()
    one = said()
    postgres_proxy.cut_commit(moment)
    with pytest.raises(OperationalError):
        shelf.insert(one)
    assert postgres_proxy.cuts == 1
    assert shelf.insert(one) == (1 if moment == "before" else 0)
    assert shelf.history("ann") == [one]
    assert [(each.tool, each.used) for each in shelf.tool_statistics()] == [("find", 1)]


@pytest.mark.fault("G3")
def test_g3_slow_is_not_down(remote: Callable[..., Shelf], postgres_proxy: Chaos) -> None:
    """A server that is a hundred times slower than usual still answers within the limit."""
    shelf = remote(5.0)
    shelf.ping()
    postgres_proxy.delay(0.05)
    assert shelf.insert(said()) == 1


def test_a_statement_that_hangs_in_the_server(postgres: Postgres, postgres_url: str) -> None:
    """A lock that somebody holds ends the statement on the server: 57014, and the connection is kept."""
    import psycopg

    store = Store(MemoryConfig(database_url=postgres_url, database_timeout_s=0.5))
    store.ping()
    name = make_url(postgres_url).database
    with psycopg.connect(host=str(postgres.directory), user="postgres", dbname=name) as holder:
        holder.execute("LOCK TABLE memory_conversations IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DBAPIError) as caught:
            store.insert([said()])
        assert getattr(caught.value.orig, "sqlstate", None) == "57014"
        holder.rollback()
    assert store.insert([said()]) == 1
    store.close()


def test_a_locked_file_is_waited_for(sqlite_url: str) -> None:
    """SQLite: a writer waits for another as long as it may, and readers wait for nobody."""
    shelf = Shelf(MemoryConfig(database_url=sqlite_url, database_timeout_s=0.3))
    shelf.insert(said("before"))
    holder = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(OperationalError, match="locked"):
        shelf.insert(said())
    assert 0.2 < time.monotonic() - began < 1.5
    assert len(shelf.history("ann")) == 1
    holder.execute("ROLLBACK")
    holder.close()
    assert shelf.insert(said("after")) == 1
    shelf.close()


def test_a_place_that_cannot_be(tmp_path: Path) -> None:
    """A file where a folder is needed is an error of the call, and its removal heals it."""
    (tmp_path / "folder").write_text("not a folder")
    shelf = Shelf(MemoryConfig(database_url=f"sqlite:///{tmp_path}/folder/memory.db"))
    with pytest.raises(OperationalError, match="unable to open"):
        shelf.insert(said())
    (tmp_path / "folder").unlink()
    assert shelf.insert(said()) == 1
    shelf.close()


def test_inserts_under_way_do_not_outlive_an_erasure(shelf: Shelf) -> None:
    """Many threads insert while the user is erased: nothing said before the erasure is left."""
    config = shelf.config
    shelf.ping()
    stop = threading.Event()
    begun = threading.Barrier(3)

    def talk() -> None:
        with Store(config) as store:
            begun.wait()
            while not stop.is_set():
                store.insert([said("old")])

    threads = [threading.Thread(target=talk) for _ in range(2)]
    for thread in threads:
        thread.start()
    begun.wait()
    for _ in range(3):
        at = datetime.now(UTC)
        with contextlib.suppress(ErasureIncomplete):  # the rows are gone; the log is kept open by the others
            shelf.erase("ann", at)
        assert [one for one in shelf.history("ann", 1000) if one.created_at <= at] == []
    stop.set()
    for thread in threads:
        thread.join()
    assert [one for one in shelf.history("ann", 1000) if one.created_at <= at] == []
    shelf.erase("ann", datetime.now(UTC) + timedelta(seconds=1))
    assert shelf.history("ann") == []
