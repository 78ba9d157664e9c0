"""The checkpoint: after a kill between any two stores the state before or after."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from supervisor import journal as places
from supervisor.journal import Journal, read_image
from tests.dying import deaths
from tests.supervisor.journals import (
    AFTER,
    FIRST,
    SECOND,
    SOFTWARE,
    add,
    grown,
    load_bytes,
    opened,
    path_in,
    read,
    what,
)
from tests.supervisor.room import file_size_limit


def test_a_new_journal_has_nothing(tmp_path: Path) -> None:
    """Where there was no file there is nothing to load, and nothing is wrong."""
    assert opened(tmp_path).load() is None


def test_what_is_committed_comes_back(tmp_path: Path) -> None:
    """Snapshot, records with their times and chances, and the writer's version are read back."""
    grown(tmp_path).close()
    loaded = read(tmp_path)
    assert what(loaded) == AFTER
    assert loaded is not None
    assert [(record.now, record.chance) for record in loaded.records] == [(10.0, 0.5), (11.0, 0.5)]
    assert (loaded.problems, loaded.software) == ((), SOFTWARE)


def test_loading_again_reads_what_is_committed_now(tmp_path: Path) -> None:
    """An open journal tells what a new daemon would load."""
    journal = grown(tmp_path)
    journal.append(12.0, 0.5, [4])
    assert what(journal.load()) == AFTER
    journal.commit()
    assert what(journal.load()) == (SECOND, [[2], [3], [4]])


def test_what_is_not_committed_does_not_count(tmp_path: Path) -> None:
    """Appended bytes are nothing before the commit, and nothing again after a rollback."""
    journal = grown(tmp_path)
    assert journal.append(12.0, 0.5, [4])
    assert what(read(tmp_path)) == AFTER
    journal.rollback()
    add(journal, [5])
    assert what(read(tmp_path)) == (SECOND, [[2], [3], [5]])


def test_nothing_can_be_appended_before_the_first_snapshot(tmp_path: Path) -> None:
    """A record needs a snapshot of this life to follow."""
    journal = opened(tmp_path)
    assert (journal.append(1.0, 0.5, [1]), journal.wants_snapshot) == (False, True)
    journal.commit()
    assert read(tmp_path) is None


def test_a_file_that_nobody_wrote_into_is_new(tmp_path: Path) -> None:
    """Whoever died before the first snapshot leaves a file that is as good as none."""
    opened(tmp_path).close()
    assert read(tmp_path) is None
    assert os.listdir(tmp_path) == [places.FILE_NAME]


def test_a_snapshot_is_due_after_many_records(tmp_path: Path) -> None:
    """Number and bytes of the records both bound the time of a replay."""
    journal = opened(tmp_path)
    due = [journal.wants_snapshot]
    journal.snapshot(FIRST)
    for _ in range(places.SNAPSHOT_AFTER_RECORDS):
        assert journal.append(1.0, 0.5, [1])
    due.append(journal.wants_snapshot)
    journal.append(1.0, 0.5, [1])
    due.append(journal.wants_snapshot)
    journal.snapshot(SECOND)
    due.append(journal.wants_snapshot)
    journal.append(1.0, 0.5, ["x" * places.SNAPSHOT_AFTER_BYTES])
    due.append(journal.wants_snapshot)
    assert due == [True, False, True, False, True]


def fill(journal: Journal) -> int:
    """Append records of an eighth of the constant until a snapshot is due; how many that were."""
    number = 0
    while not journal.wants_snapshot:
        assert journal.append(1.0, 0.5, ["y" * (places.SNAPSHOT_AFTER_BYTES // 8)])
        number += 1
    return number


def test_a_large_snapshot_is_followed_by_as_many_bytes_as_it_has(tmp_path: Path) -> None:
    """A state of many workers is not written again after a few batches, but after its own size; the file
    has room for that, so no record is refused before.
    """
    journal = opened(tmp_path)
    journal.snapshot({"state": "x" * (3 * places.SNAPSHOT_AFTER_BYTES)})
    assert fill(journal) == 3 * 8
    journal.snapshot(FIRST)
    assert fill(journal) == 8


def test_a_record_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    """A full half takes no record; what is in it stays, and a snapshot makes room."""
    journal = grown(tmp_path)
    assert not journal.append(1.0, 0.5, ["x" * places.HALF_BYTES])
    assert journal.append(1.0, 0.5, ["y" * (places.HALF_BYTES - 4096)])
    assert not journal.append(1.0, 0.5, ["z" * 4096])
    journal.rollback()
    assert what(read(tmp_path)) == AFTER
    journal.snapshot(FIRST)
    assert journal.append(1.0, 0.5, ["z" * 4096])


def test_a_large_snapshot_makes_the_file_grow(tmp_path: Path) -> None:
    """A snapshot that does not fit moves everything into a larger file, in which all goes on."""
    journal = grown(tmp_path)
    large = {"state": "x" * (places.HALF_BYTES + 1000)}
    journal.snapshot(large)
    add(journal, [4])
    assert what(read(tmp_path)) == (large, [[4]])
    journal.snapshot(FIRST)
    add(journal, [5])
    assert what(read(tmp_path)) == (FIRST, [[5]])
    assert os.listdir(tmp_path) == [places.FILE_NAME]


def test_its_own_times_come_back_exactly(tmp_path: Path) -> None:
    """A time goes through the journal to its last bit, or a replay would decide otherwise."""
    journal = opened(tmp_path)
    journal.snapshot(FIRST)
    chances = [random.Random(3).random() for _ in range(200)]
    for chance in chances:
        journal.append(chance * 1e7, chance, [1])
    journal.commit()
    loaded = read(tmp_path)
    assert loaded is not None
    assert [(record.now, record.chance) for record in loaded.records] == [(one * 1e7, one) for one in chances]


def test_the_image_is_what_is_committed(tmp_path: Path) -> None:
    """The bytes for the copy on disk hold what a load would give, and nothing that is not committed."""
    journal = grown(tmp_path)
    journal.append(12.0, 0.5, [4])
    assert what(read_image(journal.image())) == AFTER


# --- a kill between any two stores ----------------------------------------------------------------------


def test_a_kill_at_any_store_of_a_commit(tmp_path: Path) -> None:
    """With a record written in part or whole and not selected, the next daemon finds the state before."""
    journal = grown(tmp_path)
    path, before = path_in(tmp_path), path_in(tmp_path).read_bytes()
    journal.append(12.0, 0.5, [4, "abcdefgh"])
    written = path.read_bytes()
    changed = [place for place in range(len(before)) if before[place] != written[place]]
    for upto in range(len(changed) + 1):
        torn = bytearray(before)
        for place in changed[:upto]:
            torn[place] = written[place]
        assert what(load_bytes(tmp_path, bytes(torn))) == AFTER
    journal.commit()
    assert what(read(tmp_path)) == (SECOND, [[2], [3], [4, "abcdefgh"]])


def test_a_kill_at_any_store_of_a_snapshot(tmp_path: Path) -> None:
    """Half written, written, remembered, selected: the state before up to the last store, then the new."""
    journal = grown(tmp_path)
    before = path_in(tmp_path).read_bytes()
    new = {"state": "third", "numbers": list(range(50))}
    journal.snapshot(new)
    written = path_in(tmp_path).read_bytes()
    words = {word: slice(8 * word, 8 * word + 8) for word in (places.W_BEFORE, places.W_SELECTOR)}
    torn = bytearray(before)
    body = [place for place in range(4096, len(before)) if before[place] != written[place]]
    for place in body:
        if place % 16 == 0:
            assert what(load_bytes(tmp_path, bytes(torn))) == AFTER
        torn[place] = written[place]
    assert what(load_bytes(tmp_path, bytes(torn))) == AFTER
    for word in (places.W_BEFORE, places.W_SELECTOR):
        assert what(load_bytes(tmp_path, bytes(torn))) == AFTER
        torn[words[word]] = written[words[word]]
    assert bytes(torn) == written
    assert what(load_bytes(tmp_path, bytes(torn))) == (new, [])


def test_a_kill_while_the_file_grows(tmp_path: Path) -> None:
    """A new file that was not renamed yet changes nothing, whatever is in it."""
    grown(tmp_path).close()
    (tmp_path / (places.FILE_NAME + places.NEW_SUFFIX)).write_bytes(b"half of a larger file")
    journal = opened(tmp_path)
    assert what(journal.load()) == AFTER
    journal.snapshot({"state": "x" * places.HALF_BYTES})
    assert os.listdir(tmp_path) == [places.FILE_NAME]


@pytest.mark.parametrize("size", [10, places.HALF_BYTES])
def test_a_death_at_any_line_of_a_snapshot(tmp_path: Path, size: int) -> None:
    """Whoever dies before any line of it, also where the file grows, leaves the old state or the new one."""
    new = {"state": "x" * size}

    def prepare() -> Journal:
        return grown(tmp_path)

    seen = []
    for _ in deaths(places, prepare, lambda journal: journal.snapshot(new)):
        found = unharmed(tmp_path)
        assert found in (AFTER, (new, []))
        seen.append(found == AFTER)
        clear(tmp_path)
    assert seen == sorted(seen, reverse=True)
    assert True in seen


def test_a_death_at_any_line_of_a_start(tmp_path: Path) -> None:
    """Opening, loading and the first snapshots keep what was committed, whenever the daemon dies."""
    grown(tmp_path).close()
    new = {"state": "new life"}

    def start(_: None) -> None:
        journal = opened(tmp_path)
        journal.load()
        journal.snapshot(new)

    seen = []
    for _ in deaths(places, lambda: None, start):
        found = unharmed(tmp_path)
        assert found in (AFTER, (new, []))
        seen.append(found == AFTER)
        clear(tmp_path)
        grown(tmp_path).close()
    assert True in seen
    assert False in seen


def test_a_death_at_any_line_of_a_commit(tmp_path: Path) -> None:
    """Two records appended and committed come back both or not at all."""

    def work(journal: Journal) -> None:
        journal.append(12.0, 0.5, [4])
        journal.append(12.0, 0.5, [5])
        journal.commit()

    for _ in deaths(places, lambda: grown(tmp_path), work):
        assert unharmed(tmp_path) in (AFTER, (SECOND, [[2], [3], [4], [5]]))
        clear(tmp_path)


def unharmed(directory: Path) -> object:
    """What a new daemon loads, to which nothing may look damaged: dying damages nothing."""
    loaded = read(directory)
    assert loaded is not None
    assert loaded.problems == ()
    return what(loaded)


def clear(directory: Path) -> None:
    """Remove every file."""
    for left in directory.iterdir():
        left.unlink()


def test_after_a_start_nothing_of_an_earlier_life_is_left(tmp_path: Path) -> None:
    """The first snapshot goes into both halves: neither damage nor a kill brings an older state back."""
    grown(tmp_path).close()
    journal = opened(tmp_path)
    new = {"state": "new life"}
    journal.snapshot(new)
    for half in (0, 1):
        data = bytearray(path_in(tmp_path).read_bytes())
        size = (len(data) - places.HEADER_BYTES) // 2
        data[places.HEADER_BYTES + half * size + 20] ^= 1
        assert what(load_bytes(tmp_path, bytes(data))) == (new, [])


# --- no room --------------------------------------------------------------------------------------------


def test_a_file_that_cannot_grow_keeps_what_it_has(tmp_path: Path) -> None:
    """When there is no room for a larger file the snapshot fails, and what was committed is still there."""
    journal = grown(tmp_path)
    with file_size_limit(places.HALF_BYTES), pytest.raises(OSError, match="File too large"):
        journal.snapshot({"state": "x" * places.HALF_BYTES})
    assert os.listdir(tmp_path) == [places.FILE_NAME]
    add(journal, [4])
    assert what(read(tmp_path)) == (SECOND, [[2], [3], [4]])


def test_a_file_that_cannot_grow_goes_on_while_the_snapshot_fits(tmp_path: Path) -> None:
    """Without room for a larger file there is less room for records, and it says so until there is more."""
    journal = grown(tmp_path)
    large = {"state": "x" * (places.HALF_BYTES - 8192)}
    with file_size_limit(places.HALF_BYTES):
        journal.snapshot(large)
        assert "no room for a larger file: File too large" in journal.cramped
        add(journal, [4])
        assert not journal.append(1.0, 0.5, ["z" * 8192])
        assert what(read(tmp_path)) == (large, [[4]])
    journal.snapshot(large)
    assert journal.cramped == ""
    assert journal.append(1.0, 0.5, ["z" * 8192])


def test_a_journal_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """No room for a first file is an error at the start, and leaves nothing behind."""
    with file_size_limit(4096), pytest.raises(OSError, match="File too large"):
        opened(tmp_path)
    assert os.listdir(tmp_path) == []
