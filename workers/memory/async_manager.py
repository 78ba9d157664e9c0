"""AsyncMemoryLayerManager: the same verbs as `manager`, awaited, on SQLAlchemy's asyncio.

What touches the disk of the spool runs in a thread; replay has its own thread and its own connection, since
it must outlive any event loop. Neighbours: `backing`, `recall`, `manager` (where each verb is described).
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self, cast

from workers.errors import RecordError
from workers.handler import MemoryErrorHandler
from workers.kinds import ErrorType
from workers.memory import recall
from workers.memory.async_store import AsyncStore
from workers.memory.backing import FLUSH_S, Backing
from workers.memory.cache import AsyncCache, AsyncLocalCache, Cache, LocalCache
from workers.memory.codec import Page
from workers.memory.config import MemoryConfig
from workers.memory.epochs import Stamp
from workers.memory.ids import check, utc_now
from workers.memory.recall import Freshness
from workers.memory.records import (
    Conversation,
    Deletion,
    Found,
    StoreOutcome,
    StoreResult,
    ToolCall,
    ToolStatistics,
    to_plain,
)
from workers.memory.redis_cache import RedisCache
from workers.memory.redis_cache_async import AsyncRedisCache
from workers.memory.single_flight import AsyncSingleFlight
from workers.memory.spooled import NOTHING, Spooled, look, waiting
from workers.memory.store import PAGE_ROWS, Store


class AsyncMemoryLayerManager:
    """The memory of one application, for an event loop. See EnhancedMemoryLayerManager for each verb.

    `store` and `cache` replace what the configuration says; replay then still uses the configuration.
    """

    def __init__(
        self,
        config: MemoryConfig | None = None,
        *,
        handler: MemoryErrorHandler | None = None,
        logger: logging.Logger | None = None,
        store: AsyncStore | None = None,
        cache: AsyncCache | None = None,
    ) -> None:
        self.config = config or MemoryConfig()
        self.error_handler = handler or MemoryErrorHandler(logger)
        self._store = store or AsyncStore(self.config)
        self._cache, eraser = _caches(self.config)
        self._cache = cache or self._cache
        self._replayed = Store(self.config)
        self._backing = Backing(self.config, self.error_handler, self._replayed, self._cache.remote)
        self._backing.replayer.cache = eraser
        guard, remote = self._backing.cache, self._cache.remote
        self._insert = self._backing.database(self._store.insert)
        self._get = guard(self._cache.get) if remote else self._cache.get
        self._put = guard(self._cache.put) if remote else self._cache.put
        self._drop = guard(self._cache.drop_user) if remote else self._cache.drop_user
        self._flights: AsyncSingleFlight[list[Found]] = AsyncSingleFlight(
            self._backing.locks if remote else None, self.config.database_timeout_s
        )

    # --- storing --------------------------------------------------------------------------------------

    async def store_conversation_safe(
        self,
        user_id: str,
        user_message: str,
        bot_response: str,
        tools_used: Iterable[str] | None = None,
        tool_calls: Iterable[ToolCall] = (),
    ) -> bool:
        """Store one exchange. True = it is durably kept: in the database, or on this host's disk."""
        stored = await self.store_conversation(user_id, user_message, bot_response, tools_used, tool_calls)
        return stored.outcome is not StoreOutcome.REJECTED

    async def store_conversation(
        self,
        user_id: str,
        user_message: str,
        bot_response: str,
        tools_used: Iterable[str] | None = None,
        tool_calls: Iterable[ToolCall] = (),
    ) -> StoreResult:
        """Store one exchange; where it is now: `stored`, `spooled` or `rejected`, with its id and why."""
        self._backing.check_open()
        try:
            said = Conversation.now(user_id, user_message, bot_response, tools_used or (), tool_calls)
        except RecordError as error:
            return self._backing.invalid(error)
        schedule = None
        while True:
            try:
                return self._backing.stored(said, await self._insert([said]))
            except Exception as error:  # noqa: BLE001 (whatever it was: what was said must not get lost)
                found = self.error_handler.record(error, "store_conversation", ErrorType.MEMORY_STORAGE)
                wait_s = None
                if self._backing.passes(found):
                    schedule = schedule or self._backing.schedule()
                    wait_s = schedule.failed(found)
                if wait_s is None:
                    return await asyncio.to_thread(self._backing.not_stored, said, error, found)
            await self.error_handler.surroundings.sleep_async(wait_s)

    # --- reading --------------------------------------------------------------------------------------

    async def retrieve_context_safe(self, query: str, user_id: str, limit: int = 10) -> list[Found]:
        """What the user and the agents said that fits the query, best first; [] if nothing can be had."""
        self._backing.check_open()
        # The spool first: what leaves it meanwhile is in the database by then.
        spooled = await self._spooled(user_id)
        field = recall.search_field(query, limit)

        async def load() -> list[Found]:
            return await self._store.search(user_id, query, limit)

        found = await self._recall(user_id, field, "retrieve_context", load)
        if found is None:
            page = await self._usable(user_id, recall.LATEST)
            found = recall.search_page(page, query, self._backing.wall()) if page else []
        return found if spooled is NOTHING else recall.merge_search(found, spooled, query, limit)

    async def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Found]:
        """The user's latest conversations, latest first; with `before` (an id) those before it."""
        self._backing.check_open()
        spooled = await self._spooled(user_id)
        field = recall.history_field(limit, check(before))

        async def load() -> list[Found]:
            return recall.plain(await self._store.history(user_id, limit, before))

        found = await self._recall(user_id, field, "history", load)
        if found is None:
            page = await self._usable(user_id, recall.LATEST)
            kept = recall.cached(page, self._backing.wall()) if page else []
            found = [one for one in kept if before is None or one.conversation.id < before]
        return recall.merge_history(found, spooled, limit, before)

    async def tool_statistics(self, user_id: str | None = None) -> list[ToolStatistics]:
        """What each tool did, of one user or of all. Raises what the database raises: half is no answer."""
        self._backing.check_open()
        if user_id is None:
            spooled = await asyncio.to_thread(waiting, self._backing.spool)
        elif (spooled := await self._spooled(user_id)).erased_at is not None:
            return recall.tools_of([one async for one in self._exported(user_id)], spooled)
        # What waits is counted here and left out there: replay may be bringing it over just now.
        kept = [one.id for one in spooled.conversations]
        try:
            done = await self._backing.database.call(self._store.tool_statistics, user_id, kept)
        except Exception as error:
            self.error_handler.handle_tool_analytics_error(error, "tool_statistics")
            raise
        return recall.add_tools(done, spooled.conversations)

    async def export_user(self, user_id: str) -> AsyncIterator[str]:
        """Everything of the user as NDJSON, a line a conversation, oldest first.

        Raises what the database raises, in the middle of it if need be: no end that is none.
        """
        self._backing.check_open()
        spooled = await self._spooled(user_id)
        left = list(spooled.conversations)
        async for one in self._exported(user_id):
            while left and left[0].id <= one.id:
                if (kept := left.pop(0)).id < one.id:
                    yield _line(kept)
            if spooled.shows(one):
                yield _line(one)
        for one in left:
            yield _line(one)

    async def _exported(self, user_id: str) -> AsyncIterator[Conversation]:
        """Pages are what is guarded: a call of the database each."""

        async def page(after: str | None) -> list[Conversation]:
            rows: list[Conversation] = []
            stream = cast("AsyncGenerator[Conversation, None]", self._store.export(user_id, after))
            async with aclosing(stream):
                async for one in stream:
                    rows.append(one)
                    if len(rows) == PAGE_ROWS:
                        break
            return rows

        guarded = self._backing.database(page)
        after = None
        while True:
            try:
                rows = await guarded(after)
            except Exception as error:
                self.error_handler.handle_database_error(error, "export_user")
                raise
            for one in rows:
                yield one
            if not rows:
                return
            after = rows[-1].id

    # --- erasing --------------------------------------------------------------------------------------

    async def delete_user(self, user_id: str) -> Deletion:
        """Erase a user everywhere; `accepted` during an outage, and obeyed by every reader at once."""
        self._backing.check_open()
        at = utc_now()
        try:
            await self._backing.database.call(self._store.erase, user_id, at)
            await asyncio.to_thread(self._backing.erased, user_id, at)
            await self._drop(user_id)
        except Exception as error:  # noqa: BLE001 (whatever it was: the wish must not get lost)
            self.error_handler.handle_memory_storage_error(error, "delete_user")
            if not self._cache.remote:
                await self._cache.drop_user(user_id)
            return await asyncio.to_thread(self._backing.not_erased, user_id, at)
        return Deletion.DELETED

    # --- life -----------------------------------------------------------------------------------------

    async def get_system_health(self) -> dict[str, Any]:
        """`is_healthy`, `error_metrics`, `circuit_breakers`, and `memory`: spool and replay. Dials nobody."""
        return await asyncio.to_thread(self._backing.health)

    async def release_quarantine(self) -> int:
        """Try again what replay has set aside, after its cause was mended; how many records."""
        self._backing.check_open()
        return await asyncio.to_thread(self._backing.release_quarantine)

    async def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until the spool is in the database; False = after so many seconds some of it is not."""
        self._backing.check_open()
        return await asyncio.to_thread(self._backing.flush, timeout_s)

    async def close(self) -> None:
        """Let go of everything. What is in the spool stays, and is replayed by whoever comes next."""
        await asyncio.to_thread(self._backing.close)
        await self._cache.close()
        await self._store.close()
        self._replayed.close()

    async def __aenter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()

    # --- cache and database ---------------------------------------------------------------------------

    async def _recall(
        self, user_id: str, field: str, operation: str, load: Callable[[], Awaitable[list[Found]]]
    ) -> list[Found] | None:
        """From the cache while it is fresh, else from the database, else stale; None = from nowhere."""
        backing = self._backing
        stamp = backing.epochs.stamp(user_id)
        page, answers = await self._cached(user_id, field)
        now = backing.wall()
        if page is not None and self._freshness(page, stamp, now) is Freshness.FRESH:
            return recall.cached(page, now)

        async def loaded() -> list[Found]:
            began = backing.wall()
            found = await backing.database.call(load)
            fresh = recall.page_of(found, began, stamp)
            if answers:  # else it would cost its time limit a second time
                await self._keep(user_id, {field: fresh, recall.LATEST: fresh})
            return found

        async def again() -> list[Found] | None:
            there = (await self._cached(user_id, field))[0] if answers else None
            if there is None or self._freshness(there, stamp, backing.wall()) is not Freshness.FRESH:
                return None
            return recall.cached(there, backing.wall())

        try:
            return await self._flights.run((user_id, field, stamp), loaded, again)
        except Exception as error:  # noqa: BLE001 (reading goes on with what there is)
            self.error_handler.handle_context_retrieval_error(error, operation)
        stamp, now = backing.epochs.stamp(user_id), backing.wall()
        if page is None or self._freshness(page, stamp, now) is Freshness.DEAD:
            return None
        return recall.cached(page, now)

    async def _usable(self, user_id: str, field: str) -> Page | None:
        """A page that may still be shown while the database fails."""
        page, _ = await self._cached(user_id, field)
        stamp, now = self._backing.epochs.stamp(user_id), self._backing.wall()
        return None if page is None or self._freshness(page, stamp, now) is Freshness.DEAD else page

    def _freshness(self, page: Page, stamp: Stamp, now: float) -> Freshness:
        return recall.freshness(page, stamp, now, self.config.soft_age_s, self.config.hard_age_s)

    async def _cached(self, user_id: str, field: str) -> tuple[Page | None, bool]:
        """What the cache has, and whether it answered at all."""
        try:
            return (await self._get(user_id, field), True) if self._backing.caching else (None, False)
        except Exception as error:  # noqa: BLE001 (a cache is never needed)
            self.error_handler.handle_cache_error(error, "cache_get")
            return None, False

    async def _keep(self, user_id: str, pages: dict[str, Page]) -> None:
        try:
            await self._put(user_id, pages)
        except Exception as error:  # noqa: BLE001 (a cache is never needed)
            self.error_handler.handle_cache_error(error, "cache_put")

    async def _spooled(self, user_id: str) -> Spooled:
        """What the spool knows of a user; an empty one is known without a thread."""
        if self._backing.spool.is_empty:
            return NOTHING
        spooled = await asyncio.to_thread(look, self._backing.spool, user_id)
        self._backing.look_after()
        return spooled


def _caches(config: MemoryConfig) -> tuple[AsyncCache, Cache]:
    """The cache that a configuration asks for, and the one that replay erases in."""
    if config.cache_url is None:
        return AsyncLocalCache(config.cache_max_entries), LocalCache(1)
    how = (config.cache_url, config.cache_timeout_s, config.cache_connect_timeout_s, config.hard_age_s)
    return AsyncRedisCache(*how), RedisCache(*how)


def _line(conversation: Conversation) -> str:
    return json.dumps(to_plain(conversation), ensure_ascii=False)
