"""The manager for event loops: the same promises, awaited."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from tests.ipc.waiting import eventually
from tests.servers import Postgres
from workers.errors import ClosedError
from workers.memory.async_manager import AsyncMemoryLayerManager
from workers.memory.config import MemoryConfig
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import Conversation, Deletion, Source, StoreOutcome, ToolStatistics
from workers.memory.spooled import record_of
from workers.memory.store import Store


class Switched(Store):
    """A real store whose inserts and reads can be switched off."""

    on = True

    def _refuse(self) -> None:
        if not self.on:
            raise OperationalError("SELECT 1", {}, ConnectionRefusedError(111, "connection refused"))

    def insert(self, conversations: Sequence[Conversation]) -> int:
        """Insert, or fail."""
        self._refuse()
        return super().insert(conversations)

    def erase(self, user_id: str, erased_at: datetime) -> None:
        """Erase, or fail."""
        self._refuse()
        super().erase(user_id, erased_at)

    def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Conversation]:
        """Read, or fail."""
        self._refuse()
        return super().history(user_id, limit, before)


class Meanwhile(Store):
    """A real store that lets something happen before it looks."""

    meanwhile: Callable[[], object] = int

    def tool_statistics(
        self, user_id: str | None = None, but_for: Collection[str] = ()
    ) -> list[ToolStatistics]:
        """Count, after what happens meanwhile."""
        self.meanwhile()
        return super().tool_statistics(user_id, but_for)


@pytest.fixture
def config(tmp_path: Path, unattached: object) -> MemoryConfig:
    """Files of this test alone."""
    return MemoryConfig(
        database_url=f"sqlite:///{tmp_path}/memory.db", spool_directory=str(tmp_path / "spool")
    )


def test_the_same_verbs_awaited(config: MemoryConfig) -> None:
    """Store, find, tell, export, count, erase."""

    async def story() -> None:
        async with AsyncMemoryLayerManager(config) as memory:
            assert await memory.store_conversation_safe("ann", "How do errors end?", "well", ["docs"])
            (found,) = await memory.retrieve_context_safe("errors", "ann")
            assert found.conversation.user_message == "How do errors end?"
            assert [one.source for one in await memory.history("ann")] == [Source.DATABASE]
            lines = [json.loads(line) async for line in memory.export_user("ann")]
            assert [one["bot_response"] for one in lines] == ["well"]
            assert [one.tool for one in await memory.tool_statistics("ann")] == ["docs"]
            assert (await memory.get_system_health())["is_healthy"] is True
            assert await memory.delete_user("ann") is Deletion.DELETED
            assert await memory.history("ann") == []

    asyncio.run(story())


@pytest.mark.fault("G1")
def test_g1_in_an_outage_writes_are_spooled_and_reads_merge(config: MemoryConfig) -> None:
    """Nothing said is lost; replay brings it home."""

    async def story() -> None:
        store = Switched(config)
        async with AsyncMemoryLayerManager(config, store=store) as memory:
            await memory.store_conversation("ann", "before", "x")
            await memory.history("ann")
            store.on = False
            memory._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]
            assert (await memory.store_conversation("ann", "during", "x")).outcome is StoreOutcome.SPOOLED
            told = [(one.conversation.user_message, one.source) for one in await memory.history("ann")]
            assert told == [("during", Source.SPOOL), ("before", Source.CACHE)]
            store.on = True
            del memory._backing.replayer.take_lease
            assert await memory.flush(10.0)
            told = [(one.conversation.user_message, one.source) for one in await memory.history("ann")]
            assert told == [("during", Source.DATABASE), ("before", Source.DATABASE)]

    asyncio.run(story())


def test_delete_user_in_an_outage_is_obeyed_at_once_and_completed_later(config: MemoryConfig) -> None:
    """`accepted`: no verb shows the user's words from then on, and afterwards none of them is in a file."""

    async def story() -> None:
        store = Switched(config)
        async with AsyncMemoryLayerManager(config, store=store) as memory:
            await memory.store_conversation("ann", "canary-stored", "x", ["docs"])
            await memory.history("ann")
            memory._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]
            store.on = False
            await memory.store_conversation("ann", "canary-spooled", "x", ["docs"])
            assert await memory.delete_user("ann") is Deletion.ACCEPTED
            assert await memory.history("ann") == []
            store.on = True
            assert await memory.history("ann") == []
            assert await memory.retrieve_context_safe("canary", "ann") == []
            assert await memory.tool_statistics("ann") == []
            assert [line async for line in memory.export_user("ann")] == []
            del memory._backing.replayer.take_lease
            assert await memory.flush(10.0)

    asyncio.run(story())
    folder = Path(config.spool_directory).parent
    assert not [path for path in folder.rglob("*") if path.is_file() and b"canary" in path.read_bytes()]


def test_replay_in_the_middle_of_a_read_neither_doubles_nor_loses(config: MemoryConfig) -> None:
    """What goes from the spool to the database between the two looks counts once."""

    async def story() -> None:
        store = Meanwhile(config)
        async with AsyncMemoryLayerManager(config, store=store) as memory:
            leave = memory._backing.replayer.take_lease
            for number, user in enumerate(("ann", None), 1):
                memory._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]  # not yet
                waits = Conversation.now("ann", "waits", "x", ["docs"])
                memory._backing.spool.put(record_of(waits))
                store.meanwhile = partial(memory._memory._store.insert, [waits])
                assert [one.used for one in await memory.tool_statistics(user)] == [number]
                memory._backing.replayer.take_lease = leave  # type: ignore[method-assign]  # now it may
                assert await memory.flush(10.0)
            assert [one.used for one in await memory.tool_statistics("ann")] == [2]

    asyncio.run(story())


def test_what_was_set_aside_is_tried_again_on_demand(config: MemoryConfig) -> None:
    """`release_quarantine` takes it back, and says how much."""

    async def story() -> None:
        async with AsyncMemoryLayerManager(config) as memory:
            spool = memory._backing.spool
            memory._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]  # it must wait
            spool.put(record_of(Conversation.now("ann", "aside", "x")))
            spool.quarantine(spool.next_batch(1)[0], "its cause")
            assert await memory.release_quarantine() == 1
            assert await memory.release_quarantine() == 0
            del memory._backing.replayer.take_lease
            assert await memory.flush(10.0)
            assert [one.source for one in await memory.history("ann")] == [Source.DATABASE]

    asyncio.run(story())


def test_many_tasks_at_once(config: MemoryConfig) -> None:
    """A hundred stores at once are a hundred conversations."""

    async def story() -> None:
        async with AsyncMemoryLayerManager(config) as memory:
            results = await asyncio.gather(
                *(memory.store_conversation("ann", f"{number}", "x") for number in range(100))
            )
            assert {one.outcome for one in results} <= {StoreOutcome.STORED, StoreOutcome.SPOOLED}
            assert await memory.flush(20.0)
            assert len(await memory.history("ann", 200)) == 100

    asyncio.run(story())


class Hanging(Store):
    """A real store whose inserts hang until `gate` is set, and then fail if `fails`."""

    def __init__(self, config: MemoryConfig) -> None:
        super().__init__(config)
        self.gate, self.began, self.fails = threading.Event(), threading.Event(), False

    def insert(self, conversations: Sequence[Conversation]) -> int:
        """Hang, then insert or fail."""
        self.began.set()
        self.gate.wait(20.0)
        if self.fails:
            raise OperationalError("INSERT", {}, ConnectionResetError(104, "connection reset"))
        return super().insert(conversations)


@pytest.mark.parametrize("fails", [True, False])
def test_who_no_longer_waits_has_said_it_all_the_same(config: MemoryConfig, fails: bool) -> None:
    """`wait_for` times out while the database hangs: by then its words are in the spool, once."""

    async def story() -> None:
        store = Hanging(config)
        store.fails = fails
        memory = AsyncMemoryLayerManager(config, store=store)
        leave = memory._backing.replayer.take_lease
        memory._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]  # not yet
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(memory.store_conversation("kim", "keep this", "x"), 0.2)
        told = [(one.conversation.user_message, one.source) for one in await memory.history("kim")]
        assert told == [("keep this", Source.SPOOL)]
        store.gate.set()
        await asyncio.to_thread(eventually, lambda: not memory._backing._rescued)
        assert (await memory.get_system_health())["memory"]["spool"]["pending"] == 1
        store.fails = False
        memory._backing.replayer.take_lease = leave  # type: ignore[method-assign]
        assert await memory.flush(10.0)
        told = [(one.conversation.user_message, one.source) for one in await memory.history("kim", 7)]
        assert told == [("keep this", Source.DATABASE)]
        await memory.close()

    asyncio.run(story())


def test_calls_that_were_cancelled_in_the_queue_are_kept(config: MemoryConfig) -> None:
    """More calls than threads, all cancelled while the database hangs: each sentence is stored in the end."""

    async def story() -> None:
        store = Hanging(config)
        async with AsyncMemoryLayerManager(config, store=store) as memory:
            calls = [
                asyncio.ensure_future(memory.store_conversation("kim", f"{number}", "x"))
                for number in range(4 * config.pool_size)
            ]
            await asyncio.to_thread(store.began.wait, 10.0)
            for one in calls:
                one.cancel()
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(one) for one in ended} == {asyncio.CancelledError}
            store.gate.set()
            assert await memory.flush(20.0)
            told = {one.conversation.user_message for one in await memory.history("kim", 100)}
            assert told == {f"{number}" for number in range(4 * config.pool_size)}

    asyncio.run(story())


def test_closing_waits_for_what_is_under_way(config: MemoryConfig) -> None:
    """Calls that began before `close` end as if there was none; those that come later are refused."""

    async def story() -> None:
        store = Hanging(config)
        memory = AsyncMemoryLayerManager(config, store=store)
        call = asyncio.ensure_future(memory.store_conversation("kim", "last words", "x"))
        await asyncio.to_thread(store.began.wait, 10.0)
        closing = asyncio.ensure_future(memory.close())
        await asyncio.to_thread(eventually, lambda: memory._backing._refusing)
        with pytest.raises(ClosedError):
            await memory.history("kim")
        store.gate.set()
        await closing
        assert (await call).outcome is StoreOutcome.STORED
        await memory.close()

    asyncio.run(story())


def test_a_cancelled_group_of_readers_ends_at_once(config: MemoryConfig) -> None:
    """Tasks that wait for one loading are all cancelled: none of them goes on waiting."""

    class Slow(Store):
        gate, began = threading.Event(), threading.Event()

        def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Conversation]:
            self.began.set()
            self.gate.wait(20.0)
            return super().history(user_id, limit, before)

    async def story() -> None:
        store = Slow(config)
        async with AsyncMemoryLayerManager(config, store=store) as memory:
            calls = [asyncio.ensure_future(memory.history("kim")) for _ in range(30)]
            await asyncio.to_thread(store.began.wait, 10.0)
            for one in calls:
                one.cancel()
            ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5.0)
            assert {type(one) for one in ended} == {asyncio.CancelledError}
            assert not store.gate.is_set()
            store.gate.set()

    asyncio.run(story())


def test_loop_after_loop_opens_no_more_connections(postgres: Postgres, tmp_path: Path) -> None:
    """`asyncio.run` per call, as scripts and task queues do: the server sees one pool."""
    database = postgres.database()
    config = MemoryConfig(database_url=postgres.url(database), spool_directory=str(tmp_path / "spool"))
    memory = AsyncMemoryLayerManager(config)
    for number in range(15):
        result = asyncio.run(memory.store_conversation("kim", f"{number}", "x"))
        assert result.outcome is StoreOutcome.STORED
    assert connections(postgres, database) <= 2
    asyncio.run(memory.close())


def test_managers_that_are_dropped_give_their_connections_back(postgres: Postgres, tmp_path: Path) -> None:
    """Neither closed nor kept: the server sees none of them, and their threads are gone."""
    database = postgres.database()
    config = MemoryConfig(database_url=postgres.url(database), spool_directory=str(tmp_path / "spool"))
    threads = threading.active_count()

    async def once(number: int) -> None:
        memory = AsyncMemoryLayerManager(config)
        assert await memory.store_conversation_safe("kim", f"{number}", "x")
        assert await memory.get_system_health()

    for number in range(6):
        asyncio.run(once(number))
        EnhancedMemoryLayerManager(config).history("kim")
    gc.collect()
    eventually(lambda: connections(postgres, database) == 0 and threading.active_count() <= threads)


def connections(postgres: Postgres, database: str) -> int:
    """How many the server has to this database."""
    link = psycopg.connect(host=str(postgres.directory), user="postgres", dbname="postgres")
    with link:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        row = link.execute(query, [database]).fetchone()
    link.close()
    assert row is not None
    return int(row[0])


def test_what_is_at_hand_waits_for_no_thread(config: MemoryConfig) -> None:
    """A fresh page in this process is read while every thread hangs, but not past the spool."""

    async def story() -> None:
        store = Hanging(config)
        store.gate.set()
        async with AsyncMemoryLayerManager(config, store=store) as memory:
            await memory.store_conversation("kim", "hello there", "x")
            await memory.history("kim")
            await memory.retrieve_context_safe("hello", "kim")
            store.gate.clear()
            hang = [
                asyncio.ensure_future(memory.store_conversation("lee", "x", "x"))
                for _ in range(4 * config.pool_size)
            ]
            found = await asyncio.wait_for(memory.history("kim"), 5.0)
            found += await asyncio.wait_for(memory.retrieve_context_safe("hello", "kim"), 5.0)
            assert [one.source for one in found] == [Source.CACHE] * 2
            store.gate.set()
            await asyncio.gather(*hang)
            memory._backing.replayer.take_lease = lambda: False  # type: ignore[method-assign]  # not yet
            memory._backing.spool.put(record_of(Conversation.now("kim", "waits", "x")))
            told = [one.conversation.user_message for one in await memory.history("kim")]
            assert told == ["waits", "hello there"]
            del memory._backing.replayer.take_lease

    asyncio.run(story())
