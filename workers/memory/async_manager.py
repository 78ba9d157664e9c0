"""AsyncMemoryLayerManager: the verbs of `manager`, awaited. It runs that manager in threads of its own.

So there is one implementation, and one pool of connections however many event loops come and go. What is
said is kept also when the caller is cancelled: at the latest, the spool has it before the cancelled call
ends. Neighbours: `manager` (where each verb is described), `call_pool`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import Future
from itertools import islice
from types import TracebackType
from typing import Any, Final, Self

from workers.errors import RecordError
from workers.handler import MemoryErrorHandler
from workers.memory import recall
from workers.memory.backing import FLUSH_S
from workers.memory.cache import Cache
from workers.memory.call_pool import CallPool
from workers.memory.config import MemoryConfig
from workers.memory.ids import check
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.records import (
    Conversation,
    Deletion,
    Found,
    StoreOutcome,
    StoreResult,
    ToolCall,
    ToolStatistics,
)
from workers.memory.store import PAGE_ROWS, Store

RESCUE_S: Final = 2.0
"""How long a cancelled call may still wait for the disk to keep what was said."""


class AsyncMemoryLayerManager:
    """The memory of one application, for event loops. See EnhancedMemoryLayerManager for each verb.

    Any number of loops may use it, one after another or at the same time. `store` and `cache` replace what
    the configuration says; they are those of the manager for threads.
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
        self._memory = EnhancedMemoryLayerManager(
            config, handler=handler, logger=logger, store=store, cache=cache
        )
        self.config = self._memory.config
        self.error_handler = self._memory.error_handler
        self._backing = self._memory._backing
        self._calls = CallPool(2 * self.config.pool_size, "memory")
        self._disk = CallPool(1, "memory disk")

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
        """Store one exchange; where it is now: `stored`, `spooled` or `rejected`, with its id and why.

        If the caller is cancelled or times out meanwhile, it is spooled and stored later.
        """
        self._backing.check_open()
        try:
            said = Conversation.now(user_id, user_message, bot_response, tools_used or (), tool_calls)
        except RecordError as error:
            return self._backing.invalid(error)
        storing = self._calls.submit(self._memory.keep, said)
        try:
            return await asyncio.shield(asyncio.wrap_future(storing))
        except asyncio.CancelledError:
            await self._rescue(storing, said)
            raise

    async def _rescue(self, storing: Future[StoreResult], said: Conversation) -> None:
        """Spool what is not stored yet, although nobody waits for the database any more."""
        if storing.done():
            return

        def rescue() -> None:
            if self._backing.rescue(said) and storing.cancel():
                self._backing.not_rescued(said)  # it has not begun, and need not; else it goes on

        rescuing = asyncio.wrap_future(self._disk.submit(rescue))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(rescuing), RESCUE_S)

    # --- reading --------------------------------------------------------------------------------------

    async def retrieve_context_safe(self, query: str, user_id: str, limit: int = 10) -> list[Found]:
        """What the user and the agents said that fits the query, best first; [] if nothing can be had."""
        self._backing.check_open()
        if (found := self._memory.at_hand(user_id, recall.search_field(query, limit))) is not None:
            return found
        return await self._calls.run(self._memory.retrieve_context_safe, query, user_id, limit)

    async def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Found]:
        """The user's latest conversations, latest first; with `before` (an id) those before it."""
        self._backing.check_open()
        if (found := self._memory.at_hand(user_id, recall.history_field(limit, check(before)))) is not None:
            return found
        return await self._calls.run(self._memory.history, user_id, limit, before)

    async def tool_statistics(self, user_id: str | None = None) -> list[ToolStatistics]:
        """What each tool did, of one user or of all. Raises what the database raises: half is no answer."""
        self._backing.check_open()
        return await self._calls.run(self._memory.tool_statistics, user_id)

    async def export_user(self, user_id: str) -> AsyncIterator[str]:
        """Everything of the user as NDJSON, a line a conversation, oldest first.

        Raises what the database raises, in the middle of it if need be: no end that is none.
        """
        self._backing.check_open()
        lines = self._memory.export_user(user_id)
        while page := await self._calls.run(lambda: list(islice(lines, PAGE_ROWS))):
            for line in page:
                yield line

    # --- erasing --------------------------------------------------------------------------------------

    async def delete_user(self, user_id: str) -> Deletion:
        """Erase a user everywhere; `accepted` during an outage, and obeyed by every reader at once.

        A cancelled call goes on: the wish to erase does not get lost.
        """
        self._backing.check_open()
        erasing = self._calls.submit(self._memory.delete_user, user_id)
        return await asyncio.shield(asyncio.wrap_future(erasing))

    # --- life -----------------------------------------------------------------------------------------

    async def get_system_health(self) -> dict[str, Any]:
        """`is_healthy`, `error_metrics`, `circuit_breakers`, and `memory`: spool and replay. Dials nobody."""
        return await self._disk.run(self._memory.get_system_health)

    async def release_quarantine(self) -> int:
        """Try again what replay has set aside, after its cause was mended; how many records."""
        self._backing.check_open()
        return await self._disk.run(self._memory.release_quarantine)

    async def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until the spool is in the database; False = after so many seconds some of it is not."""
        self._backing.check_open()
        return await self._calls.run(self._memory.flush, timeout_s)

    async def close(self) -> None:
        """End the calls under way, then release everything. What is in the spool stays there."""
        if not self._backing.closed:
            closing = self._disk.submit(self._close)
            await asyncio.shield(asyncio.wrap_future(closing))
            self._disk.close()

    def _close(self) -> None:
        """Calls that nobody waits for any more may still have something to keep."""
        self._backing.refuse_calls()
        self._calls.close()
        self._memory.close()

    async def __aenter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Close it."""
        await self.close()
