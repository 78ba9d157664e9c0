"""The memory in its database, for threads: PostgreSQL or one SQLite file behind the same verbs.

It connects on first use and again whenever it must; a database that is down makes a call fail, never the
store. Nothing is retried here, and no call takes longer than `database_timeout_s`, but for making the tables,
and for the 2 s that psycopg takes at least to give up connecting. After a fork both processes go on with
connections of their own. Neighbours: `queries`, `schema`, `engines` below; the managers above. Knows no
cache, no spool and no breaker.
"""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Concatenate, Final, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from workers.errors import ErasureIncomplete, SchemaError
from workers.memory import engines, forking, queries, schema, search
from workers.memory.config import MemoryConfig
from workers.memory.deadlines import within
from workers.memory.engines import Begin, begin
from workers.memory.ids import check
from workers.memory.records import Conversation, Found, ToolStatistics

P = ParamSpec("P")
T = TypeVar("T")

PAGE_ROWS: Final = 200
"""How many conversations an export reads at a time."""
WIPE_ROWS: Final = 500
"""How many conversations an erasure deletes in one transaction."""

GONE: Final = ("42P01", "42703", "3F000")
"""SQLSTATEs: no such table, column, schema."""

_log: Final = logging.getLogger("breakerd.memory")


def tables_are_gone(error: DBAPIError) -> bool:
    """True if the database says that a table or a column is not there: it is another one, or was emptied."""
    return getattr(error.orig, "sqlstate", None) in GONE or "no such table" in str(error.orig)


def is_demoted(error: DBAPIError) -> bool:
    """True if the database says that it may only be read: after a failover this is the former primary."""
    return getattr(error.orig, "sqlstate", None) == "25006"


def _disposed(engine: Engine, pid: int) -> None:
    """The store is gone, or the process ends: so do its connections, where they are its own."""
    if os.getpid() == pid:
        engine.dispose()


class Store:
    """The database's part of the memory. Thread-safe; what drivers raise arrives as SQLAlchemy wraps it."""

    def __init__(self, config: MemoryConfig) -> None:
        self.config = config
        self.sqlite = config.database_url.startswith("sqlite")
        self._settings = engines.transaction_settings(config)
        self._engine: Engine | None = None
        self._end: weakref.finalize[[Engine, int], Store] | None = None
        self._ready = False
        self._indexed = False
        self._busy = 0
        self._abandoned: list[object] = []
        self._state = threading.Condition()
        self._preparing = threading.Lock()
        self._forking = False
        self._pid = os.getpid()
        forking.remember(self)

    # ── the verbs ────────────────────────────────────────────────────────────────────────────────

    def insert(self, conversations: Sequence[Conversation]) -> int:
        """Commit them in one transaction, but for those that are there or erased; how many were new."""
        return self._run(Begin.WRITE, lambda link: queries.insert(link, conversations, indexed=self._indexed))

    def history(self, user_id: str, limit: int = 20, before: str | None = None) -> list[Conversation]:
        """The user's latest conversations, latest first; with `before`, those made before that id."""
        return self._run(Begin.READ, queries.history, user_id, limit, check(before))

    def search(self, user_id: str, query: str, limit: int = 10) -> list[Found]:
        """The user's conversations that match best, best first; any text is a valid query."""
        return self._run(Begin.READ, lambda link: self._found(link, user_id, query, limit))

    def tool_statistics(
        self, user_id: str | None = None, but_for: Collection[str] = ()
    ) -> list[ToolStatistics]:
        """What each tool did, of one user or of all, the busiest first.

        `but_for`: ids of conversations that are left out, whether they are there or not.
        """
        return self._run(Begin.READ, queries.tool_statistics, user_id, but_for)

    def export(self, user_id: str, after: str | None = None) -> Iterator[Conversation]:
        """Everything of the user in the order of its making, in pages of one transaction each."""
        while rows := self._run(Begin.READ, queries.page, user_id, PAGE_ROWS, check(after)):
            yield from rows
            after = rows[-1].id

    def erase(self, user_id: str, erased_at: datetime) -> None:
        """Delete what the user said until then, for good, and never take it again. May be repeated.

        ErasureIncomplete if all of it is gone but for bytes that a reader holds in SQLite's file.
        """
        self._run(Begin.WRITE, queries.bury, user_id, erased_at)
        while self._run(Begin.WRITE, lambda link: self._wipe(link, user_id, erased_at)):
            pass
        if self.sqlite:
            if self._indexed:
                self._run(Begin.WRITE, search.compact)
            if not self._run(Begin.NOTHING, queries.truncate_log):
                raise ErasureIncomplete("a reader keeps the write-ahead log from being emptied")

    def ping(self) -> None:
        """Ask the database for nothing: raises if it does not answer."""
        self._run(Begin.READ, lambda link: link.exec_driver_sql("SELECT 1").scalar())

    def close(self) -> None:
        """Close every idle connection. The store may be used again."""
        engine = self._engine
        if engine is not None:
            engine.dispose()

    def __enter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self.close()

    # ── how they are run ─────────────────────────────────────────────────────────────────────────

    def _found(self, link: Connection, user_id: str, query: str, limit: int) -> list[Found]:
        by_index = not self.sqlite or (self._indexed and self.config.full_text)
        return queries.found(link, user_id, query, limit, indexed=by_index)

    def _wipe(self, link: Connection, user_id: str, erased_at: datetime) -> int:
        return queries.wipe(link, user_id, erased_at, WIPE_ROWS, indexed=self._indexed)

    def _run(
        self, how: Begin, work: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The work's result, in a transaction of its own, committed. Tables that are missing come first."""
        with self._in_use() as engine:
            try:
                if not self._ready:
                    self._prepare(engine)
                with within(self.config.database_timeout_s), engine.connect() as link, link.begin():
                    begin(link, how, self._settings)
                    return work(link, *args, **kwargs)
            except DBAPIError as error:
                if tables_are_gone(error):
                    self._ready = False
                if is_demoted(error):
                    engine.dispose()  # every connection leads to a server that is no longer the primary
                raise

    def _prepare(self, engine: Engine) -> None:
        """See to the tables and the index, one thread at a time."""
        with within(self.config.migrate_timeout_s), self._preparing:
            if self._ready:
                return
            with engine.connect() as link, link.begin():
                begin(link, Begin.READ, self._settings)
                current = schema.up_to_date(link)
                indexed = schema.has_table(link, search.INDEX)
            if self.sqlite and engines.is_read_only(str(engine.url.database)):
                if not current:
                    raise SchemaError("the file has no memory tables of this version, and cannot be written")
                self._indexed = indexed
            else:
                self._bring(engine, current)
            self._ready = True

    def _bring(self, engine: Engine, current: bool) -> None:
        """Make what is missing. PostgreSQL's index is part of its tables, so a standby can be read."""
        if current and not self.sqlite:
            self._indexed = True
            return
        with engine.connect() as link, link.begin():
            begin(link, Begin.ALONE, self._settings)
            if not current:
                schema.bring(link, self.config)
            self._indexed = search.prepare(link)

    def _end_with_me(self, engine: Engine) -> None:
        """Close the engine's connections when nobody has this store any more."""
        if self._end is not None:
            self._end.detach()
        self._end = weakref.finalize(self, _disposed, engine, os.getpid())

    # ── forks ────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _in_use(self) -> Iterator[Engine]:
        if self._pid != os.getpid():  # a fork in C told nobody
            self.after_fork_in_child()
        with self._state:
            while self._forking:
                self._state.wait()
            if self._engine is None:
                self._engine = engines.make(self.config)
                self._end_with_me(self._engine)
            engine = self._engine
            self._busy += 1
        try:
            yield engine
        finally:
            with self._state:
                self._busy -= 1
                self._state.notify_all()

    def before_fork(self) -> None:
        """On SQLite, close every connection: the library's locks would deceive the child."""
        if not self.sqlite:
            return
        with self._state:
            self._forking = True
            if not self._state.wait_for(lambda: not self._busy, forking.STILL_S):
                _log.warning("forked in the middle of a transaction: the child must not use this database")
            elif self._engine is not None:
                self._engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Go on, with new connections."""
        with self._state:
            self._forking = False
            self._state.notify_all()

    def after_fork_in_child(self) -> None:
        """Begin anew; the parent's connections are kept untouched: closing them here would end them there."""
        self._state = threading.Condition()
        self._preparing = threading.Lock()
        self._forking, self._busy, self._pid = False, 0, os.getpid()
        if self._engine is not None:
            self._abandoned.append(self._engine.pool)
            self._engine.dispose(close=False)
            self._end_with_me(self._engine)
