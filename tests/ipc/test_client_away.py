"""The supervisor is away: judged here, counted there, obeyed again when it is back."""

from __future__ import annotations

import time

from ipc import CircuitBreaker, CircuitOpenError, OutcomeKind
from ipc import layout as at
from ipc.client import Client
from ipc.vocabulary import BreakerState
from tests.ipc.calls import call, fail
from tests.ipc.fake_supervisor import FakeSupervisor
from tests.ipc.waiting import away, eventually


def test_stale_heartbeat_means_local(client: Client, supervisor: FakeSupervisor) -> None:
    """The heartbeat stands still: failures are judged here, counted there as local; until it beats again."""
    breaker = CircuitBreaker("database", failure_threshold=3, recovery_timeout=0.3)
    call(breaker)
    worker = supervisor.worker()
    worker.publish(0, BreakerState.CLOSED, 5)
    call(breaker)
    fail(breaker, 2)  # never judged: the supervisor dies now
    away(client, supervisor)
    fail(breaker, 1)
    assert breaker.state.value is BreakerState.OPEN
    assert isinstance(call(breaker), CircuitOpenError)
    assert not client.supervised
    supervisor.beat_again()
    worker.publish(0, BreakerState.CLOSED, 6)
    eventually(lambda: bool(breaker.state.value) and client.supervised)
    assert isinstance(call(breaker), CircuitOpenError)  # a local OPEN is kept until its own time
    eventually(lambda: call(breaker) == 1)
    worker.drain()
    assert worker.codes[0, 0] >= 1  # the failure that was judged here is marked so
    assert worker.counts[0, OutcomeKind.FAILURE] == 3
    assert not worker.invalid


def test_local_mode_starts_from_the_board(client: Client, supervisor: FakeSupervisor) -> None:
    """What the board last said holds on: OPEN until its time, then one trial at a time closes it."""
    breaker = CircuitBreaker("database", recovery_jitter=0.0, recovery_timeout=0.05)
    call(breaker)
    worker = supervisor.worker()
    worker.publish(0, BreakerState.OPEN, 5, time.monotonic() + 0.2)
    away(client, supervisor)
    assert isinstance(call(breaker), CircuitOpenError)
    assert not client.supervised
    eventually(lambda: call(breaker) == 1)
    assert repr(breaker.state).startswith("<State HALF_OPEN")
    assert [call(breaker), call(breaker)] == [1, 1]
    assert breaker.state.value is BreakerState.CLOSED
    worker.drain()
    assert worker.codes == {(0, 1): 1, (0, 0): 3}


def test_full_ring_overflows_and_is_judged_all_the_same(client: Client, supervisor: FakeSupervisor) -> None:
    """Nobody reads: totals go on in the tallies, to the last one, and local judgement goes on too."""
    breaker = CircuitBreaker("database", failure_threshold=3)
    guarded = breaker(lambda: None)
    guarded()
    worker = supervisor.worker()
    away(client, supervisor)
    for _ in range(3_000):
        guarded()
    fail(breaker, 3)
    assert breaker.state.value is BreakerState.OPEN
    assert worker.tally(0, OutcomeKind.SUCCESS) > 1_000
    assert worker.total(0, OutcomeKind.SUCCESS) == 3_001
    assert worker.total(0, OutcomeKind.FAILURE) == 3


def test_flapping_is_damped(client: Client, supervisor: FakeSupervisor) -> None:
    """A second switch to local within a minute lasts at least five seconds."""
    breaker = CircuitBreaker("database")
    call(breaker)
    link = client.link
    for _ in range(2):
        away(client, supervisor)
        assert link.local
        supervisor.beat_again()
        eventually(lambda: link.words[at.W_HEARTBEAT] * 1e-9 > time.monotonic() - 0.5)
        link.look(time.monotonic())
    assert link.local
    assert link._hold_until > time.monotonic() + 4


def test_new_supervisor_is_told_of_the_old_segment(client: Client, supervisor: FakeSupervisor) -> None:
    """A supervisor that does not know us asks for our segment, and gets it with all that is in it."""
    breaker = CircuitBreaker("database")
    for _ in range(10):
        call(breaker)
    forgotten = supervisor.workers.pop(client.nonce.hex())
    forgotten.beat(10.0)
    client.link._attached_at = 0.0

    def known_again() -> bool:
        call(breaker)
        client.link.look(time.monotonic())
        return client.nonce.hex() in supervisor.workers

    eventually(known_again)
    worker = supervisor.worker()
    assert worker.total(0, OutcomeKind.SUCCESS) >= 10
    assert worker.declared() == forgotten.declared()
    eventually(lambda: bool(breaker.state.value) and client.supervised)
