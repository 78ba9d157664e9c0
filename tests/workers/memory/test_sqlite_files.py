"""SQLite files that belong to others: those that may only be read, and an application's own."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import room
from workers.errors import SchemaError
from workers.memory.config import MemoryConfig
from workers.memory.records import Conversation
from workers.memory.store import Store

NOBODY = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user can look into."""
    with room() as made:
        made.chmod(0o755)
        yield made
        made.chmod(0o755)


@pytest.fixture
def file(place: Path) -> Path:
    """A memory with one conversation."""
    path = place / "below" / "memory.db"
    with store_of(path) as store:
        store.insert([Conversation.now("ann", "the lighthouse keeper", "x", ["t"])])
    path.parent.chmod(0o755)
    return path


def store_of(path: Path) -> Store:
    """A store over a file."""
    return Store(MemoryConfig(database_url=f"sqlite:///{path}", spool_directory=f"{path}-spool"))


def as_somebody_else(work: Callable[[], object]) -> str:
    """What the work says in a process whose user has no rights here."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(writing, str(work()).encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode()[:500])
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    os.waitpid(child, 0)
    return text


def read(path: Path) -> str:
    """What is read in every way."""
    with store_of(path) as store:
        (one,) = store.history("ann")
        (found,) = store.search("ann", "lighthouse")
        (tool,) = store.tool_statistics("ann")
        assert list(store.export("ann")) == [one]
        return f"{found.conversation.user_message}, {tool.used}"


@pytest.mark.parametrize(
    ("file_mode", "folder_mode"),
    [(0o444, 0o755), (0o444, 0o555), (0o644, 0o555)],
    ids=["file", "both", "folder"],
)
def test_what_may_only_be_read_is_read(file: Path, file_mode: int, folder_mode: int) -> None:
    """By its permissions or those of its folder; a write is refused as such, and nothing is left behind."""
    file.chmod(file_mode)
    file.parent.chmod(folder_mode)
    assert as_somebody_else(lambda: read(file)) == "the lighthouse keeper, 1"

    def write() -> int:
        with store_of(file) as store:
            return store.insert([Conversation.now("ann", "more", "x")])

    assert "attempt to write a readonly database" in as_somebody_else(write)
    assert [one.name for one in file.parent.iterdir()] == ["memory.db"]


def test_a_writer_beside_a_reader(file: Path) -> None:
    """While another user writes, what is read is what was committed."""
    with store_of(file) as owner:
        owner.insert([Conversation.now("bob", "hello", "x")])
        for one in file.parent.iterdir():
            one.chmod(0o644)
        assert as_somebody_else(lambda: read(file)) == "the lighthouse keeper, 1"


def test_a_file_without_tables_that_may_only_be_read(place: Path) -> None:
    """There is nothing to read, and that is said."""
    path = place / "empty.db"
    with sqlite3.connect(path) as link:
        link.execute("CREATE TABLE notes (text)")
    link.close()
    path.chmod(0o444)
    told = as_somebody_else(lambda: read(path))
    assert (
        told
        == f"{SchemaError.__name__}: the file has no memory tables of this version, and cannot be written"
    )


@pytest.mark.parametrize("mode", ["delete", "truncate", "persist", "wal"])
def test_an_applications_own_file_keeps_its_journal_mode(place: Path, mode: str) -> None:
    """The tables go into it; what its owner has chosen stays; everything works all the same."""
    path = place / "application.db"
    link = sqlite3.connect(path)
    link.execute(f"PRAGMA journal_mode={mode}")
    link.execute("CREATE TABLE notes (text)")
    link.commit()
    link.close()
    with store_of(path) as store:
        assert store.insert([Conversation.now("ann", "the lighthouse keeper", "x", ["t"])]) == 1
        store.erase("bob", Conversation.now("bob", "a", "b").created_at)
    assert read(path) == "the lighthouse keeper, 1"
    link = sqlite3.connect(path)
    found = link.execute("PRAGMA journal_mode").fetchone()[0]
    link.close()
    assert found == ("wal" if mode == "wal" else "delete")


def test_an_empty_file_is_ours(place: Path) -> None:
    """Somebody made it beforehand, for its permissions: it becomes what we would have made."""
    path = place / "empty.db"
    path.touch()
    with store_of(path) as store:
        store.insert([Conversation.now("ann", "the lighthouse keeper", "x", ["t"])])
    link = sqlite3.connect(path)
    assert link.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    link.close()
