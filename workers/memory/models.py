"""The tables, as SQLAlchemy models: conversations, the tools used in them, the calls of tools, tombstones.

    memory_conversations 1 ── n memory_tools_used
                         1 ── n memory_tool_calls
    memory_erasures      who was erased, until when, by a hash of the name

On SQLite, conversations have one more column, `number`, the rowid that the search index points at; on
PostgreSQL, `words`, a generated tsvector. Both belong to the database alone and are made by the migrations,
which a test compares with these models. Neighbours: `records` (the values), `queries` (the statements).
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    Boolean,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    SmallInteger,
    String,
    Text,
    Uuid,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from workers.memory.records import NAME_CHARS_MAX, USER_ID_CHARS_MAX


class UtcTime(TypeDecorator[datetime]):
    """A moment: `timestamptz` on PostgreSQL, a text that sorts by time (in UTC) on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC; without a zone where the database knows none."""
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 (SQLAlchemy passes it)
    ) -> datetime | None:
        """Always with its zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Model(DeclarativeBase):
    """The declarative registry of the memory layer alone."""


class ConversationRow(Model):
    """One exchange between a user and an agent."""

    __tablename__ = "memory_conversations"

    id: Mapped[str] = mapped_column(Uuid(as_uuid=False), primary_key=True)
    user_id: Mapped[str] = mapped_column(String(USER_ID_CHARS_MAX))
    user_message: Mapped[str] = mapped_column(Text)
    bot_response: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (Index("memory_conversations_by_user", "user_id", "id"),)


class ToolUsedRow(Model):
    """A tool's name among those used in a conversation."""

    __tablename__ = "memory_tools_used"

    conversation_id: Mapped[str] = mapped_column(
        ForeignKey("memory_conversations.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    tool: Mapped[str] = mapped_column(String(NAME_CHARS_MAX))


class ToolCallRow(Model):
    """One call of a tool in a conversation."""

    __tablename__ = "memory_tool_calls"

    conversation_id: Mapped[str] = mapped_column(
        ForeignKey("memory_conversations.id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    call_id: Mapped[str] = mapped_column(String(NAME_CHARS_MAX))
    tool: Mapped[str] = mapped_column(String(NAME_CHARS_MAX))
    ok: Mapped[bool] = mapped_column(Boolean)
    duration_s: Mapped[float | None] = mapped_column(Float(53))
    error: Mapped[str | None] = mapped_column(Text)


class ErasureRow(Model):
    """A tombstone: what this user said until then must not come back."""

    __tablename__ = "memory_erasures"

    user_mark: Mapped[str] = mapped_column(String(64), primary_key=True)
    erased_at: Mapped[datetime] = mapped_column(UtcTime)
