"""The guarded call by itself: admitted, refused, recovered, commanded, and passed through unchanged."""

from __future__ import annotations

import contextvars
import functools
import pickle
import traceback
from dataclasses import fields
from typing import Any

import pytest

import ipc
from ipc import CircuitBreaker, CircuitOpenError
from ipc.guard import Settings
from ipc.process import default_client
from ipc.testing import Unattached
from ipc.vocabulary import BreakerSettings, BreakerState
from tests.ipc.calls import Down, call, fail

pytestmark = pytest.mark.usefixtures("unattached")
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def test_settings_are_those_of_the_breaker() -> None:
    """Every setting of BreakerSettings is a keyword of CircuitBreaker, with the same meaning."""
    assert set(Settings.__annotations__) == {field.name for field in fields(BreakerSettings)}
    made = CircuitBreaker("database", failure_threshold=7, window=ipc.CountWindow(50))
    assert made.settings == BreakerSettings(failure_threshold=7, window=ipc.CountWindow(50))
    with pytest.raises(ipc.SettingsError, match="failure_threshold: must be >= 1, got -3"):
        CircuitBreaker("database", failure_threshold=-3)
    with pytest.raises(ipc.SettingsError, match="name"):
        CircuitBreaker("no spaces")
    with pytest.raises(ipc.SettingsError, match="expected_exception"):
        CircuitBreaker("database", expected_exception=KeyboardInterrupt)  # type: ignore[arg-type] # refused
    with pytest.raises(TypeError):
        CircuitBreaker("database", no_such_key=1)  # type: ignore[call-arg] # refused


def test_opens_recovers_and_closes(unattached: Unattached) -> None:
    """Five failures open it, the open time leads to trials, three good ones close it."""
    breaker = CircuitBreaker("database")
    fail(breaker, 4)
    assert (breaker.state.value, breaker.state.failure_count) == (CLOSED, 4)
    assert call(breaker) == 1
    fail(breaker, 5)
    assert breaker.state.value is OPEN
    assert breaker.state.is_open
    refusal = call(breaker)
    assert isinstance(refusal, CircuitOpenError)
    assert (refusal.breaker, refusal.state) == ("database", OPEN)
    assert refusal.retry_after_s == pytest.approx(30.0, abs=0.01)
    assert "Circuit breaker is OPEN" in str(refusal)
    unattached.clock.move(29.9)
    assert isinstance(call(breaker), CircuitOpenError)
    unattached.clock.move(0.2)
    assert breaker.state.value is HALF_OPEN
    assert [call(breaker) for _ in range(3)] == [1, 1, 1]
    assert breaker.state.value is CLOSED
    fail(breaker, 5)
    assert breaker.state.value is OPEN


def test_failed_trial_opens_for_longer(unattached: Unattached) -> None:
    """A trial that fails opens again, for twice the time."""
    breaker = CircuitBreaker("database", failure_threshold=1, recovery_timeout=10)
    fail(breaker, 1)
    unattached.clock.move(10.1)
    fail(breaker, 1)
    refusal = call(breaker)
    assert isinstance(refusal, CircuitOpenError)
    assert refusal.retry_after_s == pytest.approx(20.0, abs=0.01)


def test_one_trial_at_a_time(unattached: Unattached) -> None:
    """On its own a process lets one trial in; a second call meanwhile is refused."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    fail(breaker, 1)
    unattached.clock.move(31)
    with breaker:
        refusal = contextvars.Context().run(call, breaker)
        assert isinstance(refusal, CircuitOpenError)
        assert refusal.state is HALF_OPEN
        assert 0.0 < refusal.retry_after_s < 1.0, "a trial is under way: now would be false"
    assert call(breaker) == 1


def test_hung_trial_fails_at_its_deadline(unattached: Unattached) -> None:
    """A trial that outlasts trial_timeout and a second counts as failed; its result moves nothing."""
    breaker = CircuitBreaker("database", failure_threshold=1, trial_timeout=5.0)
    fail(breaker, 1)
    unattached.clock.move(31)
    with breaker:
        unattached.clock.move(6.1)
        assert breaker.state.value is OPEN
    assert breaker.state.value is OPEN


def test_failure_rate_opens(unattached: Unattached) -> None:
    """Half of twenty calls failing, never five in a row, opens by the rate."""
    breaker = CircuitBreaker("database")
    for number in range(19):
        call(breaker, Down() if number % 2 else None)
        unattached.clock.move(0.1)
    assert not breaker.state.is_open
    call(breaker, Down())
    assert breaker.state.is_open


def test_exception_passes_unchanged() -> None:
    """The exception of the guarded call comes out itself, with its cause and its own traceback."""
    breaker = CircuitBreaker("database")
    cause, raised = KeyError("cause"), Down("down")

    @breaker
    def query() -> None:
        raise raised from cause

    with pytest.raises(Down) as caught:
        query()
    assert caught.value is raised
    assert raised.__cause__ is cause
    assert raised.__context__ is None or raised.__context__ is cause
    names = [frame.name for frame in traceback.extract_tb(raised.__traceback__)]
    assert names[-2:] == ["guarded", "query"]


def test_wrapping_keeps_the_function() -> None:
    """Name, docstring and the function itself stay reachable; arguments and results pass through."""
    breaker = CircuitBreaker("database")

    @breaker
    def query(a: int, *more: int, b: int = 2, **rest: int) -> tuple[Any, ...]:
        """Ask."""
        return a, more, b, rest

    assert (query.__name__, query.__doc__) == ("query", "Ask.")
    assert query(1, 5, b=3, c=4) == (1, (5,), 3, {"c": 4})
    assert breaker.call(query, 1, b=2) == (1, (), 2, {})
    assert breaker.call(functools.partial(lambda a: a, 7)) == 7
    assert breaker.call(len, "four") == 4


def test_methods_can_be_guarded() -> None:
    """Methods, static methods and class methods are guarded where the decorator stands inside."""
    breaker = CircuitBreaker("database")

    class Store:
        @breaker
        def plain(self, a: int) -> int:
            return a

        @staticmethod
        @breaker
        def static(a: int) -> int:
            return a

        @classmethod
        @breaker
        def made(cls, a: int) -> int:
            return a

    assert (Store().plain(1), Store.static(2), Store.made(3)) == (1, 2, 3)


def test_generators_are_refused() -> None:
    """Sync and async generators are refused, with a text that shows the with form; also inside a partial."""
    breaker = CircuitBreaker("database")

    def rows() -> Any:
        yield 1

    async def rows_async() -> Any:
        yield 1

    class Called:
        def __call__(self) -> Any:
            yield 1

    for function in (rows, rows_async, functools.partial(rows), Called()):
        with pytest.raises(ipc.UnguardableError, match="with breaker:"):
            breaker(function)
    with pytest.raises(ipc.UnguardableError):
        breaker.call(rows)


def test_two_objects_with_one_name_share_one_breaker() -> None:
    """What one object sees fail is refused by the other; each keeps its own idea of a failure."""
    one = CircuitBreaker("database", failure_threshold=2)
    two = CircuitBreaker("database", failure_threshold=2, expected_exception=ZeroDivisionError)
    fail(one, 1)
    call(two, Down())
    assert not two.state.is_open
    call(two, ZeroDivisionError())
    assert isinstance(call(one), CircuitOpenError)
    assert isinstance(call(two), CircuitOpenError)


def test_differing_declarations_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The first declaration of a name holds in a process; another one is warned about, once."""
    first = CircuitBreaker("database", failure_threshold=2)
    for _ in range(2):
        other = CircuitBreaker("database", failure_threshold=50)
    fail(other, 2)
    assert other.state.is_open
    assert first.state.is_open
    assert len(caplog.records) == 2  # the warning, and the opening


def test_guides_troubleshooting() -> None:
    """Setting is_open and failure_count, as the guide does, is a reset; other values are refused."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    fail(breaker, 1)
    if breaker.state.is_open:
        breaker.state.is_open = False
        breaker.state.failure_count = 0
    assert breaker.state.value is CLOSED
    assert call(breaker) == 1
    breaker.state.is_open = True
    assert breaker.state.value is BreakerState.FORCED_OPEN
    with pytest.raises(ValueError, match="reset"):
        breaker.state.failure_count = 3


def test_manual_states(unattached: Unattached) -> None:
    """Each verb does what the table says, and ends by itself."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    breaker.force_open(for_s=60, reason="maintenance")
    refusal = call(breaker)
    assert isinstance(refusal, CircuitOpenError)
    assert refusal.state is BreakerState.FORCED_OPEN
    assert refusal.retry_after_s == pytest.approx(60, abs=0.01)
    unattached.clock.move(60.1)
    assert breaker.state.value is HALF_OPEN
    breaker.disable(for_s=None)
    fail(breaker, 5)
    unattached.clock.move(1e6)
    assert breaker.state.value is BreakerState.DISABLED
    breaker.metrics_only()
    fail(breaker, 5)
    assert repr(breaker.state).startswith("<State METRICS_ONLY")
    breaker.enable()
    assert breaker.state.value is CLOSED
    fail(breaker, 1)
    breaker.reset()
    assert (breaker.state.value, breaker.state.retry_after_s) == (CLOSED, 0.0)


@pytest.mark.parametrize("for_s", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.usefixtures("unattached")
def test_a_manual_state_lasts_some_time_or_for_ever(for_s: float) -> None:
    """A time that cannot be meant is refused before anything happens, attached or not."""
    breaker = CircuitBreaker("database")
    with pytest.raises(ipc.SettingsError, match="for_s: must be seconds above 0"):
        breaker.force_open(for_s=for_s)
    assert breaker.state.value is CLOSED


def test_reading_is_cheap_talk() -> None:
    """The view names state and generation, and both reprs can be read."""
    breaker = CircuitBreaker("database", failure_threshold=1)
    generation = breaker.state.generation
    fail(breaker, 1)
    assert breaker.state.generation == generation + 1
    assert repr(breaker.state) == f"<State OPEN, generation {generation + 1}>"
    assert repr(breaker) == "<CircuitBreaker database: OPEN>"


def test_changes_are_told(unattached: Unattached, caplog: pytest.LogCaptureFixture) -> None:
    """on_state_change runs in the calling thread, once, after the outcome; what it raises is logged."""
    told: list[tuple[str, BreakerState, BreakerState, bool]] = []

    def tell(breaker: CircuitBreaker, old: BreakerState, new: BreakerState) -> None:
        told.append((breaker.name, old, new, default_client().link._gate.held))
        raise RuntimeError("from the callback")

    breaker = CircuitBreaker("database", failure_threshold=1, successes_to_close=1, on_state_change=tell)
    assert call(breaker) == 1
    raised = Down()
    assert call(breaker, raised) is raised
    assert told == [("database", CLOSED, OPEN, False)]
    call(breaker)
    unattached.clock.move(31)
    assert call(breaker) == 1
    assert told[1:] == [("database", OPEN, HALF_OPEN, False), ("database", HALF_OPEN, CLOSED, False)]
    assert "from the callback" in caplog.text


def test_pickles_as_its_declaration() -> None:
    """A breaker that was pickled is that process's breaker of this name; refusals pickle with their facts."""
    breaker = CircuitBreaker("database", failure_threshold=1, expected_exception=ConnectionError)
    again = pickle.loads(pickle.dumps(breaker))
    assert (again.name, again.settings, again.verdict) == (breaker.name, breaker.settings, breaker.verdict)
    fail(again, 1)
    refusal = call(breaker)
    assert isinstance(refusal, CircuitOpenError)
    copied = pickle.loads(pickle.dumps(refusal))
    assert (copied.breaker, copied.state, copied.retry_after_s) == ("database", OPEN, refusal.retry_after_s)
    assert str(copied) == str(refusal)
    nameless = pickle.loads(pickle.dumps(CircuitBreaker(failure_threshold=3)))
    assert (nameless.name, nameless.settings.failure_threshold) == ("", 3)


def test_more_breakers_than_rows(caplog: pytest.LogCaptureFixture) -> None:
    """Beyond 1,024 rows a breaker stays in its process, works all the same, and is warned about once."""
    made = [CircuitBreaker(f"b{number}", failure_threshold=1) for number in range(1027)]
    for breaker in made[-2:]:
        assert call(breaker) == 1
        fail(breaker, 1)
        assert isinstance(call(breaker), CircuitOpenError)
    assert [record.message for record in caplog.records if "no row" in record.message] == [
        "no row is left for breaker b1024: it stays in this process"
    ]
    assert not made[0].state.is_open
