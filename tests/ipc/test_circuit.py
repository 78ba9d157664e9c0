"""The table of states, walked whole, and what one circuit remembers of its moves."""

from __future__ import annotations

import json

import pytest

from ipc.circuit import (
    GENERATION_CODES,
    GROWTH_MAX,
    TABLE,
    Circuit,
    Event,
    diagram,
    generation_code,
    open_time_s,
)
from ipc.vocabulary import FOREVER, MANUAL_STATES, BreakerSettings, BreakerState

SETTINGS = BreakerSettings(recovery_timeout=10.0, recovery_timeout_max=45.0, recovery_jitter=0.5)
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED = BreakerState.FORCED_OPEN, BreakerState.DISABLED
METRICS_ONLY = BreakerState.METRICS_ONLY

MOVES = {
    (CLOSED, Event.TRIP): OPEN,
    (OPEN, Event.OPEN_TIME_OVER): HALF_OPEN,
    (HALF_OPEN, Event.TRIALS_PASSED): CLOSED,
    (HALF_OPEN, Event.TRIAL_FAILED): OPEN,
    (FORCED_OPEN, Event.ENABLE): HALF_OPEN,
    (DISABLED, Event.ENABLE): CLOSED,
    (METRICS_ONLY, Event.ENABLE): CLOSED,
}
"""Every move that is not an operator's verb; each verb leads to the same state from everywhere."""
VERBS = {
    Event.FORCE_OPEN: FORCED_OPEN,
    Event.DISABLE: DISABLED,
    Event.METRICS_ONLY: METRICS_ONLY,
    Event.RESET: CLOSED,
}


def walk(*events: Event, now: float = 100.0) -> Circuit:
    """A circuit to which these events happened, all at once."""
    circuit = Circuit(0, now)
    for number, event in enumerate(events, 1):
        circuit.fire(event, number, now, SETTINGS, 0.0)
    return circuit


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", BreakerState)
def test_every_pair_leads_where_it_must(state: BreakerState, event: Event) -> None:
    """The table has every pair, and each leads to the state written down here by hand, else stays."""
    assert TABLE[state, event] is VERBS.get(event, MOVES.get((state, event), state))


def test_the_table_is_total_and_closed() -> None:
    """There are 6 x 9 pairs, no other, and they lead to states only."""
    assert len(TABLE) == 54
    assert set(TABLE.values()) <= set(BreakerState)


def test_every_state_can_be_left_for_closed() -> None:
    """No state is a trap: from each, some events lead to CLOSED."""
    for state in BreakerState:
        reached = {state}
        while (more := reached | {TABLE[one, event] for one in reached for event in Event}) != reached:
            reached = more
        assert reached == set(BreakerState)


def test_outcomes_and_time_never_make_or_end_a_manual_state() -> None:
    """Manual states are entered by verbs and left by verbs or their end."""
    for event in (Event.TRIP, Event.OPEN_TIME_OVER, Event.TRIALS_PASSED, Event.TRIAL_FAILED):
        for state in BreakerState:
            assert (TABLE[state, event] in MANUAL_STATES) == (state in MANUAL_STATES)


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", BreakerState)
def test_a_circuit_follows_the_table(state: BreakerState, event: Event) -> None:
    """Firing an event moves a circuit as the table says, under the generation given."""
    circuit = Circuit(6, 1.0)
    plain = circuit.to_plain()
    circuit = Circuit.from_plain([int(state), *plain[1:]])
    assert circuit.fire(event, 7, 2.0, SETTINGS, 0.0) is state
    assert (circuit.state, circuit.generation, circuit.since) == (TABLE[state, event], 7, 2.0)


def test_the_diagram_shows_every_move() -> None:
    """Each way out of each state has its line, in the words of the table."""
    assert diagram().splitlines()[:11] == [
        "CLOSED",
        "  ├── trip ──> OPEN",
        "  ├── force open ──> FORCED_OPEN",
        "  ├── disable ──> DISABLED",
        "  └── metrics only ──> METRICS_ONLY",
        "OPEN",
        "  ├── reset ──> CLOSED",
        "  ├── open time over ──> HALF_OPEN",
        "  ├── force open ──> FORCED_OPEN",
        "  ├── disable ──> DISABLED",
        "  └── metrics only ──> METRICS_ONLY",
    ]
    moves = sum(TABLE[pair] is not pair[0] for pair in TABLE)
    assert diagram().count(" | ") + diagram().count(" ──> ") == moves


def test_generation_codes_leave_zero_to_local_outcomes() -> None:
    """15 generations in a row have 15 codes, 1 to 15."""
    codes = [generation_code(generation) for generation in range(GENERATION_CODES)]
    assert codes == list(range(1, 16))
    assert generation_code(15) == 1


@pytest.mark.parametrize(("growth", "seconds"), [(0, 10.0), (1, 20.0), (2, 40.0), (3, 45.0), (64, 45.0)])
def test_the_open_time_grows_to_its_maximum(growth: int, seconds: float) -> None:
    """It doubles with each failed recovery up to the maximum; jitter comes on top."""
    assert open_time_s(SETTINGS, growth, 0.0) == seconds
    assert open_time_s(SETTINGS, growth, 0.5) == seconds * 1.25


def test_growth_stops_where_it_cannot_be_felt() -> None:
    """Failed recoveries beyond the maximum need not be taken back one by one."""
    fails = [Event.OPEN_TIME_OVER, Event.TRIAL_FAILED] * 10
    assert walk(Event.TRIP, *fails).growth == 3
    flat = BreakerSettings(recovery_growth=1.0)
    circuit = Circuit(0, 0.0)
    for event in [Event.TRIP, *[Event.OPEN_TIME_OVER, Event.TRIAL_FAILED] * 100]:
        circuit.fire(event, 1, 0.0, flat, 0.0)
    assert circuit.growth == GROWTH_MAX


@pytest.mark.parametrize(("closed_s", "left"), [(0.0, 3), (9.75, 3), (10.0, 2), (29.0, 1), (1000.0, 0)])
def test_growth_decays_while_closed(closed_s: float, left: int) -> None:
    """Each full recovery timeout spent CLOSED takes one step back; a part of one takes nothing."""
    fails = [Event.OPEN_TIME_OVER, Event.TRIAL_FAILED] * 3
    circuit = walk(Event.TRIP, *fails, Event.OPEN_TIME_OVER, Event.TRIALS_PASSED)
    assert circuit.growth == 3
    circuit.fire(Event.TRIP, 20, 100.0 + closed_s, SETTINGS, 0.0)
    assert circuit.growth == left
    assert circuit.until == 100.0 + closed_s + open_time_s(SETTINGS, left, 0.0)


def test_growth_does_not_decay_while_open() -> None:
    """Only time spent CLOSED counts."""
    circuit = walk(Event.TRIP, Event.OPEN_TIME_OVER, Event.TRIAL_FAILED)
    circuit.settle_growth(10.0, 500.0)
    circuit.fire(Event.OPEN_TIME_OVER, 9, 500.0, SETTINGS, 0.0)
    circuit.fire(Event.TRIALS_PASSED, 10, 500.0, SETTINGS, 0.0)
    circuit.fire(Event.TRIP, 11, 509.0, SETTINGS, 0.0)
    assert circuit.growth == 1


def test_a_reset_takes_all_growth_back() -> None:
    """And the breaker opens for its first open time again."""
    circuit = walk(Event.TRIP, Event.OPEN_TIME_OVER, Event.TRIAL_FAILED, Event.RESET, Event.TRIP)
    assert (circuit.growth, circuit.until) == (0, 110.0)


def test_only_open_ends_by_itself() -> None:
    """Other states have no end until one is given to them."""
    circuit = walk(Event.DISABLE)
    assert circuit.until == FOREVER
    circuit.extend(150.0)
    assert circuit.until == 150.0
    circuit.fire(Event.ENABLE, 2, 150.0, SETTINGS, 0.0)
    assert circuit.until == FOREVER


def test_trials_belong_to_one_half_open_period() -> None:
    """A new period begins with nobody heard; who passed is remembered while the circuit is closed."""
    circuit = walk(Event.TRIP, Event.OPEN_TIME_OVER)
    circuit.granted("a", 101.0)
    assert (circuit.passed_trial("a"), circuit.passed_trial("b"), circuit.passed_trial("b")) == (1, 2, 3)
    assert circuit.passed_by_others("b") == 1
    circuit.fire(Event.TRIALS_PASSED, 3, 102.0, SETTINGS, 0.0)
    assert circuit.passed == {"a": 1, "b": 2}
    circuit.fire(Event.TRIP, 4, 103.0, SETTINGS, 0.0)
    circuit.fire(Event.OPEN_TIME_OVER, 5, 113.0, SETTINGS, 0.0)
    assert (circuit.passed, circuit.had, circuit.last_grant) == ({}, set(), 113.0)


def test_a_circuit_is_kept_whole() -> None:
    """What was kept as JSON comes back equal, also where there is no end."""
    circuit = walk(Event.TRIP, Event.OPEN_TIME_OVER)
    circuit.granted("a", 101.0)
    circuit.passed_trial("b")
    kept = json.loads(json.dumps(circuit.to_plain(), allow_nan=False))
    again = Circuit.from_plain(kept)
    assert all(getattr(again, name) == getattr(circuit, name) for name in Circuit.__slots__)


def test_a_circuit_shifts_with_the_clock() -> None:
    """Every time moves; what has no end still has none."""
    circuit = walk(Event.TRIP)
    circuit.shift(-60.0)
    times = circuit.since, circuit.until, circuit.growth_from, circuit.last_grant, circuit.began
    assert times == (40.0, 50.0, 40.0, 40.0, 40.0)
    closed = Circuit(0, 100.0)
    closed.shift(-60.0)
    assert closed.until == FOREVER


def held(until: float) -> Circuit:
    """OPEN from 100.0 s on, for 10 s, and a probe is awaited until then."""
    circuit = walk(Event.TRIP)
    circuit.gate(until, vouched=False, now=100.0)
    return circuit


def test_a_probe_that_is_awaited_prolongs_the_open_time() -> None:
    """Never shortens it; once it vouches, what it said of the next word is no matter."""
    assert (held(105.0).until, held(150.0).until) == (110.0, 150.0)
    circuit = held(150.0)
    circuit.growth = 1
    circuit.gate(170.0, vouched=True, now=105.0)
    assert (circuit.until, circuit.held(105.0)) == (110.0, False)
    circuit.gate(180.0, vouched=False, now=107.0)
    assert (circuit.until, circuit.held(107.0), circuit.held(180.0)) == (180.0, True, False)


def test_what_is_held_is_due_when_it_is_let_go() -> None:
    """Whoever was failing lets others go first from then on, not from the end of the open time."""
    circuit = held(150.0)
    circuit.fire(Event.OPEN_TIME_OVER, 2, 155.0, SETTINGS, 0.0)
    assert (circuit.began, circuit.last_grant) == (150.0, 150.0)
    vouched = held(150.0)
    vouched.gate(170.0, vouched=True, now=120.0)
    vouched.fire(Event.OPEN_TIME_OVER, 2, 120.0, SETTINGS, 0.0)
    assert vouched.began == 120.0


def test_what_is_awaited_and_vouched_shifts_with_the_clock() -> None:
    """So does a ramp; what there is none of stays so."""
    circuit = held(150.0)
    circuit.growth = 1
    circuit.gate(150.0, vouched=True, now=120.0)
    circuit.climb(140.0, 30.0)
    circuit.shift(-60.0)
    assert (circuit.awaited, circuit.vouched, circuit.ramp_until, circuit.ramp_s) == (90.0, 60.0, 80.0, 30.0)
    plain = walk(Event.TRIP)
    plain.shift(-60.0)
    assert (plain.awaited, plain.vouched, plain.ramp_until) == (-FOREVER, FOREVER, 0.0)
