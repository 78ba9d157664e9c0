"""The manager for event loops: the same promises, awaited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from workers.memory.async_manager import AsyncMemoryLayerManager
from workers.memory.async_store import AsyncStore
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation, Deletion, Source, StoreOutcome, ToolStatistics
from workers.memory.spooled import record_of


class Switched(AsyncStore):
    """A real store whose inserts and reads can be switched off."""

    on = True

    def _refuse(self) -> None:
        if not self.on:
            raise OperationalError("SELECT 1", {}, ConnectionRefusedError(111, "connection refused"))

    async def insert(self, conversations: Sequence[Conversation]) -> int:
        """Insert, or fail."""
        self._refuse()
        return await super().insert(conversations)

    async def erase(self, user_id: str, erased_at: datetime) -> None:
        """Erase, or fail."""
        self._refuse()
        await super().erase(user_id, erased_at)

    async def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Conversation]:
        """Read, or fail."""
        self._refuse()
        return await super().history(user_id, limit, before)


class Meanwhile(AsyncStore):
    """A real store that lets something happen before it looks."""

    meanwhile: Callable[[], object] = int

    async def tool_statistics(
        self, user_id: str | None = None, but_for: Collection[str] = ()
    ) -> list[ToolStatistics]:
        """Count, after what happens meanwhile."""
        await asyncio.to_thread(self.meanwhile)
        return await super().tool_statistics(user_id, but_for)


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
    """Nothing said is lost; replay, which has connections of its own, brings it home."""

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
                store.meanwhile = partial(memory._replayed.insert, [waits])
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
