"""EnhancedMemoryLayerManager: the memory of agents, for threads. What it calls stored is on a disk.

Writes go to the database, else to the spool, else they are refused by name. Reads come from the cache while
it is fresh, else from the database, else from what the cache still has, and always with what waits in the
spool. Neighbours: `backing` (spool, replay, breakers), `recall` (how answers come together).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from types import TracebackType
from typing import Any, Self

from workers.errors import RecordError
from workers.handler import MemoryErrorHandler
from workers.kinds import ErrorType
from workers.memory import recall
from workers.memory.backing import FLUSH_S, Backing
from workers.memory.cache import Cache, LocalCache
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
    check_user,
    to_plain,
)
from workers.memory.redis_cache import RedisCache
from workers.memory.single_flight import SingleFlight
from workers.memory.spooled import NOTHING, Spooled, look, waiting
from workers.memory.store import PAGE_ROWS, Store


class EnhancedMemoryLayerManager:
    """The memory of one application. Any thread may use it, and a forked child may go on using it.

    Nothing is connected before the first call, so it can be made while everything is down. `handler` is
    where errors are counted and the breakers of database and cache are kept; None makes one. `store` and
    `cache` replace what the configuration says.
    """

    def __init__(
        self,
        config: MemoryConfig | None = None,
        *,
        handler: MemoryErrorHandler | None = None,
        logger: logging.Logger | None = None,
        store: Store | None = None,
        cache: Cache | None = None,
    ) -> None:
        self.config = config or MemoryConfig()
        self.error_handler = handler or MemoryErrorHandler(logger)
        self._store = store or Store(self.config)
        self._cache = cache or cache_of(self.config)
        self._backing = Backing(self.config, self.error_handler, self._store, self._cache.remote)
        self._backing.replayer.cache = self._cache
        self._insert = self._backing.database(self._store.insert)
        remote = self._cache.remote
        self._get = self._backing.cache(self._cache.get) if remote else self._cache.get
        self._put = self._backing.cache(self._cache.put) if remote else self._cache.put
        self._drop = self._backing.cache(self._cache.drop_user) if remote else self._cache.drop_user
        self._flights: SingleFlight[list[Found]] = SingleFlight(
            self._backing.locks if remote else None, self.config.database_timeout_s
        )

    # --- storing --------------------------------------------------------------------------------------

    def store_conversation_safe(
        self,
        user_id: str,
        user_message: str,
        bot_response: str,
        tools_used: Iterable[str] | None = None,
        tool_calls: Iterable[ToolCall] = (),
    ) -> bool:
        """Store one exchange. True = it is durably kept: in the database, or on this host's disk."""
        stored = self.store_conversation(user_id, user_message, bot_response, tools_used, tool_calls)
        return stored.outcome is not StoreOutcome.REJECTED

    def store_conversation(
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
        return self.keep(said)

    def keep(self, said: Conversation) -> StoreResult:
        """Store what was said; as `store_conversation`, for a conversation that is made already."""
        schedule = None
        while True:
            try:
                return self._backing.stored(said, self._insert([said]))
            except Exception as error:  # noqa: BLE001 (whatever it was: what was said must not get lost)
                found = self.error_handler.record(error, "store_conversation", ErrorType.MEMORY_STORAGE)
                wait_s = None
                if self._backing.passes(found):
                    schedule = schedule or self._backing.schedule()
                    wait_s = schedule.failed(found)
                if wait_s is None:
                    return self._backing.not_stored(said, error, found)
            self.error_handler.surroundings.sleep(wait_s)

    # --- reading --------------------------------------------------------------------------------------

    def retrieve_context_safe(self, query: str, user_id: str, limit: int = 10) -> list[Found]:
        """What the user and the agents said that fits the query, best first; [] if nothing can be had.

        Any text is a valid query; what can be no user's id raises RecordError. Each result tells where it
        came from, and how old it is if from a cache.
        """
        self._backing.check_open()
        check_user(user_id)
        # The spool first: what leaves it meanwhile is in the database by then.
        spooled = self._spooled(user_id)
        field = recall.search_field(query, limit)
        found = self._recall(
            user_id, field, "retrieve_context", lambda: self._store.search(user_id, query, limit)
        )
        if found is None:
            page = self._usable(user_id, recall.LATEST)
            found = recall.search_page(page, query, self._backing.wall()) if page else []
        return found if spooled is NOTHING else recall.merge_search(found, spooled, query, limit)

    def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Found]:
        """The user's latest conversations, latest first; with `before` (an id) those before it.

        While the database fails, what the cache and the spool have. Raises RecordError for no id.
        """
        self._backing.check_open()
        check_user(user_id)
        spooled = self._spooled(user_id)
        field = recall.history_field(limit, check(before))
        found = self._recall(
            user_id, field, "history", lambda: recall.plain(self._store.history(user_id, limit, before))
        )
        if found is None:
            page = self._usable(user_id, recall.LATEST)
            kept = recall.cached(page, self._backing.wall()) if page else []
            found = [one for one in kept if before is None or one.conversation.id < before]
        return recall.merge_history(found, spooled, limit, before)

    def tool_statistics(self, user_id: str | None = None) -> list[ToolStatistics]:
        """What each tool did, of one user or of all. Raises what the database raises: half is no answer."""
        self._backing.check_open()
        if user_id is not None:
            check_user(user_id)
        if user_id is None:
            spooled = waiting(self._backing.spool)
        elif (spooled := self._spooled(user_id)).erased_at is not None:
            return recall.tools_of(self._exported(user_id), spooled)
        # What waits is counted here and left out there: replay may be bringing it over just now.
        kept = [one.id for one in spooled.conversations]
        try:
            done = self._backing.database.call(self._store.tool_statistics, user_id, kept)
        except Exception as error:
            self.error_handler.handle_tool_analytics_error(error, "tool_statistics")
            raise
        return recall.add_tools(done, spooled.conversations)

    def export_user(self, user_id: str) -> Iterator[str]:
        """Everything of the user as NDJSON, a line a conversation, oldest first.

        Raises what the database raises, in the middle of it if need be: no end that is none.
        """
        self._backing.check_open()
        check_user(user_id)
        spooled = self._spooled(user_id)
        left = list(spooled.conversations)
        for one in self._exported(user_id):
            while left and left[0].id <= one.id:
                if (kept := left.pop(0)).id < one.id:
                    yield _line(kept)
            if spooled.shows(one):
                yield _line(one)
        yield from map(_line, left)

    def _exported(self, user_id: str) -> Iterator[Conversation]:
        """Pages are what is guarded: a call of the database each."""

        def page(after: str | None) -> list[Conversation]:
            return list(islice(self._store.export(user_id, after), PAGE_ROWS))

        rows = self._page(page, None)
        while rows:
            yield from rows
            rows = self._page(page, rows[-1].id)

    def _page(
        self, page: Callable[[str | None], list[Conversation]], after: str | None
    ) -> list[Conversation]:
        try:
            return self._backing.database.call(page, after)
        except Exception as error:
            self.error_handler.handle_database_error(error, "export_user")
            raise

    # --- erasing --------------------------------------------------------------------------------------

    def delete_user(self, user_id: str) -> Deletion:
        """Erase a user everywhere: database, search index, cache, spool; later replay obeys, too.

        `accepted` during an outage: the wish is durable, every process of this host obeys it in reading at
        once, and it is completed when database and cache are back. What is said from now on is kept.
        """
        self._backing.check_open()
        check_user(user_id)
        at = utc_now()
        try:
            self._backing.database.call(self._store.erase, user_id, at)
            self._backing.erased(user_id, at)
            self._drop(user_id)
        except Exception as error:  # noqa: BLE001 (whatever it was: the wish must not get lost)
            self.error_handler.handle_memory_storage_error(error, "delete_user")
            if not self._cache.remote:
                self._cache.drop_user(user_id)
            return self._backing.not_erased(user_id, at)
        return Deletion.DELETED

    # --- life -----------------------------------------------------------------------------------------

    def get_system_health(self) -> dict[str, Any]:
        """`is_healthy`, `error_metrics`, `circuit_breakers`, and `memory`: spool and replay. Dials nobody."""
        return self._backing.health()

    def release_quarantine(self) -> int:
        """Try again what replay has set aside, after its cause was mended; how many records.

        What still cannot be stored is set aside again, with its reason. Raises SpoolUnavailable.
        """
        self._backing.check_open()
        return self._backing.release_quarantine()

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until the spool is in the database; False = after so many seconds some of it is not."""
        self._backing.check_open()
        return self._backing.flush(timeout_s)

    def close(self) -> None:
        """Let go of everything. What is in the spool stays, and is replayed by whoever comes next."""
        self._backing.close()
        self._cache.close()
        self._store.close()

    def __enter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    # --- cache and database ---------------------------------------------------------------------------

    def _recall(
        self, user_id: str, field: str, operation: str, load: Callable[[], list[Found]]
    ) -> list[Found] | None:
        """From the cache while it is fresh, else from the database, else stale; None = from nowhere."""
        backing = self._backing
        stamp = backing.epochs.stamp(user_id)
        page, answers = self._cached(user_id, field)
        now = backing.wall()
        if page is not None and self._freshness(page, stamp, now) is Freshness.FRESH:
            return recall.cached(page, now)

        def loaded() -> list[Found]:
            began = backing.wall()
            found = backing.database.call(load)
            fresh = recall.page_of(found, began, stamp)
            if answers:  # else it would cost its time limit a second time
                self._keep(user_id, {field: fresh, recall.LATEST: fresh})
            return found

        def again() -> list[Found] | None:
            there = (self._cached(user_id, field))[0] if answers else None
            if there is None or self._freshness(there, stamp, backing.wall()) is not Freshness.FRESH:
                return None
            return recall.cached(there, backing.wall())

        try:
            return self._flights.run((user_id, field, stamp), loaded, again)
        except Exception as error:  # noqa: BLE001 (reading goes on with what there is)
            self.error_handler.handle_context_retrieval_error(error, operation)
        stamp, now = backing.epochs.stamp(user_id), backing.wall()
        if page is None or self._freshness(page, stamp, now) is Freshness.DEAD:
            return None
        return recall.cached(page, now)

    def at_hand(self, user_id: str, field: str) -> list[Found] | None:
        """A fresh page of this process's own cache, while nothing waits in the spool. Waits for nothing."""
        backing = self._backing
        if self._cache.remote or not backing.caching or not backing.spool.is_empty:
            return None
        page, now = self._cache.get(user_id, field), backing.wall()
        if page is None or self._freshness(page, backing.epochs.stamp(user_id), now) is not Freshness.FRESH:
            return None
        return recall.cached(page, now)

    def _usable(self, user_id: str, field: str) -> Page | None:
        """A page that may still be shown while the database fails."""
        page, _ = self._cached(user_id, field)
        stamp, now = self._backing.epochs.stamp(user_id), self._backing.wall()
        return None if page is None or self._freshness(page, stamp, now) is Freshness.DEAD else page

    def _freshness(self, page: Page, stamp: Stamp, now: float) -> Freshness:
        return recall.freshness(page, stamp, now, self.config.soft_age_s, self.config.hard_age_s)

    def _cached(self, user_id: str, field: str) -> tuple[Page | None, bool]:
        """What the cache has, and whether it answered at all."""
        try:
            return (self._get(user_id, field), True) if self._backing.caching else (None, False)
        except Exception as error:  # noqa: BLE001 (a cache is never needed)
            self.error_handler.handle_cache_error(error, "cache_get")
            return None, False

    def _keep(self, user_id: str, pages: dict[str, Page]) -> None:
        try:
            self._put(user_id, pages)
        except Exception as error:  # noqa: BLE001 (a cache is never needed)
            self.error_handler.handle_cache_error(error, "cache_put")

    def _spooled(self, user_id: str) -> Spooled:
        spooled = look(self._backing.spool, user_id)
        if spooled is not NOTHING:
            self._backing.look_after()
        return spooled


def cache_of(config: MemoryConfig) -> Cache:
    """The cache that a configuration asks for."""
    if config.cache_url is None:
        return LocalCache(config.cache_max_entries)
    return RedisCache(
        config.cache_url,
        config.cache_timeout_s,
        config.cache_connect_timeout_s,
        config.hard_age_s,
        config.cache_namespace,
    )


def _line(conversation: Conversation) -> str:
    return json.dumps(to_plain(conversation), ensure_ascii=False)
