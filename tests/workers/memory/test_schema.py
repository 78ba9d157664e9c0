"""The tables come with the first use, once, as the models say, and a newer version's will do."""

from __future__ import annotations

import logging
import os
import re
import stat
import threading
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text

import workers.memory
from tests.workers.memory.shelves import Shelf
from workers.errors import SchemaError
from workers.memory import search
from workers.memory.config import MemoryConfig
from workers.memory.models import Model
from workers.memory.records import Conversation
from workers.memory.schema import REVISIONS
from workers.memory.store import Store

FOLDER = Path(workers.memory.__file__).parent / "migrations"


def test_the_revisions_are_the_files() -> None:
    """The list in the code is what Alembic finds, in its order, and every migration has its way back."""
    config = Config()
    config.set_main_option("script_location", str(FOLDER))
    script = ScriptDirectory.from_config(config)
    assert tuple(reversed([one.revision for one in script.walk_revisions()])) == REVISIONS
    assert all(hasattr(one.module, "downgrade") for one in script.walk_revisions())


def test_the_tables_are_the_models(shelf: Shelf) -> None:
    """Alembic finds no difference but what belongs to one database alone."""
    shelf.ping()

    def ours(_object: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
        return not (
            (kind == "table" and str(name).startswith((search.INDEX, "memory_version")))
            or (kind == "column" and name in ("number", "words"))
            or (kind == "index" and name == "memory_conversations_by_word")
            or (kind == "unique_constraint")
        )

    engine = create_engine(shelf.config.database_url)
    with engine.connect() as link:
        context = MigrationContext.configure(
            link, opts={"include_object": ours, "compare_type": not shelf.sqlite}
        )
        assert compare_metadata(context, Model.metadata) == []
    engine.dispose()


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
