"""Brings the tables up to date: Alembic's migrations, one process at a time, all of them or none.

PostgreSQL: an advisory lock of the transaction, which dies with it. SQLite: an exclusive transaction. Alembic
is loaded only where something is to be done. Neighbours: `migrations` (what is done), the stores (who ask).
"""

from __future__ import annotations

import importlib
import logging
import os
from typing import Final

from sqlalchemy import Connection, inspect, text

from workers.errors import SchemaError
from workers.memory.config import MemoryConfig

VERSION_TABLE: Final = "memory_version"
REVISIONS: Final = ("0001",)
"""Every migration, oldest first; a test compares them with the files."""

LOCK: Final = 0x627265616B657264
"""The advisory lock's key: "breakerd"."""

_log: Final = logging.getLogger("breakerd.memory")


def up_to_date(connection: Connection) -> bool:
    """True if nothing is to be done. Tables of a newer version will do: migrations only add."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return False
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 (a constant)
    if found is not None and found not in REVISIONS:
        _log.warning("the memory tables were migrated by a newer version (%s); going on with them", found)
        return True
    return bool(found == REVISIONS[-1])


def upgrade(connection: Connection, timeout_s: float) -> None:
    """Run what is missing. The connection is in a transaction (exclusive on SQLite); the caller commits."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SET LOCAL statement_timeout = {int(timeout_s * 1000)}"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    if up_to_date(connection):
        return
    command = importlib.import_module("alembic.command")
    config = importlib.import_module("alembic.config").Config()
    folder = os.path.join(os.path.dirname(__file__), "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def bring(connection: Connection, config: MemoryConfig) -> None:
    """Migrate, if the configuration lets us; SchemaError if the tables are old and it does not."""
    if config.migrate:
        upgrade(connection, config.migrate_timeout_s)
    elif not up_to_date(connection):
        raise SchemaError(f"the memory tables are not at revision {REVISIONS[-1]}, and `migrate` is off")
