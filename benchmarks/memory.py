"""What the memory layer costs: storing, reading from the cache, and storing while the database is away.

Each is measured against the plainest code that does the same with the same library and the same durability,
the two taking turns in one run, in the embedded default (one SQLite file, synced at every commit) and a
private Valkey. Neighbours: `tests.servers`, which starts it.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import redis
import sqlalchemy as sa
from sqlalchemy import event

from benchmarks.figures import Figure, main, middle
from tests.servers import RedisServer
from workers.memory import recall
from workers.memory.cache import key_of
from workers.memory.config import MemoryConfig
from workers.memory.engines import PRAGMAS
from workers.memory.ids import new_id, utc_now
from workers.memory.manager import EnhancedMemoryLayerManager
from workers.memory.models import ConversationRow, ToolUsedRow

ROUNDS: Final = 7
STORES: Final = 150
"""Conversations of a round."""
READS: Final = 500
THREADS: Final = 8
SPOOLED: Final = 60
"""Conversations of each thread in a round."""
STORE_TARGET: Final = 1.3
READ_TARGET: Final = 1.5
DEGRADED_TARGET: Final = 4.0

QUESTION: Final = "How do I handle errors in an agent that keeps a memory of what its users say? " * 3
ANSWER: Final = "Classify each error, retry what passes, and keep what the database does not take. " * 8
TOOLS: Final = ("documentation", "examples")


def seconds(work: Callable[[], object], times: int) -> float:
    """How long one call takes, of so many in a row."""
    began = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - began) / times


def turns(one: Callable[[], float], other: Callable[[], float]) -> tuple[float, float]:
    """The medians of two that take turns; the first round is warming up."""
    pairs = [(one(), other()) for _ in range(ROUNDS + 1)][1:]
    return middle(pair[0] for pair in pairs), middle(pair[1] for pair in pairs)


# --- storing ------------------------------------------------------------------------------------------


def plain_engine(path: str) -> sa.Engine:
    """What a program with SQLAlchemy alone would make, as durable as ours."""
    engine = sa.create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in PRAGMAS:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


INDEXED: Final = sa.text(
    "INSERT INTO memory_search(rowid, user_message, bot_response) "
    "SELECT number, user_message, bot_response FROM memory_conversations WHERE id = :id"
).bindparams(sa.bindparam("id", type_=sa.Uuid(as_uuid=False)))


def store_plainly(engine: sa.Engine) -> None:
    """The same rows in one transaction: a conversation, its words in the index, its tools."""
    identity = new_id()
    row = {
        "id": identity,
        "user_id": "ann",
        "user_message": QUESTION,
        "bot_response": ANSWER,
        "created_at": utc_now(),
    }
    with engine.begin() as link:
        link.execute(sa.insert(ConversationRow), row)
        used = [{"conversation_id": identity, "position": n, "tool": tool} for n, tool in enumerate(TOOLS)]
        link.execute(sa.insert(ToolUsedRow), used)
        link.execute(INDEXED, {"id": identity})


def store(manager: EnhancedMemoryLayerManager) -> None:
    """One exchange. Raises RuntimeError if it was not kept."""
    if not manager.store_conversation_safe("ann", QUESTION, ANSWER, TOOLS):
        raise RuntimeError("a conversation was not kept")


def healthy(folder: str) -> Figure:
    """Storing while all is well."""
    config = MemoryConfig(database_url=f"sqlite:///{folder}/ours.db", spool_directory=f"{folder}/healthy")
    twin = MemoryConfig(database_url=f"sqlite:///{folder}/plain.db", spool_directory=f"{folder}/twin")
    with EnhancedMemoryLayerManager(twin) as manager:
        store(manager)  # its tables are the same
    engine = plain_engine(f"{folder}/plain.db")
    with EnhancedMemoryLayerManager(config) as manager:
        store(manager)
        ours, plain = turns(
            lambda: seconds(lambda: store(manager), STORES),
            lambda: seconds(lambda: store_plainly(engine), STORES),
        )
    engine.dispose()
    ratio = ours / plain
    return Figure(
        "`store_conversation_safe`, healthy, one SQLite file",
        f"{ours * 1e3:.2f} ms ({1 / ours:,.0f}/s)",
        f"**{ratio:.2f} x** the same rows, transaction and fsync in plain SQLAlchemy",
        f"<= {STORE_TARGET} x",
        ratio <= STORE_TARGET,
    )


# --- reading ------------------------------------------------------------------------------------------


def cached(folder: str) -> Figure:
    """Reading what the cache has."""
    Path(folder, "valkey").mkdir()
    server = RedisServer.valkey(Path(folder, "valkey")).start()
    try:
        config = MemoryConfig(
            database_url=f"sqlite:///{folder}/read.db",
            spool_directory=f"{folder}/reading",
            cache_url=server.url(),
            soft_age_s=3600.0,
        )
        client = redis.Redis.from_url(server.url())
        with EnhancedMemoryLayerManager(config) as manager:
            for _ in range(20):
                store(manager)
            manager.retrieve_context_safe("errors agent", "ann")
            field = recall.search_field("errors agent", 10)
            payload = client.hget(key_of(config.cache_namespace, "ann"), field)
            client.set("bare", payload)  # type: ignore[arg-type] # the bytes that were just read
            ours, bare = turns(
                lambda: seconds(lambda: manager.retrieve_context_safe("errors agent", "ann"), READS),
                lambda: seconds(lambda: client.get("bare"), READS),
            )
        client.close()
    finally:
        server.kill()
    ratio = ours / bare
    return Figure(
        f"`retrieve_context_safe` from the cache, 10 conversations ({len(payload):,} bytes)",  # type: ignore[arg-type] # as above
        f"{ours * 1e6:.0f} us (bare {bare * 1e6:.0f} us)",
        f"**{ratio:.2f} x** a bare redis-py GET of the same payload",
        f"<= {READ_TARGET} x",
        ratio <= READ_TARGET,
    )


# --- storing while the database is away ---------------------------------------------------------------


def lone(connection: sqlite3.Connection) -> None:
    """One synchronous commit of one conversation's bytes."""
    identity = new_id()
    body = f"{identity}{QUESTION}{ANSWER}".encode()
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO kept VALUES (?, ?, ?)", (identity, hashlib.sha256(body).digest(), body))
    connection.execute("COMMIT")


def together(manager: EnhancedMemoryLayerManager) -> float:
    """Seconds per conversation with all threads at it."""
    start = threading.Barrier(THREADS + 1)

    def run() -> None:
        start.wait()
        for _ in range(SPOOLED):
            store(manager)

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - began) / (THREADS * SPOOLED)


def degraded(folder: str) -> Figure:
    """Storing into the spool, from many threads."""
    config = MemoryConfig(database_url=f"sqlite:///{folder}/away.db", spool_directory=f"{folder}/spool")
    with closing(sqlite3.connect(f"{folder}/lone.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE kept (id TEXT PRIMARY KEY, sum BLOB, body BLOB)")
        manager = EnhancedMemoryLayerManager(config)
        manager.error_handler.get_circuit_breaker("database").force_open()
        ours, alone = turns(lambda: together(manager), lambda: seconds(lambda: lone(connection), STORES))
        manager.close()
    ratio = alone / ours
    return Figure(
        f"storing while the database is away, {THREADS} threads",
        f"{1 / ours:,.0f}/s (a lone synchronous commit: {1 / alone:,.0f}/s)",
        f"**{ratio:.1f} x** a lone synchronous commit",
        f">= {DEGRADED_TARGET:g} x",
        ratio >= DEGRADED_TARGET,
    )


def measure() -> list[Figure]:
    """Three rows, with files where temporary files are."""
    os.environ["BREAKERD_SOCKET"] = "off"  # whoever runs here, this is about the memory alone
    with tempfile.TemporaryDirectory(prefix="bkb-") as folder:
        return [healthy(folder), cached(folder), degraded(folder)]


if __name__ == "__main__":
    sys.exit(main(measure))
