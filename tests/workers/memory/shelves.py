"""The stores that one suite of tests runs against: both databases.

`Shelf` has the verbs of `Store`, in the form that tests like to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation, Found, ToolStatistics
from workers.memory.store import Store

KINDS: Final = ("sqlite", "sqlite like", "postgres")


class Shelf:
    """A store, whichever it is."""

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config
        self.sqlite = config.database_url.startswith("sqlite")
        self._store = Store(config)

    def insert(self, *conversations: Conversation) -> int:
        """How many were new."""
        return self._store.insert(conversations)

    def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Conversation]:
        """Latest first."""
        return self._store.history(user_id, limit, before)

    def search(self, user_id: str, query: str, limit: int = 10) -> list[Found]:
        """Best first."""
        return self._store.search(user_id, query, limit)

    def texts(self, user_id: str, query: str, limit: int = 10) -> list[str]:
        """The messages that a search finds, best first."""
        return [one.conversation.user_message for one in self.search(user_id, query, limit)]

    def tool_statistics(self, user_id: str | None = None, *but_for: str) -> list[ToolStatistics]:
        """The busiest first, some conversations left out."""
        return self._store.tool_statistics(user_id, but_for)

    def export(self, user_id: str) -> Sequence[Conversation]:
        """Everything, oldest first."""
        return list(self._store.export(user_id))

    def erase(self, user_id: str, erased_at: datetime) -> None:
        """For good."""
        self._store.erase(user_id, erased_at)

    def ping(self) -> None:
        """Raises if the database does not answer."""
        self._store.ping()

    def close(self) -> None:
        """Close its connections."""
        self._store.close()
