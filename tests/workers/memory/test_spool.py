"""The spool: what was acknowledged is there, in every process, after any death, once."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.errors import SpoolFull, SpoolUnavailable
from workers.memory.locks import ProcessLock
from workers.memory.records import Conversation
from workers.memory.spool import Spool, take_first
from workers.memory.spool_file import SpoolFile
from workers.memory.spool_views import LOCK
from workers.memory.spooled import conversation_of, erasure_of, look, record_of

MIB = 1 << 20


def said(text: str, user: str = "ann") -> Conversation:
    """A conversation that takes place now."""
    return Conversation.now(user, text, f"re: {text}", ["search"])


@pytest.fixture
def directory(tmp_path: Path) -> str:
    """Where the spool is."""
    return str(tmp_path / "spool")


@pytest.fixture
def spool(directory: str) -> Iterator[Spool]:
    """A spool of this process."""
    made = Spool(directory, 64 * MIB)
    yield made
    made.close()


def in_child(work: object) -> int:
    """Run `work()` in a forked child that dies of kill -9 if it returns; its wait status."""
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


def texts(spool: Spool, user: str = "ann") -> list[str]:
    """What a user said, as the spool has it."""
    return [one.user_message for one in look(spool, user).conversations]


def test_what_is_put_is_read_in_the_order_of_the_ids(spool: Spool) -> None:
    """Users are told apart, and order is that of the ids, not of putting."""
    first, second, other = said("one"), said("two"), said("three", "bob")
    spool.put(record_of(second), record_of(other))
    spool.put(record_of(first))
    assert look(spool, "ann").conversations == (first, second)
    assert [conversation_of(one) for one in spool.next_batch(10)] == [first, second, other]
    assert look(spool, "eve").conversations == ()


def test_the_same_id_twice_is_one_record(spool: Spool) -> None:
    """A store that is repeated because its end is not known does no harm."""
    record = record_of(said("one"))
    spool.put(record)
    spool.put(record)
    assert spool.views.counts() == (1, 0)


def test_the_directory_is_for_this_user_alone(spool: Spool, directory: str) -> None:
    """0700, and a directory of others is refused."""
    spool.put(record_of(said("one")))
    assert os.stat(directory).st_mode & 0o777 == 0o700
    os.chmod(directory, 0o755)
    other = Spool(directory, MIB)
    with pytest.raises(SpoolUnavailable, match="this user alone"):
        other.put(record_of(said("two")))
    other.close()


def test_a_full_spool_refuses_by_name(directory: str) -> None:
    """What does not fit is refused; what was acknowledged stays."""
    spool = Spool(directory, MIB)
    kept = 0
    with pytest.raises(SpoolFull, match="of 1,048,576 bytes"):
        for _ in range(100):
            spool.put(record_of(said("x" * 50_000)))
            kept += 1
    assert 5 < kept < 15
    assert len(texts(spool)) == kept
    spool.close()


def test_threads_share_commits(spool: Spool) -> None:
    """Eight threads put at once: everything is there, once."""
    barrier = threading.Barrier(8)

    def put(number: int) -> None:
        barrier.wait()
        for step in range(20):
            spool.put(record_of(said(f"{number}-{step}")))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(texts(spool)) == sorted(f"{n}-{s}" for n in range(8) for s in range(20))


def test_what_a_killed_process_put_is_read_and_taken_over(spool: Spool) -> None:
    """Kill -9 of the owner: its file is read by others, and is removed once it is empty."""

    def put() -> None:
        spool.put(record_of(said("last words")))

    spool.put(record_of(said("mine")))
    assert in_child(put) == signal.SIGKILL
    assert sorted(texts(spool)) == ["last words", "mine"]
    assert len(spool.views.paths()) == 2
    assert spool.adopt() == 1
    spool.done(spool.next_batch(10))
    spool.tend()
    assert spool.is_empty
    assert os.listdir(spool.directory) == []


def test_the_file_of_a_living_process_is_nobody_elses(spool: Spool, directory: str) -> None:
    """Adopting leaves the files of the living alone, in this process and others."""
    spool.put(record_of(said("mine")))
    spool.done(spool.next_batch(10))
    other = Spool(directory, MIB)
    assert other.adopt() == 0
    assert len(other.views.paths()) == 1

    def adopt() -> None:
        Spool(directory, MIB).adopt()

    assert in_child(adopt) == signal.SIGKILL
    assert len(spool.views.paths()) == 1
    other.close()


def test_a_fork_leaves_both_sides_a_file_of_their_own(spool: Spool) -> None:
    """Parent and child put and read after a fork, each into its own file."""
    spool.put(record_of(said("before")))
    assert texts(spool) == ["before"]

    def both() -> None:
        assert texts(spool) == ["before"]
        spool.put(record_of(said("child")))
        assert sorted(texts(spool)) == ["before", "child"]

    assert in_child(both) == signal.SIGKILL
    spool.put(record_of(said("parent")))
    assert sorted(texts(spool)) == ["before", "child", "parent"]
    assert len(spool.views.paths()) == 2


def test_an_erasure_hides_what_is_older(spool: Spool) -> None:
    """Readers obey a pending erasure at once; what is said later is shown."""
    old = said("old")
    spool.put(record_of(old))
    gone = said("now")
    spool.put(erasure_of("ann", gone.created_at))
    new = said("new")
    spool.put(record_of(new))
    found = look(spool, "ann")
    assert found.conversations == (new,)
    assert (found.shows(old), found.shows(gone), found.shows(new)) == (False, False, True)


def test_what_is_forgotten_leaves_no_bytes(spool: Spool) -> None:
    """After an erasure neither file nor log remembers the words."""
    spool.put(record_of(said("canary-4711")), record_of(said("canary-4712", "bob")))
    spool.views.close()
    assert spool.forget("ann", 1 << 60) == 1
    held = b"".join(path.read_bytes() for path in Path(spool.directory).iterdir())
    assert b"canary-4711" not in held
    assert b"canary-4712" in held


def test_quarantine_is_kept_shown_and_released(spool: Spool) -> None:
    """What can never be stored is set aside with its reason, stays readable, and can be tried again."""
    record = record_of(said("poison"))
    spool.put(record)
    spool.quarantine(spool.next_batch(1)[0], "sqlstate 22021")
    assert spool.next_batch(10) == []
    assert [(one.record, one.reason) for one in spool.quarantined()] == [(record, "sqlstate 22021")]
    assert texts(spool) == ["poison"]
    assert spool.release() == 1
    assert spool.next_batch(10) == [record]
    assert (spool.release(), spool.quarantined()) == (0, [])


def _orphan(spool: Spool, count: int) -> Path:
    """A file that a killed process left behind."""
    before = set(spool.views.paths())
    records = [record_of(said(f"{number} " + "x" * 700)) for number in range(count)]
    in_child(lambda: spool.put(*records))
    (path,) = set(spool.views.paths()) - before
    return Path(path)


@pytest.mark.fault("G14")
def test_g14_a_torn_tail_is_cut_and_counted(spool: Spool) -> None:
    """A write-ahead log that ends in the middle of a frame: what was acknowledged before it is there."""
    path = _orphan(spool, 5)
    with open(f"{path}-wal", "ab") as log:
        log.write(b"\x01" * 1000)
    spool.adopt()
    assert spool.incidents.tails_cut == 1
    assert len(texts(spool)) == 5


@pytest.mark.fault("G14")
def test_g14_damage_in_the_middle_is_set_aside_and_the_rest_is_kept(spool: Spool) -> None:
    """A damaged page: the file is set aside, loudly, and what can be read of it is replayed."""
    path = _orphan(spool, 60)
    spool.adopt()  # its log is written into the file
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096)
    spool.adopt()
    assert spool.incidents.damaged_files == 1
    assert spool.incidents.salvaged == len(texts(spool)) >= 30
    assert len(spool.views.damaged()) >= 1
    assert all(one.intact for one in spool.next_batch(100))
    spool.put(record_of(said("life goes on")))
    assert texts(spool)[-1] == "life goes on"


def test_a_changed_record_is_told_by_its_check_sum(spool: Spool) -> None:
    """Bytes that are not those that were put are never shown, and never replayed."""
    spool.put(record_of(said("right")), record_of(said("wrong")))
    with sqlite3.connect(spool.views.paths()[0]) as connection:
        connection.execute("UPDATE records SET user_id = 'ann' || '' , at = at + 1 WHERE rowid = 2")
    connection.close()
    assert texts(spool) == ["right"]
    assert [one.intact for one in spool.next_batch(10)] == [True, False]


def test_a_file_of_another_format_is_left_alone(spool: Spool) -> None:
    """A newer version's file is no damage: it is not read, and not removed."""
    spool.put(record_of(said("mine")))
    path = Path(spool.directory) / "ffff.spool"
    SpoolFile(str(path), durable=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    spool.adopt()
    assert path.exists()
    assert texts(spool) == ["mine"]
    assert "format 99" in spool.views.unreadable[str(path)]


def test_a_new_file_that_a_tidier_holds_for_a_moment_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Another name is as good; only where every name is held nothing can be kept."""
    first, second = f"{tmp_path}/1.spool", f"{tmp_path}/2.spool"
    tidier = ProcessLock(f"{first}{LOCK}")
    assert tidier.acquire()
    taken = take_first([first, second])
    assert taken.path == os.path.realpath(f"{second}{LOCK}")
    with pytest.raises(SpoolUnavailable, match="is taken"):
        take_first([first, second])
    tidier.release()
    taken.release()
