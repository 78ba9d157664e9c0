"""A segment: sealed against every change of its size, checked before it is believed, declared into."""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipc import layout as at
from ipc.errors import SegmentError
from ipc.segment import F_ADD_SEALS, F_GET_SEALS, SEALS, Segment, boot_id, wipe_on_fork_page

NONCE = bytes(range(16))
BOOT = 77
LAYOUT = at.Layout(512)
LARGER = at.Layout(1024).geometry


@pytest.fixture
def segment() -> Iterator[Segment]:
    """A new segment, whose descriptor is closed at the end."""
    made = Segment.create(LAYOUT, NONCE, BOOT)
    yield made
    made.close_fd()


def test_both_sides_see_the_same_words(segment: Segment) -> None:
    """What one mapping stores as a word, the other reads, as a word and as the double it is."""
    other = Segment.attach(os.dup(segment.fd), NONCE, BOOT)
    assert other.layout == segment.layout
    other.floats[1000] = -1.5
    assert segment.words[1000] == 0xBFF8 << 48
    other.close_fd()


def test_nobody_can_change_its_size(segment: Segment) -> None:
    """Truncating and growing fail, by the descriptor and by its path under /proc (C1)."""
    path = f"/proc/{os.getpid()}/fd/{segment.fd}"
    for attempt in (
        lambda: os.ftruncate(segment.fd, 0),
        lambda: os.ftruncate(segment.fd, LAYOUT.size + 4096),
        lambda: os.truncate(path, 0),
        lambda: os.posix_fallocate(segment.fd, 0, LAYOUT.size + 4096),
        lambda: os.pwrite(segment.fd, b"x", LAYOUT.size),
        lambda: fcntl.fcntl(segment.fd, F_ADD_SEALS, 0x0008),
    ):
        with pytest.raises(PermissionError):
            attempt()
    with pytest.raises(OSError, match=r"busy|permitted"):
        os.close(os.open(path, os.O_RDWR | os.O_TRUNC))
    assert os.fstat(segment.fd).st_size == LAYOUT.size
    assert fcntl.fcntl(segment.fd, F_GET_SEALS) & SEALS == SEALS


def test_its_pages_are_allocated(segment: Segment) -> None:
    """No page is missing that would have to be found when it is first written."""
    assert os.fstat(segment.fd).st_blocks * 512 >= LAYOUT.size


def test_holes_are_filled_before_a_segment_is_mapped(segment: Segment) -> None:
    """A segment whose owner punched pages out of it has them again once it is attached."""
    keep_size, punch_hole = 1, 2
    libc = ctypes.CDLL(None, use_errno=True)
    size = ctypes.c_long(64 * 1024)
    assert libc.fallocate(segment.fd, keep_size | punch_hole, ctypes.c_long(4096), size) == 0
    assert os.fstat(segment.fd).st_blocks * 512 < LAYOUT.size
    Segment.attach(os.dup(segment.fd), NONCE, BOOT).close_fd()
    assert os.fstat(segment.fd).st_blocks * 512 >= LAYOUT.size


def test_descriptors_are_closed_on_exec(segment: Segment) -> None:
    """No program that a worker starts inherits its segment."""
    assert not os.get_inheritable(segment.fd)


def memory_file(size: int, seals: int = SEALS, words: dict[int, int] | None = None) -> int:
    """A memory file with that size, those seals and those words in it."""
    fd = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    for index, word in (words or {}).items():
        os.pwrite(fd, word.to_bytes(8, "little"), 8 * index)
    fcntl.fcntl(fd, F_ADD_SEALS, seals)
    return fd


def identity(**changed: int) -> dict[int, int]:
    """The header of a good segment, but for what is given by the name of its word."""
    good = {
        "W_MAGIC": at.MAGIC,
        "W_BOOT": BOOT,
        "W_GEOMETRY": LAYOUT.geometry,
        "W_NONCE": int.from_bytes(NONCE[-8:], "big"),
    }
    return {getattr(at, name): word for name, word in {**good, **changed}.items()}


def test_a_file_made_by_hand_is_as_good(segment: Segment) -> None:
    """What the checks of the next test let pass: seals, size and four words are all of the identity."""
    fd = memory_file(LAYOUT.size, words=identity())
    Segment.attach(fd, NONCE, BOOT).close_fd()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: memory_file(LAYOUT.size, 0, identity()), "not sealed"),
        (lambda: memory_file(LAYOUT.size, SEALS & ~2, identity()), "not sealed"),
        (lambda: memory_file(LAYOUT.size, SEALS & ~4, identity()), "not sealed"),
        (lambda: os.open("/dev/null", os.O_RDWR), "not sealed"),
        (lambda: os.pipe()[0], "not sealed"),
        (lambda: memory_file(0), "0 bytes"),
        (lambda: memory_file(1001), "1001 bytes"),
        (lambda: memory_file(1 << 40, words=identity()), "1099511627776 bytes"),
        (lambda: memory_file(LAYOUT.size + 4096, words=identity()), "its header says"),
        (lambda: memory_file(LAYOUT.size - 4096, words=identity()), "its header says"),
        (lambda: memory_file(LAYOUT.size), "another layout version"),
        (lambda: memory_file(LAYOUT.size, words=identity(W_MAGIC=at.MAGIC + 1)), "another layout version"),
        (lambda: memory_file(LAYOUT.size, words=identity(W_BOOT=BOOT + 1)), "another boot"),
        (lambda: memory_file(LAYOUT.size, words=identity(W_NONCE=5)), "another attachment"),
        (lambda: memory_file(LAYOUT.size, words=identity(W_GEOMETRY=513)), "power of two"),
        (lambda: memory_file(LAYOUT.size, words=identity(W_GEOMETRY=512)), "its header says"),
        (lambda: memory_file(LAYOUT.size, words=identity(W_GEOMETRY=LARGER)), "its header says"),
        (lambda: memory_file(LAYOUT.size, words=identity(W_GEOMETRY=(1 << 64) - 1)), "power of two"),
    ],
)
def test_what_is_not_a_segment_is_refused(make: Callable[[], int], text: str) -> None:
    """Other seals, sizes, versions, boots, nonces and geometries are told in a sentence, never mapped."""
    fd = make()
    try:
        with pytest.raises(SegmentError, match=text):
            Segment.attach(fd, NONCE, BOOT)
    finally:
        os.close(fd)


def test_the_boot_id_is_of_this_boot() -> None:
    """The boot id is 64 bits of the kernel's, the same each time."""
    told = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").replace("-", "")
    assert boot_id() == int(told[:16], 16) == boot_id()


def test_closing_the_descriptor_keeps_the_mapping(segment: Segment) -> None:
    """Words can be read and stored after the descriptor is closed, and closing twice harms nobody."""
    segment.close_fd()
    segment.close_fd()
    segment.words[500] = 5
    assert (segment.words[500], segment.fd) == (5, -1)


def test_a_private_segment_has_no_file() -> None:
    """A process on its own has the same words without a file, and no room for declarations."""
    private = Segment.private()
    assert (private.fd, private.layout.slots) == (-1, at.PRIVATE_SLOTS)
    assert not private.declare(b"")


def test_a_page_that_every_child_finds_wiped() -> None:
    """The page reads 0.0 in a child made by C code, and keeps its numbers in the parent."""
    page = wipe_on_fork_page()
    page[3] = 12.5
    pid = os.fork()
    if pid == 0:
        os._exit(7 if page[3] == 0.0 else 1)
    _, status = os.waitpid(pid, 0)
    assert (os.waitstatus_to_exitcode(status), page[3]) == (7, 12.5)


# --- declarations ---------------------------------------------------------------------------------------


def test_declarations_come_back_in_order(segment: Segment) -> None:
    """Each record is read once, from where the last look ended."""
    assert segment.declarations(0) == ([], 0)
    assert segment.declare(b"one")
    assert segment.declare(b"")
    first, end = segment.declarations(0)
    assert segment.declare(b"seventeen letters")
    second, last = segment.declarations(end)
    assert (first, second, segment.declarations(last)) == ([b"one", b""], [b"seventeen letters"], ([], last))


def test_a_full_area_refuses(segment: Segment) -> None:
    """What does not fit is refused and leaves everything before it readable."""
    count = 0
    while segment.declare(b"x" * 1000):
        count += 1
    assert count == 8 * at.DECLARATION_WORDS // 1008
    assert segment.declare(b"y")
    records, _ = segment.declarations(0)
    assert records == [b"x" * 1000] * count + [b"y"]


def test_a_record_counts_when_its_end_is_stored(segment: Segment) -> None:
    """Whoever dies before the last store has declared nothing."""
    assert segment.declare(b"declared")
    published = segment.words[at.W_DECLARED]
    assert segment.declare(b"not yet")
    segment.words[at.W_DECLARED] = published
    assert segment.declarations(0) == ([b"declared"], published)


def test_a_record_with_a_wrong_checksum_ends_the_run(segment: Segment) -> None:
    """Nothing behind a damaged record is read."""
    segment.declare(b"good")
    end = segment.words[at.W_DECLARED]
    segment.declare(b"bad")
    segment.declare(b"unreachable")
    segment.bytes[8 * segment.layout.declared + end + 8] ^= 1
    assert segment.declarations(0) == ([b"good"], end)


@pytest.mark.parametrize("length", [1, 1 << 16, 1 << 31, (1 << 32) - 1])
def test_a_hostile_length_ends_the_run(segment: Segment, length: int) -> None:
    """A record that claims more than was declared is not read."""
    segment.words[segment.layout.declared] = length << 32 | zlib.crc32(b"")
    segment.words[at.W_DECLARED] = 8
    assert segment.declarations(0) == ([], 0)


@pytest.mark.parametrize("declared", [3, 9, 1 << 20, 1 << 63, (1 << 64) - 1])
def test_a_hostile_end_reads_no_byte_outside(segment: Segment, declared: int) -> None:
    """However much a worker claims to have declared, only its own area is read."""
    segment.declare(b"one")
    segment.words[at.W_DECLARED] = declared
    records, end = segment.declarations(0)
    assert set(records) <= {b"one", b""}
    assert end <= 8 * segment.layout.declarations


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 1 << 30), declared=st.integers(0, (1 << 64) - 1), start=st.integers(0, 1 << 17))
def test_a_garbage_area_is_survived(segment: Segment, seed: int, declared: int, start: int) -> None:
    """Random bytes where declarations should be: a bounded look that returns, and stays inside."""
    area = slice(8 * segment.layout.declared, 8 * segment.layout.declared + 131_072)
    segment.bytes[area] = random.Random(seed).randbytes(131_072)
    segment.words[at.W_DECLARED] = declared
    start = start // 8 * 8
    records, end = segment.declarations(start)
    assert end >= start
    assert sum(map(len, records)) <= 131_072
