"""Makes SQLAlchemy engines for the two databases: limits, pools, pragmas, transactions.

An engine connects to nothing until it is used. On SQLite every transaction begins by `begin`, which says
whether it will write, because one that begins by reading and goes on to write may fail at once, whatever
the busy timeout. (It is no event: an engine with events on its connections is slower at everything.)
Neighbours: `config` (what is wanted), `postgres` (deadlines), the stores (who use them). Knows no table.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import os
import sqlite3
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url

from workers.memory.config import MemoryConfig


class Begin(enum.Enum):
    """How a transaction begins on SQLite; PostgreSQL's begin by themselves."""

    READ = "DEFERRED"
    WRITE = "IMMEDIATE"
    ALONE = "EXCLUSIVE"
    NOTHING = ""
    """What is asked for cannot be in a transaction."""


PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
)
"""FULL: what is committed is on the disk. Secure: what is deleted is overwritten."""

SERVER_SHARE: Final = 0.9
"""The server's time limit of a statement as a part of ours, so that it usually is the first to say so."""


def make(config: MemoryConfig) -> Engine:
    """An engine for threads, which connects to nothing yet."""
    url = make_url(config.database_url)
    engine = create_engine(url, **_options(config, url))
    _listen(engine, url)
    return engine


def _options(config: MemoryConfig, url: URL) -> dict[str, Any]:
    options: dict[str, Any] = {
        "pool_size": config.pool_size,
        "max_overflow": 0,
        "pool_timeout": config.database_timeout_s,
        "pool_use_lifo": True,
        "hide_parameters": True,
        "connect_args": {"timeout": config.database_timeout_s},
    }
    if url.get_backend_name() == "postgresql":
        limit_ms = int(config.database_timeout_s * 1000)
        limits = f"-c statement_timeout={int(limit_ms * SERVER_SHARE)}"
        limits += f" -c idle_in_transaction_session_timeout={limit_ms}"
        options["use_native_hstore"] = False
        options["connect_args"] = {
            "connect_timeout": int(config.database_connect_timeout_s),
            "tcp_user_timeout": limit_ms,
            **({} if "options" in url.query else {"options": limits}),
            **({} if "application_name" in url.query else {"application_name": "breakerd-memory"}),
        }
    return options


def _listen(engine: Engine, url: URL) -> None:
    if url.get_backend_name() == "postgresql":
        importlib.import_module("workers.memory.postgres").prepare(engine)
        return
    path = str(url.database)

    @event.listens_for(engine, "do_connect")
    def create(*_facts: object) -> None:
        if not os.path.exists(path):
            create_file(path)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin below, not by the driver's guess
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(pragma)
        cursor.close()


def begin(connection: Connection, how: Begin) -> None:
    """Begin on the server's side the transaction that SQLAlchemy thinks it has begun."""
    if how is not Begin.NOTHING and connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"BEGIN {how.value}")


def create_file(path: str) -> None:
    """Make a database file that only this user reads, in WAL mode already; whoever is first wins.

    Switching a file that others have open to WAL fails at once where it meets them, so the switch is done
    under a name of its own. What goes wrong here is said by the connect that follows.
    """
    own = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
    with contextlib.suppress(OSError, sqlite3.Error):
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        os.close(os.open(own, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            with contextlib.closing(sqlite3.connect(own)) as fresh:
                fresh.execute("PRAGMA journal_mode=WAL")
                fresh.execute("PRAGMA user_version=1")
            os.link(own, path)
        finally:
            for suffix in ("", "-wal", "-shm"):
                with contextlib.suppress(OSError):
                    os.unlink(own + suffix)
