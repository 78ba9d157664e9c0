"""The statements of the memory layer, each on a connection in a transaction: what both stores share.

Inserting is idempotent by the ids that the client made, and obeys tombstones in the same statement. Every
question names its user. Neighbours: `models`, `search`; `store` brings the connections.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    Table,
    bindparam,
    case,
    delete,
    exists,
    func,
    literal,
    select,
    text,
)
from sqlalchemy import (
    insert as insert_into,
)
from sqlalchemy.dialects import postgresql, sqlite

from workers.memory import search
from workers.memory.models import ConversationRow, ErasureRow, ToolCallRow, ToolUsedRow, UtcTime
from workers.memory.records import Conversation, Found, ToolCall, ToolStatistics, user_mark

_conversations: Final = cast("Table", ConversationRow.__table__)
_used: Final = cast("Table", ToolUsedRow.__table__)
_calls: Final = cast("Table", ToolCallRow.__table__)
_erasures: Final = cast("Table", ErasureRow.__table__)

_INSERTS: Final[dict[str, Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


# ── writing ──────────────────────────────────────────────────────────────────────────────────────


def _insert(dialect: str, table: Any, condition: Any) -> Executable:
    """INSERT one row if the condition holds and its key is not there yet."""
    row = select(*[bindparam(one.name, type_=one.type) for one in table.c]).where(condition)
    statement = _INSERTS[dialect](table).from_select([one.name for one in table.c], row)
    made: Executable = statement.on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    return made


def _statements(dialect: str) -> tuple[Executable, Executable, Executable]:
    """Into conversations unless they are erased, into the two others if their conversation is there."""
    buried = exists().where(
        _erasures.c.user_mark == bindparam("user_mark"),
        _erasures.c.erased_at >= bindparam("created_at", type_=UtcTime),
    )
    there = exists().where(
        _conversations.c.id == bindparam("conversation_id", type_=_conversations.c.id.type)
    )
    return (
        _insert(dialect, _conversations, ~buried),
        _insert(dialect, _used, there),
        _insert(dialect, _calls, there),
    )


_PLAIN: Final = (insert_into(_used), insert_into(_calls))
_STATEMENTS: Final = {dialect: _statements(dialect) for dialect in _INSERTS}


def insert(connection: Connection, conversations: Sequence[Conversation], *, indexed: bool) -> int:
    """Insert what is neither there nor erased, with its tools and its words; how many were inserted."""
    rows = [_row(one) for one in sorted(conversations, key=lambda one: one.id)]
    if not rows:
        return 0
    into_conversations, into_used, into_calls = _STATEMENTS[connection.dialect.name]
    inserted = connection.execute(into_conversations, rows).rowcount
    if not inserted:
        return 0
    if inserted == len(rows):  # each is there: nothing more is to be asked
        into_used, into_calls = _PLAIN
    if used := [row for one in conversations for row in _used_rows(one)]:
        connection.execute(into_used, used)
    if calls := [row for one in conversations for row in _call_rows(one)]:
        connection.execute(into_calls, calls)
    if indexed and connection.dialect.name == "sqlite":
        search.add(connection, [row["id"] for row in rows])
    return inserted


def _row(one: Conversation) -> dict[str, Any]:
    return {
        "id": one.id,
        "user_id": one.user_id,
        "user_message": one.user_message,
        "bot_response": one.bot_response,
        "created_at": one.created_at,
        "user_mark": user_mark(one.user_id),
    }


def _used_rows(one: Conversation) -> list[dict[str, Any]]:
    return [
        {"conversation_id": one.id, "position": position, "tool": tool}
        for position, tool in enumerate(one.tools_used)
    ]


def _call_rows(one: Conversation) -> list[dict[str, Any]]:
    return [
        {
            "conversation_id": one.id,
            "position": position,
            "call_id": call.id,
            "tool": call.tool,
            "ok": call.ok,
            "duration_s": call.duration_s,
            "error": call.error,
        }
        for position, call in enumerate(one.tool_calls)
    ]


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


def history(connection: Connection, user_id: str, limit: int, before: str | None) -> list[Conversation]:
    """The user's latest conversations, latest first; with `before`, those that were made before that id."""
    wanted = _of(user_id).order_by(_conversations.c.id.desc()).limit(limit)
    if before is not None:
        wanted = wanted.where(_conversations.c.id < before)
    return _fetched(connection, wanted)


def page(connection: Connection, user_id: str, limit: int, after: str | None) -> list[Conversation]:
    """The user's conversations in the order of their making, from behind an id on."""
    wanted = _of(user_id).order_by(_conversations.c.id).limit(limit)
    if after is not None:
        wanted = wanted.where(_conversations.c.id > after)
    return _fetched(connection, wanted)


def found(connection: Connection, user_id: str, question: str, limit: int, *, indexed: bool) -> list[Found]:
    """The user's conversations that match best, best first."""
    scores = dict(search.find(connection, user_id, question, limit, indexed=indexed))
    if not scores:
        return []
    rows = _fetched(connection, _of(user_id).where(_conversations.c.id.in_(scores)))
    by_id = {one.id: one for one in rows}
    return [Found(by_id[one], score) for one, score in scores.items() if one in by_id]


def _of(user_id: str) -> Select[Any]:
    return select(_conversations).where(_conversations.c.user_id == user_id)


def _fetched(connection: Connection, wanted: Select[Any]) -> list[Conversation]:
    rows = connection.execute(wanted).all()
    ids = [row.id for row in rows]
    used: defaultdict[str, list[str]] = defaultdict(list)
    calls: defaultdict[str, list[ToolCall]] = defaultdict(list)
    if ids:
        for row in connection.execute(
            select(_used).where(_used.c.conversation_id.in_(ids)).order_by(_used.c.position)
        ):
            used[row.conversation_id].append(row.tool)
        for row in connection.execute(
            select(_calls).where(_calls.c.conversation_id.in_(ids)).order_by(_calls.c.position)
        ):
            call = ToolCall(row.call_id, row.tool, row.ok, row.duration_s, row.error)
            calls[row.conversation_id].append(call)
    return [
        Conversation(
            row.id,
            row.user_id,
            row.user_message,
            row.bot_response,
            tuple(used[row.id]),
            tuple(calls[row.id]),
            row.created_at,
        )
        for row in rows
    ]


def tool_statistics(
    connection: Connection, user_id: str | None, but_for: Collection[str] = ()
) -> list[ToolStatistics]:
    """What each tool did, of one user or of all, the busiest first; some conversations left out by id."""
    uses = select(_used.c.tool, func.count(_used.c.conversation_id.distinct())).group_by(_used.c.tool)
    calls = select(
        _calls.c.tool,
        func.count(),
        func.sum(case((_calls.c.ok, 0), else_=1)),
        func.coalesce(func.sum(_calls.c.duration_s), 0.0),
        func.max(_calls.c.duration_s),
        func.count(_calls.c.duration_s),
    ).group_by(_calls.c.tool)
    if user_id is not None:
        mine = select(_conversations.c.id).where(_conversations.c.user_id == user_id)
        uses = uses.where(_used.c.conversation_id.in_(mine))
        calls = calls.where(_calls.c.conversation_id.in_(mine))
    if but_for:
        dialect = connection.dialect.name
        uses = uses.where(_none_of(dialect, _used.c.conversation_id, but_for))
        calls = calls.where(_none_of(dialect, _calls.c.conversation_id, but_for))
    used = {row[0]: row[1] for row in connection.execute(uses)}
    done = {row[0]: tuple(row[1:]) for row in connection.execute(calls)}
    made = [
        ToolStatistics(tool, used.get(tool, 0), *done.get(tool, (0, 0, 0.0, None, 0)))
        for tool in used.keys() | done.keys()
    ]
    return sorted(made, key=lambda one: (-one.calls - one.used, one.tool))


def _none_of(dialect: str, column: ColumnElement[Any], ids: Collection[str]) -> ColumnElement[bool]:
    """The column is none of so many ids; looked up and not compared one by one, on every PostgreSQL."""
    if dialect == "postgresql":
        given = literal(list(ids), postgresql.ARRAY(column.type))
        return column.not_in(select(func.unnest(given)))
    return column.not_in(list(ids))


# ── forgetting ───────────────────────────────────────────────────────────────────────────────────


def bury(connection: Connection, user_id: str, erased_at: datetime) -> None:
    """Set the tombstone: what the user said until then is not inserted from now on.

    On PostgreSQL, inserts that are under way are waited for, and those that follow see the tombstone: the
    lock is held until the caller commits, which should be at once.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE memory_conversations IN SHARE MODE"))
    statement = _INSERTS[connection.dialect.name](_erasures).values(
        user_mark=user_mark(user_id), erased_at=erased_at
    )
    later = statement.excluded.erased_at
    statement = statement.on_conflict_do_update(
        index_elements=["user_mark"], set_={"erased_at": later}, where=_erasures.c.erased_at < later
    )
    connection.execute(statement)


def wipe(connection: Connection, user_id: str, erased_at: datetime, most: int, *, indexed: bool) -> int:
    """Delete up to `most` of what the user said until then; how many there were, 0 = nothing is left."""
    wanted = select(_conversations.c.id).where(
        _conversations.c.user_id == user_id, _conversations.c.created_at <= literal(erased_at, UtcTime)
    )
    ids = list(connection.scalars(wanted.limit(most)))
    if ids:
        search.forget(connection, ids, indexed=indexed)
        connection.execute(delete(_conversations).where(_conversations.c.id.in_(ids)))
    return len(ids)


def truncate_log(connection: Connection) -> bool:
    """Empty SQLite's write-ahead log, which still holds what was deleted; False = somebody is reading it.

    The connection is in no transaction.
    """
    busy = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").scalar()
    return not busy
