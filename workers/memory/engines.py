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
from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url

from workers.memory.config import MemoryConfig
from workers.memory.places import server_options


class Begin(enum.Enum):
    """How a transaction begins on SQLite; PostgreSQL's begin by themselves."""

    READ = "DEFERRED"
    WRITE = "IMMEDIATE"
    ALONE = "EXCLUSIVE"
    NOTHING = ""
    """What is asked for cannot be in a transaction."""


PRAGMAS: Final = (
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA secure_delete=ON",
)
"""FULL: what is committed is on the disk. Secure: what is deleted is overwritten."""

OURS: Final = ("prepare_threshold",)
"""Parameters of a URL that are the driver's and not the server's."""

SERVER_SHARE: Final = 0.9
"""The server's time limit of a statement as a part of ours, so that it usually is the first to say so."""


def make(config: MemoryConfig) -> Engine:
    """An engine for threads, which connects to nothing yet."""
    url = make_url(config.database_url)
    engine = create_engine(url.difference_update_query(OURS), **_options(config, url))
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
        options["use_native_hstore"] = False
        options["connect_args"] = {
            "prepare_threshold": prepare_threshold(url),
            "connect_timeout": int(config.database_connect_timeout_s),
            "tcp_user_timeout": limit_ms,
            **({} if "application_name" in url.query else {"application_name": "breakerd-memory"}),
        }
    return options


def _listen(engine: Engine, url: URL) -> None:
    if url.get_backend_name() == "postgresql":
        importlib.import_module("workers.memory.postgres").prepare(engine)
        return
    path = str(url.database)

    @event.listens_for(engine, "do_connect")
    def create(_dialect: object, _record: object, _cargs: object, cparams: Any) -> object:
        if not os.path.exists(path):
            create_file(path)
        if not is_read_only(path):
            return None
        return sqlite3.connect(_read_only(path), **{**cparams, "uri": True})

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin below, not by the driver's guess
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(pragma)
        if not cursor.execute("PRAGMA page_count").fetchone()[0]:  # somebody has made an empty file
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()


def prepare_threshold(url: URL) -> int | None:
    """After how many executions the driver prepares a statement; None = never, which every pooler can bear.

    Raises ValueError for what is no number.
    """
    given = url.query.get("prepare_threshold", "None")
    return None if given in ("", "None", "none") else int(str(given))


def transaction_settings(config: MemoryConfig) -> str:
    """What PostgreSQL is told at the beginning of every transaction; "" for SQLite.

    Each setting ends with its transaction: behind a pooler the next one may run on another connection, and
    other clients on this one. Limits that the URL's `options` set stay as they are.
    """
    url = make_url(config.database_url)
    if url.get_backend_name() != "postgresql":
        return ""
    limit_ms = int(config.database_timeout_s * 1000)
    given = {
        "statement_timeout": str(int(limit_ms * SERVER_SHARE)),
        "idle_in_transaction_session_timeout": str(limit_ms),
    }
    for name in server_options(url):
        given.pop(name, None)
    if config.schema:
        quoted = config.schema.replace('"', '""').replace("%", "%%")  # the driver reads % as a parameter
        given["search_path"] = f'"{quoted}"'
    return "; ".join(f"SET LOCAL {name} = {value}" for name, value in given.items())


def begin(connection: Connection, how: Begin, settings: str) -> None:
    """Begin on the server's side the transaction that SQLAlchemy thinks it has begun."""
    if settings:
        connection.exec_driver_sql(settings)
    if how is not Begin.NOTHING and connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"BEGIN {how.value}")


def is_read_only(path: str) -> bool:
    """Whether this process can read an existing file and not write it."""
    return os.access(path, os.R_OK) and not _writable(path)


def _writable(path: str) -> bool:
    beside = os.path.dirname(path), f"{path}-wal"
    return os.access(path, os.W_OK) and any(os.access(one, os.W_OK) for one in beside)


def _read_only(path: str) -> str:
    """The file as a URI. Where nobody can be writing it, SQLite needs no files beside it."""
    still = not os.access(os.path.dirname(path), os.W_OK) and not os.path.exists(f"{path}-wal")
    return Path(path).as_uri() + ("?mode=ro&immutable=1" if still else "?mode=ro")


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
