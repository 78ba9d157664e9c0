"""The bytes of a segment and the bits of its words. Knows no mmap, no clock and no breaker.

A segment is an array of aligned 64-bit words, native byte order; only whole words are ever read or
stored. `rows` (1,024) and `slots` (a power of two) stand in the header. Who writes what:

    word          part          written by     content
    0..7          identity      supervisor     0 magic and layout version, 1 boot id, 2 rows << 32 | slots,
                                               3 nonce (low half), 4..7 zero
    8..15         supervisor    supervisor     8 heartbeat (ns of CLOCK_MONOTONIC), 9 bell epoch,
                                               10 committed position, 11 incarnation
    16..63        worker        worker         16 declared bytes, 17 tally changes, 18 granted position
    64            board         supervisor     a word per row
    64+rows       ring          worker         `slots` outcome words
    +slots        tallies       worker         16 cumulative words per row, indexed by OutcomeKind or Tally
    +16*rows      declarations  worker         DECLARATION_WORDS words of append-only records

A board word; 0 = never published (admit, generation 0), ALONE = the supervisor does not take this row:

    63..61 state | 60 permits left | 59..40 generation | 39..0 time (2**-10 s of CLOCK_MONOTONIC)

In CLOSED the time is the end of the ramp, in steps of 2**-4 s, and its low six bits, which weigh less than
that, say how long the whole ramp is: RAMP_LENGTHS.

An outcome word is the bit pattern of a double in [2**34, 2**35) or of its negative, whose 52 low bits
then are an integer in steps of 2**-18; so success and failure are packed by float additions alone:

    63..52 code | 51..48 generation code | 47..41 lap tag | 40..31 row | 30..16 end | 15..0 duration

code 0x421 is a success and 0xC21 a failure (sign and exponent of that double). Every other code is
kind (4 bits, `OutcomeKind`) | long << 4 | trial << 5 | permit << 6. end counts 2**-9 s from the epoch
of its block; duration counts 2**-18 s, or 2**-8 s when `long` is set (65,535 = that or longer).
A ring is granted in blocks of 256 slots. A block's first word has code 9 and, in bits 40..0, its epoch
(whole seconds of CLOCK_MONOTONIC); code 10 is a slot given up. lap tag = position // slots & 127, so a
word proves by itself that it belongs to the position at which it is read. generation code 0 = local.

A declaration record: one word (payload length << 32 | crc32 of the payload), the payload (UTF-8
JSON), zeros up to the next word. It is published by storing word 16 after it.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from typing import Final, NamedTuple

from ipc.vocabulary import BreakerState, OutcomeKind

LAYOUT_VERSION: Final = 1
MAGIC: Final = 0x6272_6B72_6400_0000 | LAYOUT_VERSION

ROWS: Final = 1024
DEFAULT_SLOTS: Final = 16_384
PRIVATE_SLOTS: Final = 1024
MAX_SLOTS: Final = 1 << 20
BLOCK: Final = 256
TALLIES: Final = 16
DECLARATION_WORDS: Final = 16_384
PAGE: Final = 4096

W_MAGIC: Final = 0
W_BOOT: Final = 1
W_GEOMETRY: Final = 2
W_NONCE: Final = 3
W_HEARTBEAT: Final = 8
W_BELL: Final = 9
W_COMMITTED: Final = 10
W_INCARNATION: Final = 11
W_DECLARED: Final = 16
W_CHANGES: Final = 17
W_GRANTED: Final = 18
W_BOARD: Final = 64

TALLY_LIMIT: Final = 1 << 48
"""A cumulative word of this size or more is hostile and refused."""

FAST_SUCCESS: Final = 0x421
FAST_FAILURE: Final = 0xC21
CODE_TIME: Final = 9
CODE_VOID: Final = 10

CODE_SHIFT: Final = 52
GENERATION_SHIFT: Final = 48
LAP_SHIFT: Final = 41
ROW_SHIFT: Final = 31
END_SHIFT: Final = 16
LAP_MASK: Final = 127
ROW_MASK: Final = 1023
END_MASK: Final = 0x7FFF
DURATION_MASK: Final = 0xFFFF
EPOCH_MASK: Final = (1 << LAP_SHIFT) - 1

END_STEPS_PER_S: Final = 512.0
DURATION_STEPS_PER_S: Final = float(1 << 18)
LONG_STEPS_PER_S: Final = 256.0
BLOCK_SPAN_S: Final = 63.98
"""A block takes ends up to this many seconds after its epoch: 64 s less what rounding may carry."""
QUICK_LIMIT_S: Final = 0.25 - 2.0**-17
"""Durations from here on do not fit the fast word's 16 bits."""

ROW_WEIGHT: Final = 2.0 ** (ROW_SHIFT - 18)
LAP_WEIGHT: Final = 2.0 ** (LAP_SHIFT - 18)
GENERATION_WEIGHT: Final = 2.0 ** (GENERATION_SHIFT - 18)
FAST_ONE: Final = 2.0**34
END_FACTOR: Final = 128.0
"""An end of 2**-9 s weighs 2**-2 in the double: seconds times this."""
ROUND_TO_END: Final = 2.0**50
"""Adding this rounds a double to multiples of 2**-2, which is one step of an end."""

TIME_STEPS_PER_S: Final = 1024.0
TIME_MASK: Final = (1 << 40) - 1
BOARD_GENERATION_MASK: Final = (1 << 20) - 1
BOARD_GENERATIONS: Final = (1 << 20) - 1
"""A board counts generations up to here and begins again. It is a multiple of the 15 codes that outcome
words carry, so the code of the number on the board is always that of the whole number."""
PERMITS_BIT: Final = 1 << 60
ALONE: Final = 7 << 61 | 1
"""The board word of a row that the supervisor does not take: its process decides by itself. To a client that
does not know it, it is a word of no state, which admits as 0 does."""
RAMP_MASK: Final = 63
RAMP_STEPS_PER_S: Final = TIME_STEPS_PER_S / (RAMP_MASK + 1)
RAMP_LENGTHS: Final = (0.0, *(2.0 ** ((code - 15) / 4) for code in range(1, RAMP_MASK + 1)))
"""Seconds by code, 0.09 to 4,096, four to an octave; a length in between is told as the shorter one."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the parts of a segment begin, in words; derived from the number of ring slots."""

    slots: int = DEFAULT_SLOTS
    declarations: int = DECLARATION_WORDS

    def __post_init__(self) -> None:
        """Refuse a ring that is not a power of two of whole blocks."""
        if not 2 * BLOCK <= self.slots <= MAX_SLOTS or self.slots & (self.slots - 1):
            raise ValueError(f"ring_slots: must be a power of two, 512 to {MAX_SLOTS}, got {self.slots}")

    @property
    def board(self) -> int:
        """First word of the board."""
        return W_BOARD

    @property
    def ring(self) -> int:
        """First word of the ring."""
        return W_BOARD + ROWS

    @property
    def tallies(self) -> int:
        """First word of the tallies."""
        return self.ring + self.slots

    @property
    def declared(self) -> int:
        """First word of the declarations."""
        return self.tallies + TALLIES * ROWS

    @property
    def size(self) -> int:
        """Bytes of the whole segment, whole pages."""
        return -(-8 * (self.declared + self.declarations) // PAGE) * PAGE

    @property
    def geometry(self) -> int:
        """The header's geometry word."""
        return ROWS << 32 | self.slots


class Code(NamedTuple):
    """What the twelve high bits of an outcome word say."""

    kind: OutcomeKind
    long: bool
    permit: int | None
    """The low six bits of the permit under which the call ran; None = no trial."""


class _Codes(dict[int, "Code | None"]):
    """Every code word, read once when it is first met; None = marker, empty or hostile."""

    def __missing__(self, code: int) -> Code | None:
        """Read a code word, twelve bits."""
        kind, trial, permit = code & 15, code & 32, code >> 6
        known = kind in _KINDS and bool(trial or not permit)
        found = Code(OutcomeKind(kind), bool(code & 16), permit if trial else None) if known else None
        self[code] = found
        return found


_KINDS: Final = frozenset(int(kind) for kind in OutcomeKind)
CODES: Final = _Codes(
    {
        FAST_SUCCESS: Code(OutcomeKind.SUCCESS, long=False, permit=None),
        FAST_FAILURE: Code(OutcomeKind.FAILURE, long=False, permit=None),
    }
)


def pack_code(kind: OutcomeKind, long: bool, permit: int | None) -> int:
    """The twelve high bits of a slow word; `permit` is a full permit id or None."""
    trial = 0 if permit is None else 32 | (permit & 63) << 6
    return int(kind) | (16 if long else 0) | trial


def pack_outcome(code: int, generation_code: int, lap: int, row: int, end_s: float, took_s: float) -> int:
    """A slow outcome word; `end_s` is relative to the block's epoch and is clamped into the block.

    The duration's unit follows the `long` bit of `code`; it is clamped to 65,535 units.
    """
    end = min(max(0, int(end_s * END_STEPS_PER_S)), END_MASK)
    per_s = LONG_STEPS_PER_S if code & 16 else DURATION_STEPS_PER_S
    took = min(max(0, int(took_s * per_s)), DURATION_MASK)
    return (
        code << CODE_SHIFT
        | generation_code << GENERATION_SHIFT
        | (lap & LAP_MASK) << LAP_SHIFT
        | row << ROW_SHIFT
        | end << END_SHIFT
        | took
    )


def pack_time(lap: int, epoch: int) -> int:
    """A block's first word."""
    return CODE_TIME << CODE_SHIFT | (lap & LAP_MASK) << LAP_SHIFT | epoch & EPOCH_MASK


def pack_void(lap: int) -> int:
    """The word of a slot that was given up."""
    return CODE_VOID << CODE_SHIFT | (lap & LAP_MASK) << LAP_SHIFT


def head(row: int, code: int) -> float:
    """Row and generation code as they stand in a fast word, its exponent included."""
    return FAST_ONE + row * ROW_WEIGHT + code * GENERATION_WEIGHT


def pack_row(state: BreakerState, generation: int, until: float, permits_left: bool) -> int:
    """A board word; `until` in seconds of CLOCK_MONOTONIC, 0.0 = none, rounded up, never early.

    CLOSED ends by no time; one with a ramp is a `pack_ramp`.
    """
    timeless = state == BreakerState.CLOSED or until <= 0.0 or math.isinf(until)
    steps = 0 if timeless else min(math.ceil(until * TIME_STEPS_PER_S), TIME_MASK)
    word = int(state) << 61 | generation % BOARD_GENERATIONS << 40 | steps
    return word | PERMITS_BIT if permits_left else word


def pack_ramp(generation: int, until: float, length_s: float) -> int:
    """The board word of a CLOSED row whose ramp ends at `until` (s; 0.0 = none), rounded up."""
    word = pack_row(BreakerState.CLOSED, generation, 0.0, permits_left=False)
    steps = math.ceil(until * RAMP_STEPS_PER_S)
    if steps <= 0 or length_s <= 0.0:
        return word
    code = bisect.bisect_right(RAMP_LENGTHS, length_s) - 1
    return word | min(steps * (RAMP_MASK + 1), TIME_MASK & ~RAMP_MASK) | code


def unpack_ramp(word: int) -> tuple[float, float]:
    """When the ramp of a CLOSED row's word ends (s; 0.0 = there is none), and at least how long it is, s."""
    return (word & TIME_MASK & ~RAMP_MASK) / TIME_STEPS_PER_S, RAMP_LENGTHS[word & RAMP_MASK]


def unpack_row(word: int) -> tuple[BreakerState, int, float, bool]:
    """State, generation (20 bits), until (s; 0.0 = none) and permits left; word 0 is CLOSED, generation 0.

    CLOSED does not end by time: see `unpack_ramp`.
    """
    state = word >> 61 & 7
    if not 1 <= state <= 6:
        return BreakerState.CLOSED, 0, 0.0, False
    until = 0.0 if state == BreakerState.CLOSED else (word & TIME_MASK) / TIME_STEPS_PER_S
    return BreakerState(state), word >> 40 & BOARD_GENERATION_MASK, until, bool(word & PERMITS_BIT)
