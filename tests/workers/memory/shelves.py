"""The stores that one suite of tests runs against: both databases, with threads and with asyncio.

`Shelf` has the verbs of `Store`; over an `AsyncStore` each is run to its end on one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from workers.memory.async_store import AsyncStore
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation, Found, ToolStatistics
from workers.memory.store import Store

KINDS: Final = (
    "sqlite",
    "sqlite like",
    "postgres",
    "async sqlite",
    "async postgres",
)


class Shelf:
    """A store, whichever it is."""

    def __init__(self, config: MemoryConfig, *, on_loop: bool = False) -> None:
        self.config = config
        self.sqlite = config.database_url.startswith("sqlite")
        self._runner = asyncio.Runner() if on_loop else None
        self._store = None if on_loop else Store(config)
        self._async = AsyncStore(config) if on_loop else None

    def insert(self, *conversations: Conversation) -> int:
        """How many were new."""
        if self._store is not None:
            return self._store.insert(conversations)
        assert self._async is not None
        assert self._runner is not None
        return self._runner.run(self._async.insert(conversations))

    def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Conversation]:
        """Latest first."""
        if self._store is not None:
            return self._store.history(user_id, limit, before)
        assert self._async is not None
        assert self._runner is not None
        return self._runner.run(self._async.history(user_id, limit, before))

    def search(self, user_id: str, query: str, limit: int = 10) -> list[Found]:
        """Best first."""
        if self._store is not None:
            return self._store.search(user_id, query, limit)
        assert self._async is not None
        assert self._runner is not None
        return self._runner.run(self._async.search(user_id, query, limit))

    def texts(self, user_id: str, query: str, limit: int = 10) -> list[str]:
        """The messages that a search finds, best first."""
        return [one.conversation.user_message for one in self.search(user_id, query, limit)]

    def tool_statistics(self, user_id: str | None = None, *but_for: str) -> list[ToolStatistics]:
        """The busiest first, some conversations left out."""
        if self._store is not None:
            return self._store.tool_statistics(user_id, but_for)
        assert self._async is not None
        assert self._runner is not None
        return self._runner.run(self._async.tool_statistics(user_id, but_for))

    def export(self, user_id: str) -> Sequence[Conversation]:
        """Everything, oldest first."""
        if self._store is not None:
            return list(self._store.export(user_id))
        assert self._async is not None
        assert self._runner is not None
        store = self._async

        async def collected() -> list[Conversation]:
            return [one async for one in store.export(user_id)]

        return self._runner.run(collected())

    def erase(self, user_id: str, erased_at: datetime) -> None:
        """For good."""
        if self._store is not None:
            self._store.erase(user_id, erased_at)
            return
        assert self._async is not None
        assert self._runner is not None
        self._runner.run(self._async.erase(user_id, erased_at))

    def ping(self) -> None:
        """Raises if the database does not answer."""
        if self._store is not None:
            self._store.ping()
            return
        assert self._async is not None
        assert self._runner is not None
        self._runner.run(self._async.ping())

    def close(self) -> None:
        """Close it and its loop."""
        if self._store is not None:
            self._store.close()
        if self._async is not None and self._runner is not None:
            self._runner.run(self._async.close())
            self._runner.close()
