"""The bytes of a checkpoint's half: read to the last one, or refused."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.image import Damaged, Loaded, Record, pack_record, pack_snapshot, read_image

IMAGE = pack_snapshot(7, "0.1.0", {"a": [1, 2.5, None]}) + pack_record(7, 1.25, 0.5, [12])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def sealed(values: object, number: int = 7) -> bytes:
    """An entry whose checksum is right, whatever it holds."""
    body = json.dumps(values).encode()
    crc = zlib.crc32(body, zlib.crc32(struct.pack("=II", number, len(body))))
    return struct.pack("=III", number, len(body), crc) + body


def test_an_image_comes_back() -> None:
    """Snapshot, software, number and records are read as they were written."""
    records = (Record(1.25, 0.5, [12]),)
    assert read_image(IMAGE) == Loaded({"a": [1, 2.5, None]}, records, (), "0.1.0", 7)


@given(VALUES, st.lists(st.tuples(st.floats(0, 1e9), st.floats(0, 1), st.lists(VALUES)), max_size=5))
def test_any_values_come_back(plain: object, told: list[tuple[float, float, list[object]]]) -> None:
    """Whatever JSON can tell, infinity too, comes back equal: numbers to their last bit."""
    image = pack_snapshot(0, "x", plain) + b"".join(pack_record(0, *one) for one in told)
    loaded = read_image(image)
    assert (loaded.snapshot, list(loaded.records)) == (plain, [Record(*one) for one in told])


@pytest.mark.parametrize("place", range(len(IMAGE)))
def test_no_flipped_bit_goes_unseen(place: int) -> None:
    """A single flipped bit, or a byte turned over, is found wherever it is."""
    for flip in (*(1 << bit for bit in range(8)), 255):
        damaged = bytearray(IMAGE)
        damaged[place] ^= flip
        with pytest.raises(Damaged):
            read_image(bytes(damaged))


def test_a_cut_image_is_refused() -> None:
    """An image that ends inside an entry is refused; one that ends between two is a shorter one."""
    between = len(pack_snapshot(7, "0.1.0", {"a": [1, 2.5, None]}))
    for end in range(len(IMAGE)):
        if end == between:
            assert read_image(IMAGE[:end]).records == ()
            continue
        with pytest.raises(Damaged):
            read_image(IMAGE[:end])


@pytest.mark.parametrize(
    "tail", [pack_record(6, 1.25, 0.5, [12]), sealed([1, 2]), sealed({"a": 1}), sealed("text"), b"\0" * 12]
)
def test_a_whole_entry_that_does_not_belong_is_refused(tail: bytes) -> None:
    """A record of another snapshot, or one of another shape, spoils the image although its sum is right."""
    with pytest.raises(Damaged):
        read_image(IMAGE + tail)


def test_bytes_that_are_no_json_are_refused() -> None:
    """A sum that fits does not make an entry of anything."""
    body = b"\xff\xfe["
    crc = zlib.crc32(body, zlib.crc32(struct.pack("=II", 1, len(body))))
    with pytest.raises(Damaged, match="not JSON"):
        read_image(struct.pack("=III", 1, len(body), crc) + body)
