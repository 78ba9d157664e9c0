"""The bits and bytes of a segment: every number is pinned, and what is packed comes out again."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipc import layout as at
from ipc.circuit import generation_code
from ipc.vocabulary import BreakerState, OutcomeKind


def bits(value: float) -> int:
    """The bit pattern of a double."""
    word: int = struct.unpack("=Q", struct.pack("=d", value))[0]
    return word


def test_places_in_the_header_are_fixed() -> None:
    """Both ends count words from the same beginning."""
    assert (at.W_MAGIC, at.W_BOOT, at.W_GEOMETRY, at.W_NONCE) == (0, 1, 2, 3)
    assert (at.W_HEARTBEAT, at.W_BELL, at.W_COMMITTED, at.W_INCARNATION) == (8, 9, 10, 11)
    assert (at.W_DECLARED, at.W_CHANGES, at.W_GRANTED) == (16, 17, 18)
    assert (at.W_BOARD, at.ROWS, at.TALLIES, at.BLOCK) == (64, 1024, 16, 256)
    assert (at.LAYOUT_VERSION, at.MAGIC) == (1, 0x6272_6B72_6400_0001)


def test_sizes_and_limits_are_fixed() -> None:
    """A change of one of these is a new layout version."""
    assert (at.DEFAULT_SLOTS, at.PRIVATE_SLOTS, at.MAX_SLOTS) == (16_384, 1024, 1_048_576)
    assert (at.DECLARATION_WORDS, at.PAGE, at.TALLY_LIMIT) == (16_384, 4096, 1 << 48)
    assert (at.CODE_SHIFT, at.GENERATION_SHIFT, at.LAP_SHIFT, at.ROW_SHIFT, at.END_SHIFT) == (
        52,
        48,
        41,
        31,
        16,
    )
    assert (at.LAP_MASK, at.ROW_MASK, at.END_MASK, at.DURATION_MASK) == (127, 1023, 32_767, 65_535)
    assert (at.FAST_SUCCESS, at.FAST_FAILURE, at.CODE_TIME, at.CODE_VOID) == (0x421, 0xC21, 9, 10)
    assert (at.TIME_MASK, at.BOARD_GENERATION_MASK, at.PERMITS_BIT) == (
        0xFF_FFFF_FFFF,
        0xF_FFFF,
        1 << 60,
    )
    assert (at.END_STEPS_PER_S, at.DURATION_STEPS_PER_S, at.LONG_STEPS_PER_S) == (512.0, 262_144.0, 256.0)
    assert at.TIME_STEPS_PER_S == 1024.0
    assert (at.BLOCK_SPAN_S, at.QUICK_LIMIT_S) == (63.98, 0.25 - 2.0**-17)


@pytest.mark.parametrize(
    ("slots", "size"), [(512, 278_528), (16_384, 405_504), (65_536, 798_720), (1 << 20, 8_663_040)]
)
def test_the_parts_of_a_segment_follow_each_other(slots: int, size: int) -> None:
    """Header, board, ring, tallies, declarations; whole pages."""
    layout = at.Layout(slots)
    assert (layout.board, layout.ring, layout.tallies) == (64, 1088, 1088 + slots)
    assert layout.declared == 1088 + slots + 16 * 1024
    assert layout.size == size
    assert layout.size % at.PAGE == 0
    assert layout.size >= 8 * (layout.declared + at.DECLARATION_WORDS)
    assert layout.geometry == 1024 << 32 | slots


@pytest.mark.parametrize("slots", [0, 256, 511, 513, 1000, 1 << 21, -512])
def test_a_ring_is_a_power_of_two_of_whole_blocks(slots: int) -> None:
    """512 to a million."""
    with pytest.raises(ValueError, match="ring_slots: must be a power of two"):
        at.Layout(slots)


def test_only_honest_codes_are_known() -> None:
    """The two fast ones, and every kind with its flags; markers, zero and all else are no outcomes."""
    for code in range(4096):
        known = at.CODES[code]
        kind, long, trial, permit = code & 15, bool(code & 16), code & 32, code >> 6
        if code == 0x421:
            assert known == at.Code(OutcomeKind.SUCCESS, long=False, permit=None)
        elif code == 0xC21:
            assert known == at.Code(OutcomeKind.FAILURE, long=False, permit=None)
        elif kind in {int(one) for one in OutcomeKind} and (trial or not permit):
            assert known == at.Code(OutcomeKind(kind), long, permit if trial else None)
        else:
            assert known is None
    assert (at.CODES[0], at.CODES[at.CODE_TIME], at.CODES[at.CODE_VOID]) == (None, None, None)


@given(st.sampled_from(OutcomeKind), st.booleans(), st.none() | st.integers(0, 1 << 40))
def test_codes_come_out_as_they_went_in(kind: OutcomeKind, long: bool, permit: int | None) -> None:
    """With the low six bits of the permit; and none is mistaken for a fast one or a marker."""
    code = at.pack_code(kind, long, permit)
    assert at.CODES[code] == at.Code(kind, long, None if permit is None else permit & 63)
    assert code not in (at.FAST_SUCCESS, at.FAST_FAILURE, at.CODE_TIME, at.CODE_VOID)


rows = st.integers(0, at.ROWS - 1)
laps = st.integers(0, 1 << 30)
ends = st.floats(0.0, at.BLOCK_SPAN_S)


@given(st.sampled_from(OutcomeKind), st.integers(0, 15), laps, rows, ends, st.floats(0.0, 300.0))
def test_slow_words_come_out_as_they_went_in(
    kind: OutcomeKind, generation: int, lap: int, row: int, end: float, took: float
) -> None:
    """Each field exactly, times to within their step."""
    long = took >= at.QUICK_LIMIT_S
    word = at.pack_outcome(at.pack_code(kind, long, 5), generation, lap, row, end, took)
    assert word < 1 << 64
    assert at.CODES[word >> 52] == at.Code(kind, long, 5)
    assert (word >> 48 & 15, word >> 41 & 127, word >> 31 & 1023) == (generation, lap & 127, row)
    assert 0 <= end - (word >> 16 & 0x7FFF) / 512 < 1 / 512
    step = 1 / 256 if long else 2.0**-18
    if took < 65_535 * step:
        assert 0 <= took - (word & 0xFFFF) * step < step


@pytest.mark.parametrize(("end", "shown"), [(-5.0, 0), (64.0, 0x7FFF), (1e9, 0x7FFF)])
def test_ends_are_clamped_into_their_block(end: float, shown: int) -> None:
    """Nothing is carried into the row."""
    word = at.pack_outcome(at.pack_code(OutcomeKind.IGNORED, False, None), 0, 0, 3, end, -1.0)
    assert (word >> 31 & 1023, word >> 16 & 0x7FFF, word & 0xFFFF) == (3, shown, 0)


@pytest.mark.parametrize("long", [True, False])
def test_durations_are_clamped(long: bool) -> None:
    """65,535 steps is that or longer."""
    word = at.pack_outcome(at.pack_code(OutcomeKind.SUCCESS, long, None), 1, 1, 1, 1.0, 1e6)
    assert word & 0xFFFF == 65_535


@given(
    st.booleans(),
    st.integers(0, 15),
    laps,
    rows,
    ends,
    st.floats(0.0, at.QUICK_LIMIT_S, exclude_max=True),
    st.integers(0, 10_000_000),
)
def test_fast_words_are_packed_by_additions_alone(
    failed: bool, generation: int, lap: int, row: int, end: float, took: float, epoch: int
) -> None:
    """As the hot path does it: the sum's bits are the word, and the sign bit is the failure."""
    plus = at.ROUND_TO_END - epoch * at.END_FACTOR
    minus = at.ROUND_TO_END - (lap & 127) * at.LAP_WEIGHT
    value = ((epoch + end) * at.END_FACTOR + plus) - minus + at.head(row, generation) + took
    word = bits(-value if failed else value)
    assert word >> 52 == (at.FAST_FAILURE if failed else at.FAST_SUCCESS)
    assert (word >> 48 & 15, word >> 41 & 127, word >> 31 & 1023) == (generation, lap & 127, row)
    assert abs((word >> 16 & 0x7FFF) / 512 - end) <= 1 / 512
    assert abs((word & 0xFFFF) * 2.0**-18 - took) <= 2.0**-18


def test_the_weights_are_the_shifts() -> None:
    """A double in [2**34, 2**35) counts in steps of 2**-18."""
    assert bits(at.FAST_ONE) == at.FAST_SUCCESS << 52
    assert bits(-at.FAST_ONE) == at.FAST_FAILURE << 52
    for weight, shift in ((at.ROW_WEIGHT, 31), (at.LAP_WEIGHT, 41), (at.GENERATION_WEIGHT, 48)):
        assert bits(at.FAST_ONE + weight) - bits(at.FAST_ONE) == 1 << shift
    assert bits(at.FAST_ONE + at.END_FACTOR / 512) - bits(at.FAST_ONE) == 1 << 16
    assert bits(at.FAST_ONE + 2.0**-18) - bits(at.FAST_ONE) == 1


def test_markers_carry_their_lap_and_time() -> None:
    """A block's first word has the epoch, whole seconds; a void word has nothing."""
    assert at.pack_time(130, 1_000_000) == 9 << 52 | 2 << 41 | 1_000_000
    assert at.pack_time(0, (1 << 41) + 5) == 9 << 52 | 5
    assert at.pack_void(127) == 10 << 52 | 127 << 41


@given(st.integers(0, 1 << 64))
def test_a_generation_and_its_number_on_the_board_have_one_code(generation: int) -> None:
    """However often a breaker has moved, what a worker reads off its board is judged as current."""
    shown = at.unpack_row(at.pack_row(BreakerState.OPEN, generation, 1.0, permits_left=False))[1]
    assert generation_code(shown) == generation_code(generation)
    following = at.unpack_row(at.pack_row(BreakerState.OPEN, generation + 1, 1.0, permits_left=False))[1]
    assert shown != following


@given(st.sampled_from(BreakerState), st.integers(0, 1 << 24), st.floats(0.0, 1e9), st.booleans())
def test_board_words_come_out_as_they_went_in(
    state: BreakerState, generation: int, until: float, permits: bool
) -> None:
    """The generation modulo 2**20 - 1; the time rounded up, so that nobody is told too early a time."""
    shown = at.unpack_row(at.pack_row(state, generation, until, permits))
    assert (shown[0], shown[1], shown[3]) == (state, generation % 0xF_FFFF, permits)
    if state is BreakerState.CLOSED:
        assert shown[2] == 0.0, "it does not end by time"
    else:
        assert 0.0 <= shown[2] - until < 1 / 1024 + 1e-6


@given(st.integers(0, 1 << 24), st.floats(0.001, 1e9), st.floats(0.001, 4000.0))
def test_ramps_come_out_as_they_went_in(generation: int, until: float, length: float) -> None:
    """The end rounded up by a sixteenth of a second at most; the length short by a fifth at most."""
    word = at.pack_ramp(generation, until, length)
    assert at.unpack_row(word) == (BreakerState.CLOSED, generation % 0xF_FFFF, 0.0, False)
    shown, told = at.unpack_ramp(word)
    assert 0.0 <= shown - until < 1 / 16 + 1e-6
    assert length / 2**0.25 < told <= length or (told == 0.0 and length < 0.0885)


def test_ramp_words_have_fixed_bits() -> None:
    """The end in steps of a sixteenth, and a length code that an older worker takes for milliseconds."""
    assert at.pack_ramp(5, 2.5, 30.0) == 1 << 61 | 5 << 40 | 40 << 6 | 34
    assert at.unpack_ramp(at.pack_ramp(5, 2.5, 30.0)) == (2.5, 2.0 ** (19 / 4))
    assert at.pack_ramp(5, 2.5, 4.0) & 63 == 23
    assert (at.pack_ramp(5, 1e12, 4.0) & at.TIME_MASK) == at.TIME_MASK & ~63 | 23


@pytest.mark.parametrize(("until", "length"), [(0.0, 30.0), (-5.0, 30.0), (100.0, 0.0)])
def test_no_ramp_is_the_word_of_a_row_that_never_had_one(until: float, length: float) -> None:
    """Also after a reboot has moved its end below zero."""
    assert at.pack_ramp(5, until, length) == at.pack_row(BreakerState.CLOSED, 5, 0.0, False)


def test_board_words_have_fixed_bits() -> None:
    """State, permits left, generation, time."""
    assert at.pack_row(BreakerState.CLOSED, 0, 0.0, False) == 0x2000_0000_0000_0000
    assert at.pack_row(BreakerState.OPEN, 5, 2.5, False) == 2 << 61 | 5 << 40 | 2560
    assert at.pack_row(BreakerState.HALF_OPEN, 6, 0.0, True) == 3 << 61 | 1 << 60 | 6 << 40


@pytest.mark.parametrize("until", [0.0, -1.0, math.inf])
def test_no_end_is_zero(until: float) -> None:
    """In a board word, that is."""
    assert at.unpack_row(at.pack_row(BreakerState.FORCED_OPEN, 1, until, False))[2] == 0.0


def test_a_time_beyond_the_field_is_its_largest() -> None:
    """34 years after the machine's start."""
    assert at.unpack_row(at.pack_row(BreakerState.OPEN, 1, 1e12, False))[2] == (2**40 - 1) / 1024


@pytest.mark.parametrize("word", [0, 7 << 61, 1, (1 << 60) | 77])
def test_a_word_that_is_no_state_admits(word: int) -> None:
    """A row that was never published, or scribbled over by its own worker."""
    assert at.unpack_row(word) == (BreakerState.CLOSED, 0, 0.0, False)
