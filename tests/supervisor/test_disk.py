"""The copy on disk: old or new after any crash or damage, and a full disk is waited for."""

from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path

import pytest

from supervisor import disk
from supervisor.disk import FILE_NAME, NEW_SUFFIX, PREVIOUS_SUFFIX, DiskCopy, Saved
from tests.dying import deaths
from tests.supervisor.room import file_size_limit

BOOT = 0xFEDC_BA98_7654_3210
OLD, NEW = b"the old image", b"the new image, longer"


@pytest.fixture
def copy(tmp_path: Path) -> DiskCopy:
    """A directory with two copies in it: NEW, and before it OLD."""
    made = DiskCopy(str(tmp_path))
    assert made.save(OLD, BOOT, 10.5)
    assert made.save(NEW, BOOT, 11.5)
    return made


def bytes_of(copy: DiskCopy, suffix: str = "") -> bytes:
    """The file of a copy."""
    return Path(copy.path + suffix).read_bytes()


def test_an_empty_directory_has_no_copy(tmp_path: Path) -> None:
    """Nothing was saved, and nothing is wrong."""
    assert DiskCopy(str(tmp_path)).load() == Saved(None)


def test_the_newest_copy_is_read_back(copy: DiskCopy, tmp_path: Path) -> None:
    """Image, boot id and time come back; the one before it is kept, and no other file."""
    assert copy.load() == Saved(NEW, BOOT, 11.5)
    assert sorted(os.listdir(tmp_path)) == [FILE_NAME, FILE_NAME + PREVIOUS_SUFFIX]
    assert os.stat(copy.path).st_mode & 0o777 == 0o600


def test_times_are_moved_over_a_reboot_only() -> None:
    """Within one boot the clock has run on; after a reboot what remained of every time remains."""
    saved = Saved(b"", BOOT, 1000.0)
    assert saved.shift_s(BOOT, 1500.0) == 0.0
    until, now = 1030.0, 7.0
    assert until + saved.shift_s(BOOT + 1, now) - now == 30.0


def test_every_flipped_byte_leads_to_the_copy_before(copy: DiskCopy) -> None:
    """Wherever a byte is not as it was written, the previous copy is used and the damage is told (C10)."""
    whole = bytes_of(copy)
    for place in range(len(whole)):
        for flip in (1, 128, 255):
            data = bytearray(whole)
            data[place] ^= flip
            Path(copy.path).write_bytes(data)
            loaded = copy.load()
            assert (loaded.image, loaded.saved_at, len(loaded.problems)) == (OLD, 10.5, 1)


def test_a_copy_cut_at_any_byte_leads_to_the_one_before(copy: DiskCopy) -> None:
    """A copy is whole or it is not used, also when it is empty or has something behind its end."""
    whole = bytes_of(copy)
    for data in (*(whole[:end] for end in range(len(whole))), whole + b"x"):
        Path(copy.path).write_bytes(data)
        assert copy.load().image == OLD


def test_another_version_is_not_read(copy: DiskCopy) -> None:
    """A copy of another version of this format is told as that."""
    Path(copy.path).write_bytes(b"BRKCOPY9" + bytes_of(copy)[8:])
    assert "another version" in copy.load().problems[0]


def test_a_copy_of_before_they_were_packed_is_read(copy: DiskCopy) -> None:
    """After an upgrade the first start of a new boot finds what the version before saved."""
    image = b"an image as it is"
    head = struct.pack("=8sQdQ", b"BRKCOPY1", BOOT, 9.5, len(image))
    Path(copy.path).write_bytes(head + struct.pack("=I", zlib.crc32(image, zlib.crc32(head))) + image)
    assert copy.load() == Saved(image, BOOT, 9.5)


def test_a_copy_that_cannot_be_unpacked_leads_to_the_one_before(copy: DiskCopy) -> None:
    """Its checksum is right and what is in it is none of ours."""
    image = b"no packed image"
    head = struct.pack("=8sQdQ", b"BRKCOPY2", BOOT, 9.5, len(image))
    Path(copy.path).write_bytes(head + struct.pack("=I", zlib.crc32(image, zlib.crc32(head))) + image)
    loaded = copy.load()
    assert (loaded.image, len(loaded.problems)) == (OLD, 1)


def test_what_is_written_is_a_part_of_the_image(copy: DiskCopy) -> None:
    """The state of many workers says the same things many times; a disk sees few of them."""
    before = copy.written
    image = b",".join(b'["%032x",[0,1],{"failure_threshold":5}]' % number for number in range(5000))
    assert copy.save(image, BOOT, 12.5)
    assert copy.written - before == os.path.getsize(copy.path) < len(image) / 4
    assert copy.load().image == image


def test_two_damaged_copies_are_empty(copy: DiskCopy) -> None:
    """With no whole copy there is none, and both are told."""
    for suffix in ("", PREVIOUS_SUFFIX):
        Path(copy.path + suffix).write_bytes(b"")
    loaded = copy.load()
    assert (loaded.image, len(loaded.problems)) == (None, 2)


def test_a_directory_in_its_place_is_told(copy: DiskCopy) -> None:
    """What cannot be read as a file is a problem, not an exception."""
    os.unlink(copy.path)
    os.mkdir(copy.path)
    loaded = copy.load()
    assert (loaded.image, len(loaded.problems)) == (OLD, 1)


def test_a_crash_between_any_two_steps(copy: DiskCopy) -> None:
    """New file in part, new file, first rename, second rename: the old copy or the new one (C11)."""
    new = bytes_of(copy)
    old = bytes_of(copy, PREVIOUS_SUFFIX)
    # Before the save of NEW there was OLD alone; the steps follow as `save` makes them.
    os.unlink(copy.path + PREVIOUS_SUFFIX)
    Path(copy.path).write_bytes(old)
    for end in (0, 1, 30, len(new) - 1, len(new)):
        Path(copy.path + NEW_SUFFIX).write_bytes(new[:end])
        assert copy.load() == Saved(OLD, BOOT, 10.5)
    os.rename(copy.path, copy.path + PREVIOUS_SUFFIX)
    assert copy.load() == Saved(OLD, BOOT, 10.5)
    os.rename(copy.path + NEW_SUFFIX, copy.path)
    assert copy.load() == Saved(NEW, BOOT, 11.5)


def test_a_death_at_any_line_of_a_save(copy: DiskCopy) -> None:
    """Whoever dies before any line of it leaves the newest copy or the one before it."""
    third = b"a third image"
    for _ in deaths(disk, lambda: copy, lambda mine: mine.save(third, BOOT, 12.5)):
        assert copy.load() in (Saved(NEW, BOOT, 11.5), Saved(third, BOOT, 12.5))
        assert copy.save(NEW, BOOT, 11.5)


@pytest.mark.parametrize("left", [b"", b"a new copy that was never completed", b"x" * 100_000])
def test_what_a_crash_left_is_in_nobodys_way(copy: DiskCopy, left: bytes) -> None:
    """A temporary file of an earlier life is written over."""
    Path(copy.path + NEW_SUFFIX).write_bytes(left)
    assert copy.save(b"third", BOOT, 12.5)
    assert copy.load() == Saved(b"third", BOOT, 12.5)


def test_no_room_is_told_and_tried_again(copy: DiskCopy, tmp_path: Path) -> None:
    """A save that fails says why, leaves the copies as they were and no part behind; the next one works."""
    noise = random.Random(5).randbytes(2000)  # it cannot be packed into less
    with file_size_limit(1000):
        assert not copy.save(noise, BOOT, 12.5)
    assert copy.problem == f"state_efbig: {copy.path}: the checkpoint was not saved: File too large"
    assert copy.load() == Saved(NEW, BOOT, 11.5)
    assert sorted(os.listdir(tmp_path)) == [FILE_NAME, FILE_NAME + PREVIOUS_SUFFIX]
    assert copy.save(noise, BOOT, 13.5)
    assert (copy.problem, copy.load().saved_at) == ("", 13.5)


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    """A state directory that went away is a problem of each save, and loading finds nothing."""
    copy = DiskCopy(str(tmp_path / "gone"))
    assert not copy.save(NEW, BOOT, 1.0)
    assert "No such file or directory" in copy.problem
    assert copy.load() == Saved(None)
