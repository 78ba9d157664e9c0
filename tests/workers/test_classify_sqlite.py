"""Errors of a real SQLite, as sqlite3 and as SQLAlchemy raise them, are what the table says."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
import sqlalchemy as sa

from tests.workers.facts import check, provoked
from workers.kinds import ErrorType

QUERY, LINK = ErrorType.DATABASE_QUERY, ErrorType.DATABASE_CONNECTION


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with a table of one row."""
    made = tmp_path / "one.db"
    with sqlite3.connect(made) as link:
        link.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
        link.execute("INSERT INTO t VALUES (1, 'one')")
    link.close()
    return made


def failing(path: Path, *statements: str, **given: Any) -> Exception:
    """What the last of these statements raises."""
    link = sqlite3.connect(path, timeout=0.01, **given)
    try:
        for statement in statements[:-1]:
            link.execute(statement)
        return provoked(lambda: link.execute(statements[-1]).fetchall())
    finally:
        link.close()


@pytest.mark.parametrize(
    ("statement", "flags", "name"),
    [
        ("SELECT 1 FORM t", "C--", "ERROR"),
        ("SELECT * FROM nowhere", "C--", "ERROR"),
        ("INSERT INTO t VALUES (1, 'uno')", "C--", "CONSTRAINT"),
        ("INSERT INTO t VALUES (2, NULL)", "C--", "CONSTRAINT"),
        ("INSERT INTO t VALUES ('word', 'two')", "C--", "MISMATCH"),
        ("SELECT zeroblob(1 << 62)", "C--", "TOOBIG"),
    ],
)
def test_statements(path: Path, statement: str, flags: str, name: str) -> None:
    """What is wrong with them is the caller's fault; SQLAlchemy's error tells the same."""
    check(failing(path, statement), flags, QUERY, f"sqlite {name}")
    engine = sa.create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        error = provoked(lambda: connection.exec_driver_sql(statement).fetchall())
    engine.dispose()
    assert isinstance(error, sa.exc.DBAPIError)
    assert isinstance(error.orig, sqlite3.Error)
    assert error.orig.sqlite_errorname.startswith(f"SQLITE_{name}")
    check(error, flags, QUERY, f"sqlite {name}")


def test_another_process_has_the_lock(path: Path) -> None:
    """BUSY counts: it comes after busy_timeout. So does LOCKED, within one process."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    check(failing(path, "INSERT INTO t VALUES (2, 'two')"), "Drc", QUERY, "sqlite BUSY")
    holder.close()
    shared = [sqlite3.connect("file:one?mode=memory&cache=shared", uri=True, timeout=0.01) for _ in range(2)]
    shared[0].execute("CREATE TABLE t (id)")
    shared[0].execute("INSERT INTO t VALUES (1)")
    error = provoked(lambda: shared[1].execute("SELECT * FROM t").fetchall())
    for link in shared:
        link.close()
    check(error, "Drc", QUERY, "sqlite LOCKED")


def test_the_disk_is_full(path: Path) -> None:
    """FULL is this machine's: waiting does not help, and the database is not down."""
    many = "INSERT INTO t SELECT value, hex(zeroblob(9999)) FROM json_each('[2,3,4,5]')"
    check(failing(path, "PRAGMA max_page_count = 2", many), "L--", QUERY, "sqlite FULL")


def test_the_file_is_damaged(path: Path) -> None:
    """CORRUPT, and NOTADB for what never was one."""
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))
    check(failing(path, "SELECT * FROM t"), "L--", QUERY, "sqlite CORRUPT")
    path.write_bytes(b"this is no database, and was none at any time" * 99)
    check(failing(path, "SELECT * FROM t"), "S--", LINK, "sqlite NOTADB")


def test_the_file_may_not_be_written(path: Path) -> None:
    """READONLY is a setting's fault; a file that cannot be opened is an outage."""
    error = failing(f"file:{path}?mode=ro", "INSERT INTO t VALUES (2, 'two')", uri=True)  # type: ignore[arg-type]  # a URI
    check(error, "S--", QUERY, "sqlite READONLY")
    missing = provoked(lambda: sqlite3.connect(path / "below a file"))
    check(missing, "Drc", LINK, "sqlite CANTOPEN")


def test_interrupted(path: Path) -> None:
    """A progress handler that says stop."""
    link = sqlite3.connect(path)
    link.set_progress_handler(lambda: 1, 1)
    error = provoked(lambda: link.execute("SELECT * FROM t").fetchall())
    link.close()
    check(error, "Cr-", QUERY, "sqlite INTERRUPT")


def test_a_program_that_is_wrong(path: Path) -> None:
    """What sqlite3 itself refuses has no code of SQLite's."""
    link = sqlite3.connect(path)
    unbound = provoked(lambda: link.execute("SELECT ?", ()))
    unknown = provoked(lambda: link.execute("SELECT ?", (object(),)))
    link.close()
    closed = provoked(lambda: link.execute("SELECT 1"))
    for error in (unbound, unknown, closed):
        check(error, "C--", QUERY, "class sqlite3.ProgrammingError")


def test_the_asynchronous_driver(path: Path) -> None:
    """It raises sqlite3's own errors."""

    async def ask() -> Exception:
        async with aiosqlite.connect(path) as link:
            try:
                await link.execute("SELECT * FROM nowhere")
            except sqlite3.Error as error:
                return error
        raise AssertionError("it answered")

    check(asyncio.run(ask()), "C--", QUERY, "sqlite ERROR")
