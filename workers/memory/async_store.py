"""The memory in its database, for asyncio: the verbs of `store`, awaited (psycopg's async side, aiosqlite).

What is asked is the same code, run by SQLAlchemy on a greenlet. An engine belongs to one event loop: under
another loop, and in a forked child, the store makes itself a new one. Neighbours: `queries`, `schema`,
`engines` below; the async manager above. Knows no cache, no spool and no breaker.
"""

from __future__ import annotations

import asyncio
import logging
import os
import weakref
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime
from typing import Any, Concatenate, Final, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from workers.errors import ErasureIncomplete
from workers.memory import engines, forking, queries, schema, search
from workers.memory.config import MemoryConfig
from workers.memory.deadlines import within
from workers.memory.engines import Begin, begin
from workers.memory.ids import check
from workers.memory.records import Conversation, Found, ToolStatistics
from workers.memory.store import PAGE_ROWS, WIPE_ROWS, tables_are_gone

P = ParamSpec("P")
T = TypeVar("T")

_log: Final = logging.getLogger("breakerd.memory")


class AsyncStore:
    """The database's part of the memory, on an event loop."""

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config
        self.sqlite = config.database_url.startswith("sqlite")
        self._engine: AsyncEngine | None = None
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
        self._preparing = asyncio.Lock()
        self._ready = False
        self._indexed = False
        self._busy = 0
        self._drivers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._abandoned: list[object] = []
        self._pid = os.getpid()
        forking.remember(self)

    # ── the verbs ────────────────────────────────────────────────────────────────────────────────

    async def insert(self, conversations: Sequence[Conversation]) -> int:
        """Commit them in one transaction, but for those that are there or erased; how many were new."""
        return await self._run(
            Begin.WRITE, lambda link: queries.insert(link, conversations, indexed=self._indexed)
        )

    async def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Conversation]:
        """The user's latest conversations, latest first; with `before`, those made before that id."""
        return await self._run(Begin.READ, queries.history, user_id, limit, check(before))

    async def search(self, user_id: str, query: str, limit: int = 10) -> list[Found]:
        """The user's conversations that match best, best first; any text is a valid query."""
        return await self._run(Begin.READ, lambda link: self._found(link, user_id, query, limit))

    async def tool_statistics(
        self, user_id: str | None = None, but_for: Collection[str] = ()
    ) -> list[ToolStatistics]:
        """What each tool did, of one user or of all, the busiest first.

        `but_for`: ids of conversations that are left out, whether they are there or not.
        """
        return await self._run(Begin.READ, queries.tool_statistics, user_id, but_for)

    async def export(self, user_id: str, after: str | None = None) -> AsyncIterator[Conversation]:
        """Everything of the user in the order of its making, in pages of one transaction each."""
        while rows := await self._run(Begin.READ, queries.page, user_id, PAGE_ROWS, check(after)):
            for row in rows:
                yield row
            after = rows[-1].id

    async def erase(self, user_id: str, erased_at: datetime) -> None:
        """Delete what the user said until then, for good, and never take it again. May be repeated.

        ErasureIncomplete if all of it is gone but for bytes that a reader holds in SQLite's file.
        """
        await self._run(Begin.WRITE, queries.bury, user_id, erased_at)
        while await self._run(Begin.WRITE, lambda link: self._wipe(link, user_id, erased_at)):
            pass
        if self.sqlite:
            if self._indexed:
                await self._run(Begin.WRITE, search.compact)
            if not await self._run(Begin.NOTHING, queries.truncate_log):
                raise ErasureIncomplete("a reader keeps the write-ahead log from being emptied")

    async def ping(self) -> None:
        """Ask the database for nothing: raises if it does not answer."""
        await self._run(Begin.READ, lambda link: link.exec_driver_sql("SELECT 1").scalar())

    async def close(self) -> None:
        """Close every idle connection. The store may be used again."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.dispose()

    async def __aenter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Close it."""
        await self.close()

    # ── how they are run ─────────────────────────────────────────────────────────────────────────

    def _found(self, link: Connection, user_id: str, query: str, limit: int) -> list[Found]:
        by_index = not self.sqlite or (self._indexed and self.config.full_text)
        return queries.found(link, user_id, query, limit, indexed=by_index)

    def _wipe(self, link: Connection, user_id: str, erased_at: datetime) -> int:
        return queries.wipe(link, user_id, erased_at, WIPE_ROWS, indexed=self._indexed)

    async def _run(
        self, how: Begin, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The work's result, in a transaction of its own, committed. Tables that are missing come first."""
        engine = self._current()
        self._busy += 1
        try:
            if not self._ready:
                await self._prepare(engine)
            with within(self.config.database_timeout_s):
                return await self._transaction(engine, how, work, *args, **kwargs)
        except DBAPIError as error:
            if tables_are_gone(error):
                self._ready = False
            raise
        finally:
            self._busy -= 1

    async def _transaction(
        self,
        engine: AsyncEngine,
        how: Begin,
        work: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        async with engine.connect() as link, link.begin():
            await link.run_sync(begin, how)
            return await link.run_sync(work, *args, **kwargs)

    async def _prepare(self, engine: AsyncEngine) -> None:
        """See to the tables and the index, one task at a time."""
        with within(self.config.migrate_timeout_s):
            async with self._preparing:
                if self._ready:
                    return
                current = await self._transaction(engine, Begin.READ, schema.up_to_date)
                self._indexed = await self._transaction(engine, Begin.ALONE, self._made, current)
                self._ready = True

    def _made(self, link: Connection, current: bool) -> bool:
        if not current:
            schema.bring(link, self.config)
        return search.prepare(link)

    def _current(self) -> AsyncEngine:
        """The engine of the running loop."""
        if self._pid != os.getpid():  # a fork in C told nobody
            self.after_fork_in_child()
        loop = asyncio.get_running_loop()
        if self._engine is not None and self._loop is not None and self._loop() is loop:
            return self._engine
        if self._engine is not None:
            self._abandoned.append(self._engine.sync_engine.pool)
        self._engine = engines.make_async(self.config)
        self._loop, self._preparing = weakref.ref(loop), asyncio.Lock()
        if self.sqlite:
            event.listen(self._engine.sync_engine, "connect", self._connected)
        return self._engine

    # ── forks ────────────────────────────────────────────────────────────────────────────────────

    def _connected(self, _connection: object, record: Any) -> None:
        self._drivers.add(record.driver_connection)

    def before_fork(self) -> None:
        """On SQLite, close every connection: the library's locks would deceive the child."""
        if not self.sqlite or self._engine is None:
            return
        if self._busy:
            _log.warning("forked in the middle of a transaction: the child must not use this database")
            return
        for driver in list(self._drivers):
            driver.stop()
            driver._thread.join(forking.STILL_S)  # it is this thread that closes
        self._drivers.clear()
        self._engine.sync_engine.dispose(close=False)

    def after_fork_in_parent(self) -> None:
        """Go on, with new connections."""

    def after_fork_in_child(self) -> None:
        """Begin anew; the parent's connections are kept untouched: closing them here would end them there."""
        self._busy, self._pid = 0, os.getpid()
        if self._engine is not None:
            self._abandoned.append(self._engine.sync_engine.pool)
            self._engine, self._loop = None, None
