"""The first tables: conversations, tools used, tool calls, tombstones."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from alembic import op

revision: Final = "0001"
down_revision: Final = None

INDEXED_CHARS: Final = 65_536
"""How much of a text is indexed by PostgreSQL: a tsvector holds at most 1 MiB of words."""

WORDS: Final = f"""
    ALTER TABLE memory_conversations ADD COLUMN words tsvector GENERATED ALWAYS AS (
        to_tsvector('simple'::regconfig,
            left(user_message, {INDEXED_CHARS}) || ' ' || left(bot_response, {INDEXED_CHARS}))
    ) STORED
"""


def upgrade() -> None:
    """Make them; SQLite's conversations have the rowid that the search index points at as a column."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    number = [sa.Column("number", sa.Integer, primary_key=True)] if sqlite else []
    op.create_table(
        "memory_conversations",
        *number,
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False, primary_key=not sqlite, unique=sqlite),
        sa.Column("user_id", sa.String(255), nullable=False),
        sa.Column("user_message", sa.Text, nullable=False),
        sa.Column("bot_response", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("memory_conversations_by_user", "memory_conversations", ["user_id", "id"])
    if not sqlite:
        op.execute(WORDS)
        op.create_index(
            "memory_conversations_by_word", "memory_conversations", ["words"], postgresql_using="gin"
        )
    _tools()
    op.create_table(
        "memory_erasures",
        sa.Column("user_mark", sa.String(64), primary_key=True),
        sa.Column("erased_at", sa.DateTime(timezone=True), nullable=False),
    )


def _tools() -> None:
    """The two tables that hang on a conversation."""
    tables: dict[str, list[sa.Column[Any]]] = {
        "memory_tools_used": [sa.Column("tool", sa.String(255), nullable=False)],
        "memory_tool_calls": [
            sa.Column("call_id", sa.String(255), nullable=False),
            sa.Column("tool", sa.String(255), nullable=False),
            sa.Column("ok", sa.Boolean, nullable=False),
            sa.Column("duration_s", sa.Float(53)),
            sa.Column("error", sa.Text),
        ],
    }
    for name, columns in tables.items():
        op.create_table(
            name,
            sa.Column(
                "conversation_id",
                sa.Uuid(as_uuid=False),
                sa.ForeignKey("memory_conversations.id", ondelete="CASCADE"),
                primary_key=True,
            ),
            sa.Column("position", sa.SmallInteger, primary_key=True, autoincrement=False),
            *columns,
        )


def downgrade() -> None:
    """Drop them."""
    for table in ("memory_erasures", "memory_tool_calls", "memory_tools_used", "memory_conversations"):
        op.drop_table(table)
