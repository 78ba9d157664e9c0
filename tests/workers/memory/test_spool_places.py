"""Which spools are a database's, which are nobody's, and what keeps a user from one."""

from __future__ import annotations

import os
from pathlib import Path

from tests.workers.memory.posts import (
    Stage,
    as_nobody,
    holder,
    open_folder,
    stage,
)
from workers.memory.config import MemoryConfig
from workers.memory.leases import MANAGED
from workers.memory.places import mark
from workers.memory.spool_places import places_of, strangers, trouble_of

__all__ = ["open_folder", "stage"]


def test_the_places_of_a_database_are_found_by_its_mark(stage: Stage) -> None:
    """The configured directory, there or not; and those named after the database, if they are there."""
    own = mark(stage.config.database_url)
    assert places_of(stage.config) == [stage.directory]
    inside, default = f"{stage.directory}/spool-{own}", f"{stage.folder}/data/breakerd/spool-{own}"
    for path in (inside, default):
        os.makedirs(path, 0o700)
    assert places_of(stage.config) == [stage.directory, inside, default]
    named = MemoryConfig(database_url=stage.config.database_url)
    assert places_of(named) == [default]


def test_a_spool_of_no_known_database_is_told_of(stage: Stage) -> None:
    """Beside those that are ours: named, counted, with what to do; not while somebody looks after it."""
    other = MemoryConfig(database_url="postgresql://ann:canary-4711@elsewhere/shop")
    mine = MemoryConfig(database_url=stage.config.database_url)
    stage.orphan("one", directory=other.spool_directory)
    stage.orphan("two", directory=mine.spool_directory)
    ((path, text),) = strangers([mine])
    assert path == other.spool_directory
    assert text.startswith(f"{path} holds 1 files of another database, and nobody looks after it: ")
    assert "start a replayer with that URL" in text
    assert list(strangers([mine, other])) == []
    with holder(os.path.join(other.spool_directory, MANAGED)):
        assert list(strangers([mine])) == []


def test_a_directory_of_another_user_is_told_of(stage: Stage, open_folder: Path) -> None:
    """Who it belongs to, who this is, and what to do; nothing is touched."""
    stage.orphan("one")

    def look() -> None:
        text = trouble_of(stage.directory)
        assert text.startswith(f"{stage.directory} belongs to user root, and this replayer is user ")
        assert "start one as user root (python -m workers.memory.replayer FILE)" in text
        assert stage.post.turn() > 0.0

    as_nobody(look)
    assert stage.store.order == []
    assert len(stage.left()) > 0
