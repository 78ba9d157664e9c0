"""After a fork both processes go on, each with connections of its own (B4 for pools)."""

from __future__ import annotations

import gc
import os
import threading

import pytest

from tests.ipc.waiting import eventually
from tests.servers import Postgres
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation
from workers.memory.store import Store

MANY = 20


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def config(request: pytest.FixtureRequest) -> MemoryConfig:
    """Of each database."""
    return MemoryConfig(database_url=request.getfixturevalue(request.param), pool_size=3)


def talk(store: Store, times: int) -> None:
    """Store some conversations one by one, and read each."""
    for number in range(times):
        store.insert([one := Conversation.now("ann", f"hello {number}", "hi")])
        assert one in store.history("ann", 1000)


def forked(work: object) -> int:
    """Run the work in a forked child and leave at once; its exit code, 0 = it worked."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()  # type: ignore[operator]  # a function, by the callers below
            code = 0
        finally:
            os._exit(code)
    return child


def waited(child: int) -> int:
    """How the child ended."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.fault("B4")
def test_b4_both_go_on(config: MemoryConfig) -> None:
    """Parent and children store at the same time; every row is there, and the parent's pool still works."""
    with Store(config) as store:
        talk(store, 1)
        children = [forked(lambda: talk(store, MANY)) for _ in range(3)]
        talk(store, MANY)
        assert [waited(child) for child in children] == [0, 0, 0]
        talk(store, 1)
        assert len(store.history("ann", 1000)) == 4 * MANY + 2


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.fault("B4")
def test_b4_forked_while_threads_are_at_it(config: MemoryConfig) -> None:
    """A fork waits for what other threads are in the middle of, and the child is free of it."""
    with Store(config) as store:
        talk(store, 1)
        threads = [threading.Thread(target=talk, args=(store, MANY)) for _ in range(3)]
        for thread in threads:
            thread.start()
        codes = [waited(forked(lambda: talk(store, 2))) for _ in range(4)]
        for thread in threads:
            thread.join()
        assert codes == [0, 0, 0, 0]
        assert len(store.history("ann", 1000)) == 3 * MANY + 8 + 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_store_that_a_child_drops_gives_its_connections_back(postgres: Postgres) -> None:
    """A child goes on with a store of its parent and lets go of it; the parent's connection is still good."""
    database = postgres.database()
    query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
    stores = [Store(MemoryConfig(database_url=postgres.url(database)))]
    talk(stores[0], 1)

    def dropped() -> None:
        talk(stores[0], 1)
        assert postgres.execute(query) == [(2,)]
        stores.clear()
        gc.collect()
        eventually(lambda: postgres.execute(query) == [(1,)])

    assert waited(forked(dropped)) == 0
    talk(stores[0], 1)
    assert len(stores[0].history("ann", 10)) == 3
    stores[0].close()
