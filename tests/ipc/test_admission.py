"""An attached process obeys its board and asks for permits."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter

from ipc import CircuitBreaker, CircuitOpenError, OutcomeKind
from ipc import layout as at
from ipc.admission import BUSY_RETRY_S
from ipc.client import Client
from ipc.process import set_default
from ipc.vocabulary import BreakerState, Tally
from tests.ipc.calls import Down, call
from tests.ipc.fake_supervisor import FakeSupervisor
from tests.ipc.waiting import away, eventually


def test_the_board_is_obeyed(client: Client, supervisor: FakeSupervisor) -> None:
    """OPEN refuses at once, HALF_OPEN without permits too, DISABLED and METRICS_ONLY admit."""
    breaker = CircuitBreaker("database")
    assert call(breaker) == 1
    worker = supervisor.worker()
    until = time.monotonic() + 30
    for state, admitted in (
        (BreakerState.OPEN, False),
        (BreakerState.METRICS_ONLY, True),
        (BreakerState.FORCED_OPEN, False),
        (BreakerState.HALF_OPEN, False),
        (BreakerState.DISABLED, True),
        (BreakerState.CLOSED, True),
    ):
        worker.publish(0, state, 3, until if not admitted else 0.0)
        result = call(breaker)
        assert breaker.state.value is state
        assert (result == 1) is admitted
        if not admitted:
            assert isinstance(result, CircuitOpenError)
            assert result.state is state
    assert worker.tally(0, Tally.REJECTED) == 3
    assert worker.total(0, OutcomeKind.SUCCESS) == 4
    assert worker.codes[0, 3 + 1] == 3


def test_outcomes_carry_their_generation(client: Client, supervisor: FakeSupervisor) -> None:
    """A new generation on the board is adopted by the next call; the one before it keeps the old."""
    breaker = CircuitBreaker("database")
    call(breaker)
    worker = supervisor.worker()
    worker.publish(0, BreakerState.CLOSED, 16)
    with breaker:
        worker.publish(0, BreakerState.CLOSED, 17)
    call(breaker)
    worker.drain()
    assert worker.codes == {(0, 1): 1, (0, 16 % 15 + 1): 1, (0, 17 % 15 + 1): 1}


def test_a_change_is_told_by_one_thread(client: Client, supervisor: FakeSupervisor) -> None:
    """Threads that see it together tell it once, and none with an older word tells it back."""
    told: Counter[tuple[BreakerState, BreakerState]] = Counter()
    states = (BreakerState.CLOSED, BreakerState.DISABLED, BreakerState.METRICS_ONLY)
    breaker = CircuitBreaker("database", on_state_change=lambda _, *change: told.update([change]))
    call(breaker)
    worker, done = supervisor.worker(), threading.Event()

    def work() -> None:
        while not done.is_set():
            call(breaker)

    threads = [threading.Thread(target=work) for _ in range(6)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for number in range(1, 400):
            state = states[number % 3]
            worker.publish(0, state, number)
            eventually(lambda: breaker._seen is state)  # noqa: B023 (it is called here and now)
            worker.drain()
    finally:
        sys.setswitchinterval(before)
        done.set()
        for thread in threads:
            thread.join()
    steps = [(states[number % 3], states[(number + 1) % 3]) for number in range(399)]
    assert told == Counter(steps)


def test_a_ramp_lets_in_its_share(supervisor: FakeSupervisor) -> None:
    """Of 60 s 15 are left: a chance below three quarters is let in; the others learn how long it lasts."""
    draw = [0.9]
    client = Client(supervisor.path, chance=lambda: draw[0])
    before = set_default(client)
    try:
        breaker = CircuitBreaker("database")
        assert client.connect()
        worker = supervisor.worker()
        call(breaker)
        worker.ramp(0, 4, 15.0, 60.0)
        refusal = call(breaker)
        assert isinstance(refusal, CircuitOpenError)
        assert refusal.state is BreakerState.CLOSED
        assert 14 < refusal.retry_after_s <= 15.07
        assert str(refusal).startswith("Circuit breaker is OPEN: database (CLOSED), retry in 15.")
        for number, (draw[0], admitted) in enumerate(((0.7, True), (0.8, False), (0.0, True)), 5):
            worker.ramp(0, number, 15.0, 60.0)
            assert (call(breaker) == 1) is admitted
        assert worker.tally(0, Tally.RAMPED) == 2
        assert worker.tally(0, Tally.REJECTED) == 0
    finally:
        set_default(before)
        client.close()


def test_after_the_ramp_its_word_is_quick_again(supervisor: FakeSupervisor) -> None:
    """Nobody publishes another word: from its end on this one is accepted, and no call looks at its time."""
    draws: list[float] = []

    def chance() -> float:
        draws.append(0.0)
        return 0.0

    client = Client(supervisor.path, chance=chance)
    before = set_default(client)
    try:
        breaker = CircuitBreaker("database")
        assert client.connect()
        call(breaker)
        worker = supervisor.worker()
        worker.publish(0, BreakerState.CLOSED, 3)
        assert call(breaker) == 1
        assert breaker._closed == breaker._link.states[0]
        worker.ramp(0, 4, 0.4, 0.5)
        draws.clear()
        until = at.unpack_ramp(breaker._link.board[0])[0]
        calls = [call(breaker) for _ in range(50)]
        if time.monotonic() < until:
            assert breaker._closed != breaker._link.states[0]
            assert CircuitOpenError in map(type, calls)
        assert draws == [0.0], "one ramp takes one chance"
        eventually(lambda: time.monotonic() > until)
        assert call(breaker) == 1
        assert breaker._closed == breaker._link.states[0]
        assert [call(breaker) for _ in range(50)] == [1] * 50
        worker.drain()
        assert worker.codes[0, 4 + 1] >= 52, "quick or not, they carry the generation of that word"
    finally:
        set_default(before)
        client.close()


def test_a_ramp_goes_on_when_its_supervisor_is_gone(supervisor: FakeSupervisor) -> None:
    """The process that decides for itself from then on lets in no more than the host did."""
    client = Client(supervisor.path, chance=lambda: 0.95)
    before = set_default(client)
    try:
        breaker = CircuitBreaker("database")
        assert client.connect()
        worker = supervisor.worker()
        call(breaker)
        worker.ramp(0, 4, 55.0, 60.0)
        away(client, supervisor)
        refusal = call(breaker)
        assert not client.supervised
        assert isinstance(refusal, CircuitOpenError)
        assert (refusal.state, worker.tally(0, Tally.RAMPED)) == (BreakerState.CLOSED, 1)
        assert 52 < refusal.retry_after_s <= 55.07
    finally:
        set_default(before)
        client.close()


def test_permit_makes_a_trial(client: Client, supervisor: FakeSupervisor) -> None:
    """A permit is asked for by number; its outcome carries it, whatever it is, and rings."""
    breaker = CircuitBreaker("database", expected_exception=Down)
    call(breaker)
    worker = supervisor.worker()
    worker.publish(0, BreakerState.HALF_OPEN, 7, left=True)
    for number, raises in enumerate((None, Down(), ValueError(), KeyboardInterrupt())):
        supervisor.permit = {"permit": 10 + number, "generation": 7, "lease_s": 11.0}
        worker.drain()
        supervisor.rung()
        call(breaker, raises)
        assert supervisor.rung()
    worker.drain()
    assert worker.permits == [10, 11, 12, 13]
    assert worker.codes[0, 8] == 4
    kinds = (OutcomeKind.FAILURE, OutcomeKind.IGNORED)
    assert [worker.counts[0, kind] for kind in kinds] == [1, 2]
    assert [one["ask"] for one in supervisor.asks] == [0, 1, 2, 3]


def test_no_permit_is_a_refusal(client: Client, supervisor: FakeSupervisor) -> None:
    """The supervisor says no: refused, with the time that it says."""
    breaker = CircuitBreaker("database")
    call(breaker)
    supervisor.worker().publish(0, BreakerState.HALF_OPEN, 7, left=True)
    supervisor.permit = {"permit": None, "generation": 7, "lease_s": 0.0, "retry_after_s": 2.5}
    refusal = call(breaker)
    assert isinstance(refusal, CircuitOpenError)
    assert (refusal.state, refusal.retry_after_s) == (BreakerState.HALF_OPEN, 2.5)


def test_a_permit_whose_lease_is_over_is_none(client: Client, supervisor: FakeSupervisor) -> None:
    """A process that was stopped while it asked must not begin what another one does meanwhile."""
    breaker = CircuitBreaker("database")
    call(breaker)
    worker = supervisor.worker()
    worker.publish(0, BreakerState.HALF_OPEN, 7, left=True)
    supervisor.permit = {"permit": 3, "generation": 7, "lease_s": 1e-6}
    refusal = call(breaker)
    assert isinstance(refusal, CircuitOpenError)
    assert (refusal.state, refusal.retry_after_s) == (BreakerState.HALF_OPEN, BUSY_RETRY_S)
    supervisor.permit = {"permit": 4, "generation": 7, "lease_s": 11.0}
    assert call(breaker) == 1
    worker.drain()
    assert worker.permits == [4]
    assert [one["ask"] for one in supervisor.asks] == [0, 1]


def test_silence_is_a_refusal_and_leaves_no_permit(client: Client, supervisor: FakeSupervisor) -> None:
    """After 50 ms without an answer the call is refused; a late answer cannot be delivered."""
    breaker = CircuitBreaker("database")
    call(breaker)
    worker = supervisor.worker()
    worker.publish(0, BreakerState.HALF_OPEN, 7, left=True)
    supervisor.permit = "silent"
    start = time.monotonic()
    assert isinstance(call(breaker), CircuitOpenError)
    assert 0.045 < time.monotonic() - start < 0.5
    assert worker.tally(0, Tally.PERMIT_TIMEOUT) == 1
    eventually(lambda: supervisor.undelivered == 1)
    supervisor.permit = "close"
    assert isinstance(call(breaker), CircuitOpenError)
    supervisor.permit = {"permit": 3, "generation": 7, "lease_s": 11.0}
    assert call(breaker) == 1
    assert [one["ask"] for one in supervisor.asks] == [0, 0, 0]


def test_one_question_at_a_time(client: Client, supervisor: FakeSupervisor) -> None:
    """While one thread asks for a permit the others are refused at once, not queued."""
    breaker = CircuitBreaker("database")
    call(breaker)
    supervisor.worker().publish(0, BreakerState.HALF_OPEN, 7, left=True)
    supervisor.permit = "silent"
    threads = [threading.Thread(target=call, args=(breaker,)) for _ in range(8)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - start < 0.5
    assert 1 <= len(supervisor.asks) <= 3


def test_first_call_of_a_late_breaker_sees_its_board(client: Client, supervisor: FakeSupervisor) -> None:
    """A breaker that is declared after attaching and is open on the host refuses its very first call."""
    assert client.connect()
    worker = supervisor.worker()

    def publish_when_declared() -> None:
        eventually(lambda: bool(worker.declared()))
        worker.publish(0, BreakerState.OPEN, 3, time.monotonic() + 30)

    thread = threading.Thread(target=publish_when_declared)
    thread.start()
    breaker = CircuitBreaker("database")
    assert isinstance(call(breaker), CircuitOpenError)
    thread.join()
