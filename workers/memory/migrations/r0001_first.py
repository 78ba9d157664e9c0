"""The first tables: conversations, tools used, tool calls, tombstones."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa

REVISION: Final = "0001"

INDEXED_CHARS: Final = 65_536
"""How much of a text is indexed by PostgreSQL: a tsvector holds at most 1 MiB of words."""

WORDS: Final = f"""
    ALTER TABLE memory_conversations ADD COLUMN words tsvector GENERATED ALWAYS AS (
        to_tsvector('simple'::regconfig,
            left(user_message, {INDEXED_CHARS}) || ' ' || left(bot_response, {INDEXED_CHARS}))
    ) STORED
"""

BY_WORD: Final = "CREATE INDEX memory_conversations_by_word ON memory_conversations USING gin (words)"


def upgrade(connection: sa.Connection) -> None:
    """Make them; SQLite's conversations have the rowid that the search index points at as a column."""
    sqlite = connection.dialect.name == "sqlite"
    tables = sa.MetaData()
    number = [sa.Column("number", sa.Integer, primary_key=True)] if sqlite else []
    sa.Table(
        "memory_conversations",
        tables,
        *number,
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False, primary_key=not sqlite, unique=sqlite),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("user_message", sa.Text, nullable=False),
        sa.Column("bot_response", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Index("memory_conversations_by_user", "user_id", "id"),
    )
    _tools(tables)
    sa.Table(
        "memory_erasures",
        tables,
        sa.Column("user_mark", sa.String(64), primary_key=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
    )
    tables.create_all(connection, checkfirst=False)
    if not sqlite:
        connection.exec_driver_sql(WORDS)
        connection.exec_driver_sql(BY_WORD)


def _tools(tables: sa.MetaData) -> None:
    """The two tables that hang on a conversation."""
    columns: dict[str, list[sa.Column[Any]]] = {
        "memory_tools_used": [sa.Column("tool", sa.String(255), nullable=False)],
        "memory_tool_calls": [
            sa.Column("call_id", sa.String(255), nullable=False),
            sa.Column("tool", sa.String(255), nullable=False),
            sa.Column("ok", sa.Boolean, nullable=False),
            sa.Column("duration_s", sa.Float(53)),
            sa.Column("error", sa.Text),
        ],
    }
    for name, own in columns.items():
        sa.Table(
            name,
            tables,
            sa.Column(
                "conversation_id",
                sa.Uuid(as_uuid=False),
                sa.ForeignKey("memory_conversations.id", ondelete="CASCADE"),
                primary_key=True,
            ),
            sa.Column("position", sa.SmallInteger, primary_key=True, autoincrement=False),
            *own,
        )
