"""The checkpoint with any damage (C10): the current half, the previous one or nothing, never a part."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from supervisor import journal as places
from supervisor.journal import select, selected
from tests.supervisor.journals import (
    AFTER,
    BEFORE,
    BOOT,
    FIRST,
    grown,
    load_bytes,
    opened,
    path_in,
    read,
    what,
)


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
