"""Brings the tables up to date: a list of migrations, one process at a time, all of them or none.

A migration is a function of the connection, and `memory_version` has the name of the last one that was run.
Nothing here is global, so any number of databases may be migrated at the same time, by threads and by loops.
PostgreSQL: an advisory lock of the transaction, which dies with it. SQLite: an exclusive transaction.
Neighbours: `migrations` (what is done), the store (who asks).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from sqlalchemy import Connection, text

from workers.errors import SchemaError
from workers.memory.config import MemoryConfig
from workers.memory.migrations import r0001_first

VERSION_TABLE: Final = "memory_version"
MIGRATIONS: Final[tuple[tuple[str, Callable[[Connection], None]], ...]] = (
    (r0001_first.REVISION, r0001_first.upgrade),
)
"""Every migration, oldest first. One only adds: a process of the version before must go on working."""
REVISIONS: Final = tuple(revision for revision, _ in MIGRATIONS)

LOCK: Final = 0x627265616B657264
"""The advisory lock's key: "breakerd"."""

COLUMNS: Final = ("id", "user_id", "user_message", "bot_response", "created_at")
"""What a table of conversations has if it is ours."""

_log: Final = logging.getLogger("breakerd.memory")


def has_table(connection: Connection, name: str) -> bool:
    """Whether the connection sees a table of this name."""
    query = "SELECT to_regclass(:name) IS NOT NULL"
    if connection.dialect.name == "sqlite":
        query = "SELECT count(*) FROM sqlite_master WHERE name = :name"
    return bool(connection.scalar(text(query), {"name": name}))


def up_to_date(connection: Connection) -> bool:
    """True if nothing is to be done. Tables of a newer version will do: migrations only add."""
    found = _revision(connection)
    if found is not None and found not in REVISIONS:
        _log.warning("the memory tables were migrated by a newer version (%s); going on with them", found)
        return True
    return found == REVISIONS[-1]


def _revision(connection: Connection) -> str | None:
    """The last migration that was run; None = none."""
    if not has_table(connection, VERSION_TABLE):
        return None
    found = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 (a constant)
    return None if found is None else str(found)


def upgrade(connection: Connection, timeout_s: float, schema: str = "") -> None:
    """Run what is missing. The connection is in a transaction (exclusive on SQLite); the caller commits."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        if schema and not _has_schema(connection, schema):
            quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
            connection.exec_driver_sql(f"CREATE SCHEMA {quoted}")
    if up_to_date(connection):
        return
    done = _revision(connection) or _adopted(connection)
    first = REVISIONS.index(done) + 1 if done else 0
    for _, migrate in MIGRATIONS[first:]:
        migrate(connection)
    _record(connection, REVISIONS[-1])


def _has_schema(connection: Connection, schema: str) -> bool:
    query = text("SELECT count(*) FROM pg_catalog.pg_namespace WHERE nspname = :name")
    return bool(connection.scalar(query, {"name": schema}))


def _adopted(connection: Connection) -> str | None:
    """Tables that are there although their version is not: those of the first migration, or a stranger's."""
    if not has_table(connection, "memory_conversations"):
        return None
    link = connection.execute(text("SELECT * FROM memory_conversations LIMIT 0"))
    if missing := set(COLUMNS) - set(link.keys()):
        raise SchemaError(
            f"the table memory_conversations is not breakerd's: it has no {', '.join(sorted(missing))}"
        )
    return REVISIONS[0]


def _record(connection: Connection, revision: str) -> None:
    """As Alembic wrote it, so that processes of a version that used it still read it."""
    if not has_table(connection, VERSION_TABLE):
        primary = f"CONSTRAINT {VERSION_TABLE}_pkc PRIMARY KEY (version_num)"
        connection.execute(
            text(f"CREATE TABLE {VERSION_TABLE} (version_num VARCHAR(32) NOT NULL, {primary})")
        )
    connection.execute(text(f"DELETE FROM {VERSION_TABLE}"))  # noqa: S608 (a constant)
    statement = text(f"INSERT INTO {VERSION_TABLE} (version_num) VALUES (:revision)")  # noqa: S608 (a constant)
    connection.execute(statement, {"revision": revision})


def bring(connection: Connection, config: MemoryConfig) -> None:
    """Migrate, if the configuration lets us; SchemaError if the tables are old and it does not."""
    if config.migrate:
        upgrade(connection, config.migrate_timeout_s, config.schema)
    elif not up_to_date(connection):
        raise SchemaError(f"the memory tables are not at revision {REVISIONS[-1]}, and `migrate` is off")
