"""How often the answer is among the first five: breakerd beside plain FTS5 and plain tsvector.

The questions are those of the tests, among the same idle talk. The plain ones do what their manuals show: the
stemmer of English, any word of the question will do, the index's own rank. Needs the tests' extra, for a
private PostgreSQL. Neighbours: `tests.workers.memory.questions`, `tests.servers`.
"""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from typing import Final

import sqlalchemy as sa

from benchmarks.figures import Figure, main
from tests.servers import Postgres, room
from tests.workers.memory.questions import asked, talk
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation
from workers.memory.store import Store

FIRST: Final = 5
ENGLISH_TARGET: Final = 0.95
EVERY_TARGET: Final = 0.9

Ask = Callable[[str], list[str]]


def quality(ask: Ask) -> tuple[float, float, float]:
    """The share of English questions, and of all, whose answer is among the first; seconds for a question."""
    began = time.perf_counter()
    right = [(kind, message in ask(question)) for kind, question, message in asked()]
    took = time.perf_counter() - began
    english = [found for kind, found in right if kind == "english"]
    every = [found for _, found in right]
    return sum(english) / len(english), sum(every) / len(every), took / len(every)


def breakerd(url: str) -> tuple[float, float, float]:
    """The memory layer on this database."""
    with Store(MemoryConfig(database_url=url)) as store:
        store.insert([Conversation.now("ann", message, answer) for message, answer in talk()])
        return quality(
            lambda asks: [one.conversation.user_message for one in store.search("ann", asks, FIRST)]
        )


def fts5() -> tuple[float, float, float]:
    """SQLite's index alone."""
    with closing(sqlite3.connect(":memory:")) as link:
        link.execute("CREATE VIRTUAL TABLE said USING fts5(message, answer, tokenize='porter unicode61')")
        link.executemany("INSERT INTO said VALUES (?, ?)", talk())
        statement = "SELECT message FROM said WHERE said MATCH ? ORDER BY bm25(said) LIMIT 5"

        def ask(question: str) -> list[str]:
            words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question))
            return [row[0] for row in link.execute(statement, (words,))] if words else []

        return quality(ask)


TSVECTOR: Final = sa.text(
    "WITH question AS (SELECT replace(plainto_tsquery('english', :asks)::text, '&', '|')::tsquery AS any_of) "
    "SELECT message FROM said, question WHERE words @@ any_of ORDER BY ts_rank(words, any_of) DESC LIMIT 5"
)


def tsvector(url: str) -> tuple[float, float, float]:
    """PostgreSQL's index alone."""
    engine = sa.create_engine(url)
    with engine.begin() as link:
        link.execute(sa.text("CREATE TABLE said (message text, answer text, words tsvector)"))
        insert = sa.text(
            "INSERT INTO said "
            "VALUES (:m, :a, to_tsvector('english', CAST(:m AS text) || ' ' || CAST(:a AS text)))"
        )
        link.execute(insert, [{"m": message, "a": answer} for message, answer in talk()])
    with engine.connect() as link:
        found = quality(lambda asks: list(link.scalars(TSVECTOR, {"asks": asks})))
    engine.dispose()
    return found


def compared(name: str, ours: tuple[float, float, float], theirs: tuple[float, float, float]) -> Figure:
    """One row: ours beside the plain one."""
    plain = "FTS5" if "SQLite" in name else "tsvector"
    return Figure(
        f"search on {name}: the answer is among the first {FIRST}, of {len(asked())} questions",
        f"{ours[0]:.0%} of English ones, {ours[1]:.0%} of all ({ours[2] * 1e3:.1f} ms each)",
        f"plain {plain}: {theirs[0]:.0%} and {theirs[1]:.0%} ({theirs[2] * 1e3:.1f} ms)",
        f">= {ENGLISH_TARGET:.0%} and {EVERY_TARGET:.0%}",
        ours[0] >= ENGLISH_TARGET and ours[1] >= EVERY_TARGET,
    )


def measure() -> list[Figure]:
    """A row for each database."""
    os.environ["BREAKERD_SOCKET"] = "off"  # whoever runs here, this is about the memory alone
    with tempfile.TemporaryDirectory(prefix="bks-") as folder:
        rows = [compared("SQLite", breakerd(f"sqlite:///{folder}/memory.db"), fts5())]
    with room() as place:
        server = Postgres(place).initialise().start()
        try:
            ours, plain = breakerd(server.url(server.database())), tsvector(server.url())
            rows.append(compared("PostgreSQL", ours, plain))
        finally:
            server.kill()
    return rows


if __name__ == "__main__":
    sys.exit(main(measure))
