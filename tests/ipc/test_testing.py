"""The fixture for the tests of other programs: each test finds first states and a clock that moves."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from ipc import CircuitBreaker, CircuitOpenError
from ipc.testing import Unattached
from tests.ipc.calls import fail

made: list[tuple[CircuitBreaker, Callable[[], int]]] = []


def lazily() -> tuple[CircuitBreaker, Callable[[], int]]:
    """As an application's factory does: made when it is first asked for, and kept."""
    if not made:
        breaker = CircuitBreaker("made-in-a-test", failure_threshold=2, recovery_timeout=30.0)
        made.append((breaker, breaker(lambda: 1)))
    return made[0]


@pytest.fixture
def after() -> None:
    """Set up before `unattached`: outside of it the breaker lives on, closed, on the real clock."""
    if made:
        breaker, guarded = made[0]
        assert not breaker.state.is_open
        assert breaker.clock is time.monotonic
        assert [guarded() for _ in range(3)] == [1, 1, 1]
        fail(breaker, 2)
        with pytest.raises(CircuitOpenError):
            guarded()
        breaker.reset()
        late = breaker(lambda: 2)
        assert [late(), late()] == [2, 2]
        assert breaker._closed == breaker._link.states[breaker._row]  # so the next call goes the quick way


@pytest.mark.usefixtures("after")
@pytest.mark.parametrize("turn", range(3))
def test_a_breaker_of_an_earlier_test_is_as_new(unattached: Unattached, turn: int) -> None:
    """It was left OPEN by the turn before; it opens, waits on the clock of this test, and recovers."""
    breaker, guarded = lazily()
    assert guarded() == 1, turn
    fail(breaker, 2)
    with pytest.raises(CircuitOpenError):
        guarded()
    unattached.clock.move(60.0)
    assert guarded() == 1
    fail(breaker, 5)
    assert breaker.state.is_open
