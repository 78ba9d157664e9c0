"""Several databases, schemas and applications beside each other: nobody sees or disturbs the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import DBAPIError

from ipc.testing import unattached
from tests.servers import PgBouncer, Postgres, RedisServer, room
from workers.handler import MemoryErrorHandler
from workers.memory.config import MemoryConfig
from workers.memory.engines import Begin
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import Conversation, Source, StoreOutcome
from workers.memory.spool_places import places_of
from workers.memory.store import Store

__all__ = ["unattached"]

pytestmark = pytest.mark.usefixtures("unattached")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where spools are when nothing is said."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def tenants(postgres: Postgres, home: Path) -> Iterator[list[EnhancedMemoryLayerManager]]:
    """Two schemas of one database, one of which has a name that must be quoted."""
    url = postgres.url(postgres.database())
    made = [
        EnhancedMemoryLayerManager(MemoryConfig(database_url=url, schema=schema))
        for schema in ("blue", 'gr"e%en :x')
    ]
    yield made
    for one in made:
        one.close()


def setting(link: Connection, name: str) -> str:
    """What a setting of the server is in this transaction."""
    return str(link.exec_driver_sql(f"SHOW {name}").scalar())


def said(memory: EnhancedMemoryLayerManager) -> list[tuple[str, Source]]:
    """What ada has said, and where it is."""
    return [(one.conversation.user_message, one.source) for one in memory.history("ada")]


def test_schemas_of_one_database(tenants: list[EnhancedMemoryLayerManager]) -> None:
    """Each has its own tables, which come with the first use; every verb stays in its schema."""
    for number, memory in enumerate(tenants):
        assert memory.store_conversation("ada", f"tenant {number}", "x", ["t"]).outcome is StoreOutcome.STORED
    for number, memory in enumerate(tenants):
        assert said(memory) == [(f"tenant {number}", Source.DATABASE)]
        found = memory.retrieve_context_safe("tenant", "ada")
        assert [one.conversation.user_message for one in found] == [f"tenant {number}"]
        assert [one.used for one in memory.tool_statistics()] == [1]
    tenants[0].delete_user("ada")
    assert (said(tenants[0]), len(said(tenants[1]))) == ([], 1)


def test_what_one_tenant_spools_is_not_the_others(tenants: list[EnhancedMemoryLayerManager]) -> None:
    """During an outage neither reads the other's words, and each one's are replayed into its own tables."""
    for memory in tenants:
        memory.store_conversation("ada", "before", "x")
    blue, green = tenants
    assert blue.config.spool_directory != green.config.spool_directory
    assert not set(places_of(blue.config)) & set(places_of(green.config))
    blue._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]  # not yet
    blue._backing.database.force_open()
    assert blue.store_conversation("ada", "a secret", "x").outcome is StoreOutcome.SPOOLED
    assert [text for text, _ in said(green)] == ["before"]
    assert green.store_conversation("ada", "mine", "x").outcome is StoreOutcome.STORED
    blue._backing.database.reset()
    del blue._backing.replayer.take_lease
    assert blue.flush(10.0)
    assert [text for text, _ in said(green)] == ["mine", "before"]
    assert [text for text, _ in said(blue)] == ["a secret", "before"]


def test_applications_that_share_a_cache(postgres: Postgres, valkey: RedisServer, home: Path) -> None:
    """Two databases, two schemas, two prefixes, two files: a page of one is never another's answer."""
    url = postgres.url(postgres.database())
    configs = [
        MemoryConfig(database_url=url, cache_url=valkey.url()),
        MemoryConfig(database_url=url, cache_url=valkey.url(), schema="blue"),
        MemoryConfig(database_url=postgres.url(postgres.database()), cache_url=valkey.url()),
        MemoryConfig(database_url=f"sqlite:///{home}/one.db", cache_url=valkey.url()),
        MemoryConfig(database_url=f"sqlite:///{home}/two.db", cache_url=valkey.url()),
    ]
    configs = [replace(one, soft_age_s=3600.0) for one in configs]
    for number, config in enumerate(configs):
        with EnhancedMemoryLayerManager(config) as memory:
            memory.store_conversation("ada", f"application {number}", "x")
            said(memory)
    for number, config in enumerate(configs):
        with EnhancedMemoryLayerManager(config) as memory:
            assert said(memory) == [(f"application {number}", Source.CACHE)]
    with EnhancedMemoryLayerManager(replace(configs[0], cache_prefix="staging")) as memory:
        assert said(memory) == [("application 0", Source.DATABASE)]


def test_a_dead_database_is_its_own_breaker(home: Path, postgres: Postgres) -> None:
    """Another database of the process, and the application's own breaker `database`, take no notice."""
    own = MemoryErrorHandler().get_circuit_breaker("database")
    dead = MemoryConfig(database_url=f"postgresql://app@/x?host={home}", database_timeout_s=1.0)
    alive = MemoryConfig(database_url=postgres.url(postgres.database()))
    with EnhancedMemoryLayerManager(dead) as broken, EnhancedMemoryLayerManager(alive) as works:
        for _ in range(6):
            assert broken.store_conversation("ada", "hello", "x").outcome is StoreOutcome.SPOOLED
        assert broken.get_system_health()["circuit_breakers"]["database"]["is_open"] is True
        assert works.store_conversation("ada", "hello", "x").outcome is StoreOutcome.STORED
        assert works.get_system_health()["is_healthy"] is True
        assert own.state.is_open is False


def test_one_handler_for_two_databases(home: Path) -> None:
    """The handler has a breaker for each: the first one as `database`, the other under its whole name."""
    handler = MemoryErrorHandler()
    configs = [MemoryConfig(database_url=f"sqlite:///{home}/{name}.db") for name in ("one", "two")]
    made = [EnhancedMemoryLayerManager(one, handler=handler) for one in configs]
    names = [one._backing.database.name for one in made]
    assert names == [one.database_breaker for one in configs]
    assert set(handler.circuit_breakers) == {"database", "cache", names[1]}
    for one in made:
        one.close()


def test_options_are_added_to_and_limits_are_kept(postgres: Postgres, postgres_url: str) -> None:
    """Settings of the URL hold, ours hold beside them, and one that both name is the URL's."""

    def shown(config: MemoryConfig, name: str) -> str:
        with Store(config) as store:
            return store._run(Begin.READ, setting, name)

    plain = MemoryConfig(database_url=postgres_url)
    assert (shown(plain, "statement_timeout"), shown(plain, "search_path")) == ("4500ms", '"$user", public')
    more = f"{'&' if '?' in postgres_url else '?'}options=-cwork_mem%3D5MB%20-cstatement_timeout%3D7s"
    config = MemoryConfig(database_url=postgres_url + more)
    assert [shown(config, one) for one in ("work_mem", "statement_timeout")] == ["5MB", "7s"]
    assert shown(config, "idle_in_transaction_session_timeout") == "5s"


def test_after_a_failover_the_former_primary_is_left(postgres: Postgres, postgres_url: str) -> None:
    """A server that became read-only costs one call: its connections are dropped, not kept for ever."""
    with Store(MemoryConfig(database_url=postgres_url, pool_size=3)) as store:
        store.insert([Conversation.now("ada", "before", "x")])
        name = make_url(postgres_url).database
        where = {"host": str(postgres.directory), "user": "postgres", "dbname": "postgres"}
        admin = psycopg.connect(autocommit=True, **where)  # type: ignore[arg-type]  # strings
        admin.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        with Store(store.config) as late:
            late_error = pytest.raises(DBAPIError, match="read-only")
            with late_error:
                late.insert([Conversation.now("ada", "refused", "x")])
            admin.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
            assert late.insert([Conversation.now("ada", "after", "x")]) == 1
        admin.close()
        assert [one.user_message for one in store.history("ada")] == ["after", "before"]


@pytest.mark.parametrize("schema", ["", "blue"])
def test_behind_pgbouncer_in_transaction_mode(postgres: Postgres, home: Path, schema: str) -> None:
    """More clients than connections, all defaults: all is stored, limits hold for a transaction."""
    with room() as place:
        bouncer = PgBouncer(place, postgres, postgres.database())
        bouncer.start()
        config = MemoryConfig(database_url=bouncer.url(), schema=schema)
        made = [EnhancedMemoryLayerManager(config) for _ in range(2)]

        def talk(number: int) -> set[StoreOutcome]:
            memory = made[number % 2]
            outcomes = set()
            for turn in range(25):
                told = memory.store_conversation(f"user-{number}", f"message {turn}", "x", ["t"])
                outcomes.add(told.outcome)
                newest = memory.history(f"user-{number}", 5)[0]
                assert (newest.conversation.user_message, newest.source) == (
                    f"message {turn}",
                    Source.DATABASE,
                )
            return outcomes

        with ThreadPoolExecutor(6) as threads:
            assert list(threads.map(talk, range(6))) == [{StoreOutcome.STORED}] * 6
        store = made[0]._store
        names = ("statement_timeout", "idle_in_transaction_session_timeout")
        shown = [store._run(Begin.READ, setting, one) for one in names]
        assert shown == ["4500ms", "5s"]
        assert made[0].delete_user("user-1").value == "deleted"
        assert made[1].history("user-1", 30) == []
        with psycopg.connect(bouncer.url()) as stranger:  # of these connections, without our settings
            left = {str(stranger.execute("SHOW statement_timeout").fetchone()) for _ in range(6)}
        assert left == {"('0',)"}
        for one in made:
            one.close()
        bouncer.kill()


def test_a_role_that_may_not_make_schemas(postgres: Postgres, home: Path) -> None:
    """The administrator has made the schema: the tables come into it. Without one, the database says no."""
    database, role = postgres.database(), f"tenant_{os.getpid()}"
    postgres.execute(f"CREATE ROLE {role} LOGIN")
    postgres.execute(f"CREATE SCHEMA blue AUTHORIZATION {role}", database)
    url = postgres.url(database, role)
    with Store(MemoryConfig(database_url=url, schema="blue")) as store:
        assert store.insert([Conversation.now("ada", "hello", "x")]) == 1
    with Store(MemoryConfig(database_url=url, schema="red")) as store:
        for _ in range(2):
            with pytest.raises(DBAPIError, match="permission denied"):
                store.insert([Conversation.now("ada", "hello", "x")])
        postgres.execute(f"CREATE SCHEMA red AUTHORIZATION {role}", database)
        assert store.insert([Conversation.now("ada", "hello", "x")]) == 1
        postgres.execute("DROP SCHEMA red CASCADE", database)
        postgres.execute(f"CREATE SCHEMA red AUTHORIZATION {role}", database)
        with pytest.raises(DBAPIError, match="does not exist"):
            store.history("ada")
        assert store.history("ada") == []


def test_tenants_that_begin_at_the_same_time(postgres: Postgres, home: Path) -> None:
    """Eight stores make four schemas of one database at once."""
    url = postgres.url(postgres.database())
    stores = [
        Store(
            MemoryConfig(database_url=url, schema=f"tenant{number % 4}", database_timeout_s=20.0, pool_size=1)
        )
        for number in range(8)
    ]
    gate = threading.Barrier(len(stores))

    def begin(store: Store) -> int:
        gate.wait(20.0)
        return store.insert([Conversation.now("ada", store.config.schema, "x")])

    with ThreadPoolExecutor(len(stores)) as threads:
        assert list(threads.map(begin, stores)) == [1] * len(stores)
    for store in stores:
        assert [one.user_message for one in store.history("ada")] == [store.config.schema] * 2
        store.close()
