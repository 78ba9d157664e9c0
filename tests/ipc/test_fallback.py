"""A breaker that the supervisor does not take protects as it would without one."""

from __future__ import annotations

import logging
import time

import pytest

from ipc import CircuitBreaker, CircuitOpenError, OutcomeKind
from ipc import layout as at
from ipc.client import Client
from ipc.rows import declaration
from ipc.segment import Segment
from ipc.testing import Unattached
from ipc.vocabulary import BreakerSettings, BreakerState
from tests.ipc.calls import Down, call, fail
from tests.ipc.fake_supervisor import FakeSupervisor, Worker
from tests.ipc.waiting import away, eventually


def refused(supervisor: FakeSupervisor, row: int) -> Worker:
    """The worker, whose row the supervisor does not take."""
    worker = supervisor.worker()
    worker.segment.words[at.W_BOARD + row] = at.ALONE
    return worker


@pytest.mark.usefixtures("client")
def test_a_refused_breaker_opens_tries_and_closes(
    supervisor: FakeSupervisor, caplog: pytest.LogCaptureFixture
) -> None:
    """Also through a function that was decorated before; it is said once; each outcome is told."""
    breaker = CircuitBreaker("tenant-9", failure_threshold=4, recovery_timeout=0.2, successes_to_close=1)
    guarded = breaker(lambda: 1)
    neighbour = CircuitBreaker("database", failure_threshold=4)
    assert guarded() == 1
    call(neighbour)
    with caplog.at_level(logging.WARNING, "ipc"):
        worker = refused(supervisor, 0)
        fail(breaker, 4)
        with pytest.raises(CircuitOpenError):
            guarded()
        assert breaker.state.is_open
        assert breaker.state.failure_count == 4
        refused(supervisor, 0)  # a new daemon says it again
        with pytest.raises(CircuitOpenError):
            guarded()
        assert call(neighbour) == 1
        eventually(lambda: call(breaker) == 1)
    assert breaker.state.value is BreakerState.CLOSED
    assert guarded() == 1
    assert [one.getMessage().count("no room") for one in caplog.records].count(1) == 1
    assert worker.tally(0, OutcomeKind.FAILURE) == 4
    assert worker.tally(0, OutcomeKind.SUCCESS) >= 2


@pytest.mark.usefixtures("client")
def test_orders_for_a_refused_breaker_are_carried_out_here(supervisor: FakeSupervisor) -> None:
    """The supervisor knows no such breaker."""
    breaker = CircuitBreaker("tenant-10")
    call(breaker)
    refused(supervisor, 0)
    call(breaker)
    breaker.force_open(60.0, "migration")
    assert isinstance(call(breaker), CircuitOpenError)
    breaker.enable()
    assert call(breaker) == 1


def test_a_refused_breaker_keeps_its_state_when_the_supervisor_goes_and_comes(
    client: Client, supervisor: FakeSupervisor
) -> None:
    """It is the same local breaker all the time."""
    breaker = CircuitBreaker("tenant-11", failure_threshold=3, recovery_timeout=60.0)
    call(breaker)
    refused(supervisor, 0)
    fail(breaker, 2)
    away(client, supervisor)
    fail(breaker, 1)
    assert isinstance(call(breaker), CircuitOpenError)
    supervisor.beat_again()
    refused(supervisor, 0)
    eventually(lambda: bool(breaker.state.value) and client.supervised)
    assert isinstance(call(breaker), CircuitOpenError)
    breaker.reset()
    assert call(breaker) == 1


def test_an_opening_from_before_the_refusal_holds(client: Client, supervisor: FakeSupervisor) -> None:
    """What was decided alone before attaching goes on, with all that was seen."""
    breaker = CircuitBreaker("tenant-12", failure_threshold=5, recovery_timeout=60.0)
    client.untried = False
    fail(breaker, 3)
    assert client.connect(2.0)
    refused(supervisor, 0)
    fail(breaker, 2)
    assert isinstance(call(breaker), CircuitOpenError)
    assert breaker.state.is_open


def test_declarations_that_do_not_fit_the_segment_are_decided_here(client: Client) -> None:
    """Long names with many settings, more than a segment has room for: the last protects like the first."""
    breakers = [
        CircuitBreaker(
            f"{'very-long-name-of-a-dependency-' * 3}{number}",
            failure_threshold=3,
            recovery_timeout=71.5,
            recovery_timeout_max=900.25,
            trial_timeout=7.125,
            minimum_calls=17,
            slow_call_s=3.375,
        )
        for number in range(700)
    ]
    assert client.connect(5.0)
    for breaker in (breakers[-1], breakers[650]):
        fail(breaker, 3)
        assert isinstance(call(breaker), CircuitOpenError)


def test_what_was_opened_alone_ends_by_a_verb(client: Client, supervisor: FakeSupervisor) -> None:
    """A reset from here, a breaker that the supervisor has moved, one that is disabled; else it holds."""
    names = ("orders", "mails", "search", "maps")
    breakers = [CircuitBreaker(name, failure_threshold=2, recovery_timeout=60.0) for name in names]
    client.untried = False
    for breaker in breakers:
        fail(breaker, 2)
    breakers[3].reset()
    breakers[3].force_open(None, "moving")
    assert client.connect(2.0)
    worker = supervisor.worker()
    for row in range(4):
        worker.publish(row, BreakerState.CLOSED, 1)
    for breaker in breakers:
        assert isinstance(call(breaker), CircuitOpenError)
    breakers[0].reset()
    worker.publish(1, BreakerState.CLOSED, 2)
    worker.publish(2, BreakerState.DISABLED, 1, time.monotonic() + 60.0)
    assert [call(breaker) for breaker in breakers[:3]] == [1, 1, 1]
    assert [breaker.state.is_open for breaker in breakers] == [False, False, False, True]
    worker.publish(3, BreakerState.CLOSED, 2)
    assert call(breakers[3]) == 1


def test_naming_a_breaker_while_its_call_is_in_flight(unattached: Unattached) -> None:
    """The old row stays dead, however that call ends: functions of before obey the new one."""
    breaker = CircuitBreaker(failure_threshold=2, recovery_timeout=60.0)
    guarded = breaker(lambda: 1)
    assert guarded() == 1

    def naming() -> None:
        breaker.name = "named-in-flight"
        raise Down

    with pytest.raises(Down):
        breaker(naming)()
    fail(breaker, 2)
    unattached.clock.move(1.0)
    with pytest.raises(CircuitOpenError):
        guarded()


def test_a_row_is_declared_once_whoever_comes_second(unattached: Unattached) -> None:
    """As two threads do that both found the name unknown."""
    settings = BreakerSettings()
    record = declaration("once", settings)
    rows = {unattached.client.link.add_breaker("once", settings, record) for _ in range(3)}
    assert len(rows) == 1
    assert unattached.client.link.rows == 1


def test_the_word_of_a_refused_row_admits_in_an_older_client() -> None:
    """It is a word of no state, so nothing but a client that knows it does anything else than before."""
    assert at.unpack_row(at.ALONE) == (BreakerState.CLOSED, 0, 0.0, False)
    segment = Segment.private()
    segment.words[at.W_BOARD] = at.ALONE
    assert segment.floats[at.W_BOARD] == segment.floats[at.W_BOARD]  # no NaN: it can be accepted
