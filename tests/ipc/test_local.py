"""The machine of a process on its own: it starts where the board stood, and judges what is in the ring."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from ipc import layout as at
from ipc.breaker import Observation
from ipc.local import LOCAL_MARK, PARTY, LocalMachine
from ipc.ring import NO_EPOCH, Part
from ipc.vocabulary import FOREVER, BreakerSettings, BreakerState, OutcomeKind, Verb

NOW = 1_000.0
SETTINGS = BreakerSettings(failure_threshold=3, recovery_timeout=10.0, permitted_trials=3)
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def machine(word: int = 0, chance: float = 0.0, settings: BreakerSettings = SETTINGS) -> LocalMachine:
    """A machine with one breaker in row 0, taken over from that board word."""
    made = LocalMachine(lambda: chance)
    made.add(0, "database", settings, word, NOW)
    return made


def shown(made: LocalMachine) -> tuple[BreakerState, float]:
    """What the board says of row 0: state and until."""
    state, _, until, _ = at.unpack_row(made.board[0])
    return state, until


def part(*words: int, epoch: int = 1_000) -> Part:
    """Words as a reader gives them, from the middle of a block."""
    return Part(1, epoch, list(words))


def word(kind: OutcomeKind, end: float = 0.0, code: int = 1, row: int = 0, permit: int | None = None) -> int:
    """A slow word of a block whose epoch is 1,000."""
    return at.pack_outcome(at.pack_code(kind, False, permit), code, 0, row, end, 0.001)


@pytest.mark.parametrize(
    ("state", "until", "chance", "expected"),
    [
        (CLOSED, 0.0, 0.5, (CLOSED, 0.0)),
        (OPEN, NOW + 5, 0.0, (OPEN, NOW + 5)),
        (OPEN, NOW + 5, 0.5, (OPEN, NOW + 5.5)),
        (OPEN, NOW - 5, 0.5, (OPEN, NOW + 0.5)),
        (HALF_OPEN, 0.0, 0.5, (OPEN, NOW + 0.5)),
        (BreakerState.FORCED_OPEN, NOW + 60, 0.5, (BreakerState.FORCED_OPEN, NOW + 60)),
        (BreakerState.FORCED_OPEN, 0.0, 0.5, (BreakerState.FORCED_OPEN, 0.0)),
        (BreakerState.DISABLED, 0.0, 0.5, (BreakerState.DISABLED, 0.0)),
        (BreakerState.METRICS_ONLY, 0.0, 0.5, (BreakerState.METRICS_ONLY, 0.0)),
    ],
)
def test_starts_where_the_board_stood(
    state: BreakerState, until: float, chance: float, expected: tuple[BreakerState, float]
) -> None:
    """OPEN stays until its time, HALF_OPEN tries again, manual states stay; jitter spreads the trials."""
    made = machine(at.pack_row(state, 7, until, permits_left=False), chance)
    assert shown(made) == expected
    assert not made.take_changes()


def test_never_published_is_closed() -> None:
    """A row that was never published starts CLOSED; its word is marked, so that no supervisor's equals it."""
    made = machine()
    assert shown(made) == (CLOSED, 0.0)
    assert made.board[0] & LOCAL_MARK
    assert made.board[0] != at.pack_row(CLOSED, 0, 0.0, permits_left=False)


def test_a_ramp_that_was_begun_elsewhere_goes_on() -> None:
    """To its end, as long as it was; the word stays the same, and a change of state ends it."""
    made = machine(at.pack_ramp(7, NOW + 5, 8.0))
    assert shown(made) == (CLOSED, 0.0)
    assert at.unpack_ramp(made.board[0]) == (NOW + 5, 8.0)
    made.advance(NOW + 20)
    assert at.unpack_ramp(made.board[0]) == (NOW + 5, 8.0)
    made.command(0, Verb.RESET, FOREVER, "why", NOW + 20)
    assert at.unpack_ramp(made.board[0]) == (0.0, 0.0)


def test_judges_what_was_never_judged() -> None:
    """Failures that a dead supervisor never judged count at once: by its generation, or marked local."""
    made = machine(at.pack_row(CLOSED, 7, 0.0, permits_left=False))
    made.take([part(word(OutcomeKind.FAILURE, code=8), word(OutcomeKind.FAILURE, code=0))], NOW)
    assert shown(made)[0] is CLOSED
    assert made.failure_count(0) == 2
    made.take([part(word(OutcomeKind.FAILURE, code=5))], NOW)  # of an older generation
    assert made.failure_count(0) == 2
    made.take([part(word(OutcomeKind.CANCELLED_LATE, code=0))], NOW)
    assert shown(made) == (OPEN, NOW + 10)
    [change] = made.take_changes()
    assert (change.name, change.transition.old, change.transition.new) == ("database", CLOSED, OPEN)


def test_order_and_other_rows() -> None:
    """A success between failures ends the run; rows that nobody declared and counters are stepped over."""
    made = machine()
    failure, success = word(OutcomeKind.FAILURE), word(OutcomeKind.SUCCESS)
    others = word(OutcomeKind.FAILURE, row=5), word(OutcomeKind.COUNT), at.pack_void(0)
    made.take([part(failure, failure, success, failure, failure, *others)], NOW)
    assert made.failure_count(0) == 2
    made.take([part(failure, epoch=NO_EPOCH)], NOW)
    assert shown(made)[0] is OPEN


@pytest.mark.parametrize("count", [1, 63, 64, 65, 200])
def test_quick_runs_count_every_one(count: int) -> None:
    """Runs of quick successes are judged as one step, and every one of them counts."""
    quick = at.FAST_SUCCESS << at.CODE_SHIFT | 1 << at.GENERATION_SHIFT
    later = quick | 300 << at.END_SHIFT
    made = machine()
    made.take([part(*[quick] * count, word(OutcomeKind.FAILURE, 0.5), *[later] * count)], NOW + 1)
    totals = made._breakers[0].totals
    assert (totals.calls, totals.failures) == (2 * count + 1, 1)


def test_one_trial_closes_after_another() -> None:
    """One permit at a time, whatever the settings say for a host; an outcome with it frees it."""
    made = machine(at.pack_row(OPEN, 7, NOW, permits_left=False))
    assert made.next_time() == NOW
    made.advance(NOW)
    assert shown(made)[0] is HALF_OPEN
    for ask in range(1, 4):
        grant = made.ask(0, ask, NOW)
        assert grant is not None
        assert made.ask(0, 10 + ask, NOW) is None
        seen = Observation(PARTY, OutcomeKind.SUCCESS, 0, grant.permit & 63, NOW, 1)
        made.observe(0, seen, NOW)
    assert shown(made)[0] is CLOSED


def test_what_is_open_is_told_for_the_return() -> None:
    """open_until names the rows that are OPEN or forced open here; what others forced they know."""
    made = machine(at.pack_row(OPEN, 7, NOW + 5, permits_left=False))
    assert made.open_until() == {0: NOW + 5}
    made.command(0, Verb.FORCE_OPEN, FOREVER, "why", NOW)
    assert made.open_until() == {0: FOREVER}
    assert machine(at.pack_row(BreakerState.FORCED_OPEN, 7, NOW + 5, permits_left=False)).open_until() == {}
    assert LocalMachine(lambda: 0.0).next_time() == FOREVER


def test_an_outcome_costs_the_same_beside_many_breakers() -> None:
    """Who is due is not looked up anew in all of them for each call, and nobody's time is missed."""
    machine = LocalMachine(lambda: 0.0)
    settings = BreakerSettings(failure_threshold=5, recovery_timeout=10.0, recovery_jitter=0.0)
    for row in range(500):
        machine.add(row, f"b{row}", settings, 0, 100.0)
    calls: Counter[str] = Counter()
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: calls.update([frame.f_code.co_name] if event == "call" else []))
    for number in range(20):
        now = 101.0 + number * 0.01
        machine.observe(7, Observation(PARTY, OutcomeKind.FAILURE, 0, -1, now, 1), now)
        machine.advance(now)
        machine.next_time()
    sys.setprofile(before)
    assert calls["observe"] >= 20
    assert sum(calls.values()) < 10_000
    assert machine.open_until() == {7: machine.next_time()}
    machine.advance(machine.next_time() + 0.01)
    assert not machine.open_until()
