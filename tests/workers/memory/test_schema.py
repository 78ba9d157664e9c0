"""The tables come with the first use, once, as the models say, and a newer version's will do."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine, inspect, text

from tests.servers import Postgres
from tests.workers.memory.shelves import Shelf
from workers.errors import SchemaError
from workers.memory import search
from workers.memory.config import MemoryConfig
from workers.memory.models import Model
from workers.memory.records import Conversation
from workers.memory.store import Store

ROOT = Path(__file__).resolve().parents[3]


def test_the_tables_are_the_models(shelf: Shelf) -> None:
    """Columns, keys and indexes are those of the models, but for what belongs to one database alone."""
    shelf.ping()
    engine = create_engine(shelf.config.database_url)
    found = inspect(engine)
    for table in Model.metadata.sorted_tables:
        columns = {one["name"]: one for one in found.get_columns(table.name)}
        only_here = {"number", "words"} & set(columns)
        assert set(columns) - only_here == {one.name for one in table.columns}
        for one in table.columns:
            there = columns[one.name]
            assert there["nullable"] is bool(one.nullable and not one.primary_key), one
            kind = one.type.compile(engine.dialect)
            if not shelf.sqlite:
                kind = kind.replace("FLOAT(53)", "DOUBLE PRECISION")
            assert there["type"].compile(engine.dialect) == kind, one
        primary = {"number"} if "number" in only_here else {one.name for one in table.primary_key}
        assert set(found.get_pk_constraint(table.name)["constrained_columns"]) == primary
        keys = found.get_foreign_keys(table.name)
        foreign = {(key["referred_table"], key["options"].get("ondelete")) for key in keys}
        assert foreign == {(key.column.table.name, key.ondelete) for key in table.foreign_keys}
        indexes = {(one["name"], tuple(one["column_names"])) for one in found.get_indexes(table.name)}
        wanted = {(one.name, tuple(column.name for column in one.columns)) for one in table.indexes}
        assert {one for one in indexes if one[0] != "memory_conversations_by_word"} == wanted
    engine.dispose()


def test_tables_that_alembic_made_are_recognised(shelf: Shelf) -> None:
    """A database of the version that used Alembic is up to date: nothing is made again."""
    shelf.insert(Conversation.now("ann", "kept", "b"))
    change(shelf, "DROP TABLE memory_version")
    change(
        shelf,
        "CREATE TABLE memory_version (version_num VARCHAR(32) NOT NULL, "
        "CONSTRAINT memory_version_pkc PRIMARY KEY (version_num))",
    )
    change(shelf, "INSERT INTO memory_version VALUES ('0001')")
    with Store(replace(shelf.config, migrate=False)) as store:
        assert [one.user_message for one in store.history("ann")] == ["kept"]


@pytest.mark.parametrize("lost", ["DELETE FROM memory_version", "DROP TABLE memory_version"])
def test_tables_without_their_version_are_adopted(shelf: Shelf, lost: str) -> None:
    """The version was lost, the tables were not: they are used as they are."""
    shelf.insert(Conversation.now("ann", "kept", "b"))
    change(shelf, lost)
    with Store(shelf.config) as store:
        assert store.insert([Conversation.now("ann", "more", "b")]) == 1
        assert [one.user_message for one in store.history("ann")] == ["more", "kept"]
    with Store(replace(shelf.config, migrate=False)) as store:
        store.ping()


def test_a_strangers_table_is_left_alone(shelf: Shelf) -> None:
    """A table of our name that is not ours is an error that says so; it is neither used nor changed."""
    change(shelf, "CREATE TABLE memory_conversations (id INTEGER, body TEXT)")
    with pytest.raises(SchemaError, match=r"not breakerd's: it has no bot_response, created_at"):
        shelf.insert(Conversation.now("ann", "a", "b"))
    engine = create_engine(shelf.config.database_url)
    assert inspect(engine).get_table_names() == ["memory_conversations"]
    engine.dispose()


def test_many_databases_are_migrated_at_once(tmp_path: Path, postgres: Postgres) -> None:
    """Threads and an event loop begin on databases of their own at the same time: each has its row."""
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(12)]
    urls += [postgres.url(postgres.database()) for _ in range(4)]
    stores = [Store(MemoryConfig(database_url=url, database_timeout_s=20.0)) for url in urls]
    gate = threading.Barrier(len(stores))

    def begin(store: Store) -> int:
        gate.wait(20.0)
        return store.insert([Conversation.now("ann", "hello", "hi")])

    async def all_at_once() -> list[int]:
        with ThreadPoolExecutor(len(stores)) as threads:
            loop = asyncio.get_running_loop()
            return list(await asyncio.gather(*(loop.run_in_executor(threads, begin, one) for one in stores)))

    assert asyncio.run(all_at_once()) == [1] * len(stores)
    for store in stores:
        assert len(store.history("ann")) == 1
        store.close()


def test_migrations_work_from_an_archive(tmp_path: Path) -> None:
    """An application that was packed with `zipapp` or the like makes its tables, too."""
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for package in ("workers", "ipc"):
            for path in sorted((ROOT / package).rglob("*.py")):
                packed.write(path, path.relative_to(ROOT))
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from workers.memory.config import MemoryConfig; from workers.memory.store import Store\n"
        "import workers; assert workers.__file__.startswith(sys.argv[1]), workers.__file__\n"
        "with Store(MemoryConfig(database_url=sys.argv[2])) as store: print(store.history('ann'))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(archive), f"sqlite:///{tmp_path}/memory.db"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (ran.stdout, ran.stderr) == ("[]\n", "")


def test_many_at_once_make_them_once(shelf: Shelf) -> None:
    """Stores that start together on an empty database all work."""
    errors: list[Exception] = []
    gate = threading.Barrier(6)

    def begin(number: int) -> None:
        with Store(shelf.config) as store:
            gate.wait()
            try:
                store.insert([Conversation.now("ann", f"hello {number}", "hi")])
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(shelf.history("ann")) == 6
    assert len(shelf.texts("ann", "hello")) == 6


def test_a_file_is_private_and_in_wal_mode(tmp_path: Path) -> None:
    """A new SQLite file, and the folder that is made for it, belong to this user alone."""
    path = tmp_path / "new" / "memory.db"
    with Store(MemoryConfig(database_url=f"sqlite:///{path}")) as store:
        store.ping()
        modes = [
            stat.S_IMODE(os.stat(one).st_mode) for one in (path.parent, path, f"{path}-wal", f"{path}-shm")
        ]
        assert modes == [0o700, 0o600, 0o600, 0o600]
    assert [one.name for one in path.parent.iterdir() if re.search(r"\d", one.name)] == []


def test_old_tables_without_leave_to_migrate(sqlite_url: str, postgres_url: str) -> None:
    """With `migrate` off, missing tables are an error that says so, and nothing is made."""
    for url in (sqlite_url, postgres_url):
        strict = MemoryConfig(database_url=url, migrate=False)
        with Store(strict) as store, pytest.raises(SchemaError, match="`migrate` is off"):
            store.ping()
        with Store(MemoryConfig(database_url=url)) as store:
            store.ping()
        with Store(strict) as store:
            assert store.insert([Conversation.now("ann", "a", "b")]) == 1


def test_newer_tables_will_do(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    """A rolling deploy: another process has migrated further, this one goes on, with a warning."""
    shelf.ping()
    change(shelf, "UPDATE memory_version SET version_num = '9999'")
    with caplog.at_level(logging.WARNING), Store(shelf.config) as store:
        assert store.insert([Conversation.now("ann", "a", "b")]) == 1
    assert "newer version (9999)" in caplog.text


def test_tables_that_vanish_come_back(shelf: Shelf) -> None:
    """A database that was replaced by an empty one: one call fails, the next makes the tables."""
    shelf.insert(Conversation.now("ann", "a", "b"))
    for table in (
        "memory_tool_calls",
        "memory_tools_used",
        "memory_conversations",
        "memory_erasures",
        "memory_version",
    ):
        change(shelf, f"DROP TABLE {table}")
    if shelf.sqlite:
        change(shelf, f"DROP TABLE IF EXISTS {search.INDEX}")
    with pytest.raises(Exception, match="memory_conversations"):
        shelf.history("ann")
    assert shelf.insert(Conversation.now("ann", "again", "b")) == 1
    assert shelf.texts("ann", "again") == ["again"]


def test_what_was_written_without_an_index_is_indexed(sqlite_url: str) -> None:
    """A file written by a library without FTS5 is searched by one that has it."""
    with Store(MemoryConfig(database_url=sqlite_url)) as store:
        store.insert([Conversation.now("ann", "first", "b")])
        change_url(store.config.database_url, f"DROP TABLE {search.INDEX}")
    with Store(MemoryConfig(database_url=sqlite_url)) as store:
        store.insert([Conversation.now("ann", "second", "b")])
        assert len(store.search("ann", "first second")) == 2


def change(shelf: Shelf, statement: str) -> None:
    """Change the database behind the store's back."""
    change_url(shelf.config.database_url, statement)


def change_url(url: str, statement: str) -> None:
    """Run a statement on a connection of its own."""
    engine = create_engine(url)
    link: Connection
    with engine.begin() as link:
        link.execute(text(statement))
    engine.dispose()
