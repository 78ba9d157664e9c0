"""A post: whose directory it empties, when it stands back, and what it says."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from tests.workers.memory.posts import (
    NOBODY,
    Stage,
    as_nobody,
    free,
    open_folder,
    stage,
)
from tests.workers.memory.test_replay import REFUSED
from workers.memory.config import MemoryConfig
from workers.memory.epochs import EPOCHS, Epochs
from workers.memory.leases import LEASES, MANAGED
from workers.memory.replay_post import BACK_S, PATIENCE_S, YIELD_S, Layer
from workers.memory.spool_places import files_in_the_way

__all__ = ["open_folder", "stage"]


def test_what_dead_processes_left_is_brought_in_though_nobody_lives(stage: Stage) -> None:
    """Three agents said something and were killed: all of it is stored, in order, and no file is left."""
    stage.turns()
    for name in ("one", "two", "three"):
        stage.orphan(name, f"{name} again")
    stage.turns()
    assert sorted(stage.store.order) == sorted(
        [*("one", "two", "three"), *("one again", "two again", "three again")]
    )
    assert stage.left() == []


def test_a_new_file_is_seen_within_a_second(stage: Stage) -> None:
    """An idle post looks often enough, and says how long it may be left alone."""
    stage.orphan("first")
    stage.turns()
    assert stage.post.turn() <= 1.0
    stage.orphan("second")
    stage.turns(1.0)
    assert stage.store.order == ["first", "second"]


def test_a_directory_that_is_removed_and_made_anew_is_another_one(stage: Stage) -> None:
    """Lease, words and files are those of the new one; what is put there is brought in."""
    stage.orphan("first")
    stage.turns()
    os.rename(stage.directory, stage.directory + "-old")
    stage.turns()
    assert free(
        os.path.join(stage.directory + "-old", MANAGED), os.path.join(stage.directory + "-old", LEASES[0])
    )
    stage.orphan("second")
    stage.turns()
    assert stage.store.order == ["first", "second"]
    assert not free(os.path.join(stage.directory, MANAGED))


def test_readers_learn_what_is_brought_in(stage: Stage) -> None:
    """The words that other processes map change, also those of the layer's own directory for a former one."""
    former = str(stage.folder / "former")
    for place in (stage.directory, former):
        os.mkdir(place, 0o700)
    words = [Epochs(os.path.join(place, EPOCHS)) for place in (stage.directory, former)]
    before = [one.stamp("ann").stored for one in words]
    post = stage.another(former)
    stage.orphan("one", directory=former)
    stage.turns(post=post)
    assert stage.store.order == ["one"]
    assert all(one.stamp("ann").stored != old for one, old in zip(words, before, strict=True))
    post.close()


def test_of_two_managed_replayers_one_waits(stage: Stage) -> None:
    """The second takes over when the first has let go."""
    stage.orphan("one")
    stage.turns()
    other = stage.another()
    stage.orphan("two")
    stage.turns(post=other)
    assert stage.store.order == ["one"]
    stage.post.close()
    stage.turns(post=other)
    assert stage.store.order == ["one", "two"]
    other.close()


@pytest.mark.fault("G12")
def test_a_database_that_takes_nothing_is_left_to_others_for_a_while(stage: Stage) -> None:
    """After a time both locks are free, so that somebody who gets through can; then they are taken again."""
    locks = [os.path.join(stage.directory, name) for name in (MANAGED, LEASES[0])]
    stage.store.error = REFUSED
    stage.orphan("one")
    stage.turns(PATIENCE_S - 2.0)
    assert not free(locks[0])
    stage.turns(4.0)
    assert free(*locks)
    stage.turns(BACK_S)
    assert not free(locks[0])


def test_a_database_that_is_back_is_not_waited_for(stage: Stage) -> None:
    """Standing back while nobody else replays costs a few seconds, and no more."""
    stage.store.error = REFUSED
    stage.orphan("one")
    stage.turns(PATIENCE_S + 1.0)
    stage.store.error = None
    stage.turns(YIELD_S + 5.0)
    assert stage.store.order == ["one"]


def test_what_is_wrong_is_said_once(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is a line, and so is its end; the next one is a line again."""
    caplog.set_level(logging.INFO)
    for text in ("one", "two"):
        caplog.clear()
        stage.store.error = REFUSED
        stage.orphan(text)
        stage.turns(8.0)
        stage.store.error = None
        stage.turns(12.0)
        told = [one.getMessage() for one in caplog.records if one.name == "breakerd.memory.replayer"]
        (outage,) = [one for one in told if "takes nothing" in one]
        assert outage.startswith(f"{stage.directory}: the database takes nothing: OperationalError: ")
        assert f"{stage.directory}: 1 brought in, nothing waits" in told


def test_a_directory_that_others_may_write_to_is_left_alone(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """What is in it may be anybody's: said once, with what to do; with another mode it goes on."""
    stage.orphan("one")
    os.chmod(stage.directory, 0o777)
    stage.turns()
    assert stage.store.order == []
    told = [one.getMessage() for one in caplog.records]
    assert told == [
        f"{stage.directory} may be written to by others (mode 0777): see what is in it, and chmod 0700 it"
    ]
    os.chmod(stage.directory, 0o700)
    stage.turns()
    assert stage.store.order == ["one"]


def test_files_that_cannot_be_used_keep_nobody_waiting(stage: Stage, open_folder: Path) -> None:
    """One is another user's, one can only be read: each is named with what to do, and the others go on."""
    for text in ("of another", "only to read", "mine"):
        stage.orphan(text)
    first, second, third = sorted(name for name in stage.left() if name.endswith(".spool"))
    for name in os.listdir(stage.directory):
        if not name.startswith(first.partition(".")[0]):
            os.chown(os.path.join(stage.directory, name), NOBODY, NOBODY)
    os.chown(stage.directory, NOBODY, NOBODY)
    os.chmod(os.path.join(stage.directory, first), 0o600)
    os.chmod(os.path.join(stage.directory, second), 0o400)

    def work() -> None:
        texts = dict(files_in_the_way(stage.directory))
        assert "chown it to user" in texts[os.path.join(stage.directory, first)]
        assert "chmod 0600 it" in texts[os.path.join(stage.directory, second)]
        assert os.path.join(stage.directory, third) not in texts
        stage.config = MemoryConfig(
            database_url=stage.config.database_url, spool_directory=stage.directory, replay_batch_max=1
        )
        stage.layer = Layer(stage.config, stage.store, stage.layer.cache, stage.layer.guard)
        post = stage.another()
        stage.turns(8.0, post)
        assert sorted(stage.store.order) == ["mine", "only to read"]
        os.chmod(os.path.join(stage.directory, second), 0o600)
        stage.turns(12.0, post)
        assert [name for name in stage.left() if name.endswith(".spool")] == [first]
        post.close()

    as_nobody(work)
