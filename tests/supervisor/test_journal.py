"""The checkpoint: after a kill between any two stores, and with any damage, the state before or after."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor import journal as places
from supervisor.journal import Journal, Loaded, read_image, select, selected

BOOT = 0x1234_5678_9ABC_DEF0
SOFTWARE = "0.1.0"
IN_USE_MAX = 8192
FIRST: dict[str, Any] = {"state": "first"}
SECOND: dict[str, Any] = {"state": "second", "numbers": list(range(100))}


def opened(directory: Path, boot: int = BOOT) -> Journal:
    """The journal in a directory."""
    return Journal.open(str(directory), boot, SOFTWARE)


def what(loaded: Loaded | None) -> tuple[Any, list[Any]] | None:
    """Snapshot and messages of what was loaded; None = nothing."""
    if loaded is None or loaded.snapshot is None:
        return None
    return loaded.snapshot, [record.message for record in loaded.records]


def read(directory: Path) -> Loaded | None:
    """What a new daemon would load."""
    journal = opened(directory)
    loaded = journal.load()
    journal.close()
    return loaded


def path_in(directory: Path) -> Path:
    """The file of the journal in a directory."""
    return directory / places.FILE_NAME


def grown(directory: Path) -> Journal:
    """A journal with something in both halves: SECOND with two records, before it FIRST with one."""
    journal = opened(directory)
    journal.snapshot(FIRST)
    add(journal, [1])
    journal.snapshot(SECOND)
    add(journal, [2], [3])
    return journal


def add(journal: Journal, *messages: list[Any]) -> None:
    """Append and commit."""
    for number, message in enumerate(messages):
        assert journal.append(10.0 + number, 0.5, message)
    journal.commit()


AFTER = (SECOND, [[2], [3]])
BEFORE = (FIRST, [[1]])


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


def load_bytes(directory: Path, data: bytes) -> Loaded | None:
    """What a new daemon would load from a file of these bytes."""
    place = directory / "copy"
    place.mkdir(exist_ok=True)
    for left in place.iterdir():
        left.unlink()
    half = places.HEADER_BYTES + places.HALF_BYTES
    with open(path_in(place), "wb") as file:
        # Sparse: nothing in these tests goes so far into a half.
        file.write(data[: places.HEADER_BYTES + IN_USE_MAX])
        file.seek(half)
        file.write(data[half : half + IN_USE_MAX])
        file.truncate(len(data))
    loaded = read(place)
    for left in place.iterdir():
        left.unlink()
    place.rmdir()
    return loaded


# --- damage (C10) ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint as a killed daemon leaves it, without the unused ends of its halves."""
    directory = tmp_path_factory.mktemp("whole")
    journal = grown(directory)
    journal.close()
    return path_in(directory).read_bytes()


def check_damaged(directory: Path, data: bytes, problem_needed: bool = True) -> None:
    """The current half, the previous one or nothing is loaded, never a part; what is not current is told."""
    loaded = load_bytes(directory, data)
    assert loaded is not None
    assert what(loaded) in (AFTER, BEFORE, None)
    if what(loaded) != AFTER or problem_needed:
        assert loaded.problems
        assert all(problem.startswith("checkpoint: ") for problem in loaded.problems)


@pytest.mark.parametrize("word", [places.W_MAGIC, places.W_BOOT, places.W_SIZE, places.W_CHECK])
def test_every_flip_in_the_header_is_found(tmp_path: Path, whole: bytes, word: int) -> None:
    """A header that is not as it was written makes the whole file unusable."""
    for place in range(8 * word, 8 * word + 8):
        for flip in (1, 16, 128, 255):
            data = bytearray(whole)
            data[place] ^= flip
            assert what(load_bytes(tmp_path, bytes(data))) is None
            check_damaged(tmp_path, bytes(data))


def test_every_flip_in_the_selector_leads_to_the_previous_half(tmp_path: Path, whole: bytes) -> None:
    """A selector that is not as it was stored selects nothing: what was selected before it is used."""
    for place in range(8 * places.W_SELECTOR, 8 * places.W_SELECTOR + 8):
        for flip in (*(1 << bit for bit in range(8)), 255):
            data = bytearray(whole)
            data[place] ^= flip
            assert what(load_bytes(tmp_path, bytes(data))) == BEFORE
            check_damaged(tmp_path, bytes(data))


def test_flips_in_what_is_not_needed_harm_nothing(tmp_path: Path, whole: bytes) -> None:
    """The word that remembers the previous half is only asked when the current one is damaged."""
    for place in range(8 * places.W_BEFORE, 8 * places.W_BEFORE + 8):
        data = bytearray(whole)
        data[place] ^= 255
        assert what(load_bytes(tmp_path, bytes(data))) == AFTER


def test_a_thousand_flips_in_the_body(tmp_path: Path, whole: bytes) -> None:
    """A flipped bit in the current half leads to the previous one, one elsewhere to nothing worse."""
    dice = random.Random(20_251)
    half, end = selected(int.from_bytes(whole[64:72], "little")) or (0, 0)
    size = (len(whole) - places.HEADER_BYTES) // 2
    current = places.HEADER_BYTES + half * size
    for _ in range(1000):
        data = bytearray(whole)
        other = dice.random() < 0.3
        start = places.HEADER_BYTES + (1 - half) * size if other else current
        data[start + dice.randrange(end)] ^= 1 << dice.randrange(8)
        assert what(load_bytes(tmp_path, bytes(data))) == (AFTER if other else BEFORE)
        check_damaged(tmp_path, bytes(data), problem_needed=not other)


def test_both_halves_damaged_is_empty(tmp_path: Path, whole: bytes) -> None:
    """With no whole half nothing is loaded, the file is set aside, and a new one is begun."""
    data = bytearray(whole)
    size = (len(whole) - places.HEADER_BYTES) // 2
    for half in (0, 1):
        data[places.HEADER_BYTES + half * size + 15] ^= 4
    path_in(tmp_path).write_bytes(data)
    journal = opened(tmp_path)
    loaded = journal.load()
    assert what(loaded) is None
    assert loaded is not None
    assert "checkpoint.bad" in loaded.problems[0]
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "checkpoint.bad"]
    assert (tmp_path / "checkpoint.bad").read_bytes() == data
    journal.snapshot(FIRST)
    assert what(read(tmp_path)) == (FIRST, [])


@pytest.mark.parametrize("length", [0, 1, 8, 64, 4095, 4096, 4097, 4200, 5000, 100_000, -1, -4096])
def test_a_cut_file_is_empty(tmp_path: Path, whole: bytes, length: int) -> None:
    """A file that is shorter than its header says is not read at all."""
    assert what(load_bytes(tmp_path, whole[:length])) is None
    check_damaged(tmp_path, whole[:length])


@pytest.mark.parametrize("version", [0, 2, 255])
def test_another_version_is_empty(tmp_path: Path, whole: bytes, version: int) -> None:
    """A checkpoint of another version of this format is set aside, not guessed at."""
    magic = places.MAGIC & ~0xFFFF | version
    data = magic.to_bytes(8, "little") + whole[8:]
    check_damaged(tmp_path, data)
    assert what(load_bytes(tmp_path, data)) is None


def test_another_boot_is_empty(tmp_path: Path) -> None:
    """The times of another boot mean nothing here."""
    grown(tmp_path).close()
    loaded = opened(tmp_path, BOOT + 1).load()
    assert loaded is not None
    assert "another boot" in loaded.problems[0]


def test_a_selector_proves_itself() -> None:
    """Zero and random words select nothing; every selector tells what was put into it."""
    dice = random.Random(1)
    assert selected(0) is None
    assert not any(selected(dice.getrandbits(64)) for _ in range(10_000))
    for half, end in ((0, 0), (1, 0), (0, 12_345), (1, (1 << 30) - 1)):
        assert selected(select(half, end)) == (half, end)


# --- no room --------------------------------------------------------------------------------------------


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """No file of this process may become larger than `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_that_cannot_grow_keeps_what_it_has(tmp_path: Path) -> None:
    """When there is no room for a larger file the snapshot fails, and what was committed is still there."""
    journal = grown(tmp_path)
    with file_size_limit(places.HALF_BYTES), pytest.raises(OSError, match="File too large"):
        journal.snapshot({"state": "x" * places.HALF_BYTES})
    assert os.listdir(tmp_path) == [places.FILE_NAME]
    add(journal, [4])
    assert what(read(tmp_path)) == (SECOND, [[2], [3], [4]])


def test_a_journal_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """No room for a first file is an error at the start, and leaves nothing behind."""
    with file_size_limit(4096), pytest.raises(OSError, match="File too large"):
        opened(tmp_path)
    assert os.listdir(tmp_path) == []
