"""Control frames: whatever arrives, in whatever pieces, is frames or one clear error."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipc import wire
from ipc.errors import ProtocolError
from ipc.wire import HEADER, LAST, MAGIC, MAX_BODY, Frame, FrameKind, FrameReader

FRAMES = st.builds(
    Frame,
    st.sampled_from(FrameKind),
    st.integers(0, (1 << 32) - 1),
    st.binary(max_size=300),
    st.booleans(),
)


def feed(data: bytes, cuts: list[int]) -> list[Frame]:
    """What a reader makes of `data` arriving in pieces that end at `cuts`."""
    reader = FrameReader()
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    frames: list[Frame] = []
    start = 0
    for end in ends:
        frames += reader.feed(data[start:end])
        start = end
    assert reader.pending == len(data) - sum(HEADER.size + len(frame.body) for frame in frames)
    return frames


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0, 1500), max_size=8))
def test_frames_come_back_however_they_are_cut(frames: list[Frame], cuts: list[int]) -> None:
    """A stream of frames is read as the same frames, wherever the pieces of it end."""
    assert feed(b"".join(frame.pack() for frame in frames), cuts) == frames


@given(st.lists(FRAMES, min_size=1, max_size=3), st.integers(0, 2000))
def test_an_unfinished_frame_waits(frames: list[Frame], missing: int) -> None:
    """A cut stream gives the frames that are complete, and an error never."""
    data = b"".join(frame.pack() for frame in frames)
    read = feed(data[: max(0, len(data) - missing)], [])
    assert read == frames[: len(read)]


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_one_clear_error(data: bytes) -> None:
    """Random bytes are refused with a ProtocolError, at the first byte that cannot be a frame's (D8)."""
    reader = FrameReader()
    if data[:4] == MAGIC[: len(data[:4])]:
        return
    with pytest.raises(ProtocolError, match="BKR1"):
        reader.feed(data)


@settings(max_examples=2000, deadline=None)
@given(st.lists(FRAMES, min_size=1, max_size=3), st.integers(0, 5000), st.integers(0, 7), st.integers(1, 64))
def test_a_flipped_bit_is_an_error_or_a_frame(frames: list[Frame], place: int, bit: int, size: int) -> None:
    """A damaged stream raises nothing but ProtocolError, and never keeps more than one frame's bytes (D8)."""
    data = bytearray(b"".join(frame.pack() for frame in frames))
    data[place % len(data)] ^= 1 << bit
    reader = FrameReader()
    with contextlib.suppress(ProtocolError):
        for start in range(0, len(data), size):
            for frame in reader.feed(bytes(data[start : start + size])):
                assert len(frame.body) <= MAX_BODY
            assert reader.pending <= HEADER.size + MAX_BODY


@pytest.mark.parametrize("length", [MAX_BODY + 1, 1 << 16, 1 << 31, (1 << 32) - 1])
def test_an_announced_length_has_a_limit(length: int) -> None:
    """A frame that announces more than a frame may have is refused before its body comes."""
    with pytest.raises(ProtocolError, match=f"{length} bytes"):
        FrameReader().feed(HEADER.pack(MAGIC, 1, LAST, 0, 1, length))


def test_the_largest_and_the_smallest_frame() -> None:
    """Bodies of no byte and of MAX_BODY bytes are frames like others."""
    frames = [Frame(FrameKind.ANSWER, 1, b""), Frame(FrameKind.ANSWER, 2, b"x" * MAX_BODY)]
    data = b"".join(frame.pack() for frame in frames)
    assert len(data) == 2 * HEADER.size + MAX_BODY
    assert feed(data, [17, 40_000]) == frames


@pytest.mark.parametrize(
    ("kind", "flags", "zero"),
    [(0, 1, 0), (4, 1, 0), (255, 1, 0), (1, 2, 0), (1, 255, 0), (1, 1, 1), (1, 1, 65_535)],
)
def test_unknown_kinds_and_flags_are_refused(kind: int, flags: int, zero: int) -> None:
    """What this version does not know is an error, not a guess."""
    with pytest.raises(ProtocolError, match="unknown frame"):
        FrameReader().feed(HEADER.pack(MAGIC, kind, flags, zero, 1, 0))


@pytest.mark.parametrize("first", range(4))
def test_the_first_wrong_byte_is_enough(first: int) -> None:
    """A stream that does not begin as a frame is refused as soon as that can be seen."""
    with pytest.raises(ProtocolError, match="BKR1"):
        FrameReader().feed(MAGIC[:first] + b"?")


def test_frames_before_an_error_are_lost_with_the_connection() -> None:
    """An error ends the stream: nothing that came with it is half handled."""
    with pytest.raises(ProtocolError):
        FrameReader().feed(Frame(FrameKind.REQUEST, 1, b"{}").pack() + b"HTTP/1.1 200 OK")


# --- requests and answers -------------------------------------------------------------------------------


def test_a_request_is_one_frame_of_json() -> None:
    """The verb and its fields are the body's object."""
    (frame,) = FrameReader().feed(wire.request(7, "permit", nonce="ab", row=3))
    assert (frame.kind, frame.request, frame.last) == (FrameKind.REQUEST, 7, True)
    assert wire.read_object(frame.body) == {"verb": "permit", "nonce": "ab", "row": 3}


def test_a_request_has_a_limit() -> None:
    """A request that does not fit a frame is the asking side's error."""
    with pytest.raises(ProtocolError, match="limit"):
        wire.request(1, "command", reason="x" * MAX_BODY)


@given(st.integers(0, (1 << 33) - 1), st.lists(st.text(max_size=20), max_size=20))
def test_an_answer_is_a_run_of_frames(number: int, value: list[str]) -> None:
    """The bodies joined are the value; only the last frame says that it is the last."""
    frames = FrameReader().feed(wire.answer(number, value))
    assert json.loads(b"".join(frame.body for frame in frames)) == value
    assert [frame.last for frame in frames] == [False] * (len(frames) - 1) + [True]
    assert {frame.request for frame in frames} == {number & 0xFFFF_FFFF}


@pytest.mark.parametrize("size", [0, MAX_BODY - 2, MAX_BODY - 1, MAX_BODY, 3 * MAX_BODY])
def test_a_large_answer_is_cut(size: int) -> None:
    """An answer of any size comes in frames of at most MAX_BODY, the last never empty."""
    frames = FrameReader().feed(wire.answer(1, "x" * size))
    assert len(frames) == -(-(size + 2) // MAX_BODY)
    assert all(0 < len(frame.body) <= MAX_BODY for frame in frames)


def test_an_error_fits_a_frame() -> None:
    """Code and text are told, and a text of any length and script fits."""
    (frame,) = FrameReader().feed(wire.error(3, "denied", "\N{SNOWMAN}" * 100_000))
    assert (frame.kind, wire.read_object(frame.body)["code"]) == (FrameKind.ERROR, "denied")
    assert len(wire.read_object(frame.body)["text"]) == 2000


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"3", b'"x"', b"{", b"\xff\xfe", b"\x00", b"[" * 60_000, b"1" * 60_000]
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    """Bodies that are not JSON objects, however they are built, are a ProtocolError."""
    with pytest.raises(ProtocolError):
        wire.read_object(body)


@settings(max_examples=1000, deadline=None)
@given(st.binary(max_size=100))
def test_any_body_is_an_object_or_refused(body: bytes) -> None:
    """Random bodies raise nothing else."""
    with contextlib.suppress(ProtocolError):
        assert isinstance(wire.read_object(body), dict)
