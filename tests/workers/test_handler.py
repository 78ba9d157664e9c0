"""The handler classifies, counts once, logs, advises by what is alive, and retries."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import pickle
import threading
from datetime import UTC, datetime
from typing import TypeAlias

import pytest

from ipc import BreakerState, CircuitBreaker, CircuitOpenError, SettingsError
from tests.workers.stage import WALL, Failing, Stage, fresh
from workers.handler import MemoryErrorHandler
from workers.kinds import ErrorType, FallbackStrategy
from workers.metrics import OPERATIONS_MAX, ErrorMetric
from workers.retry import RetrySettings

Type: TypeAlias = ErrorType
Strategy: TypeAlias = FallbackStrategy
ADVICE = [
    ("handle_database_error", Exception("connection refused"), Strategy.USE_CACHE),
    ("handle_database_error", Exception("syntax error"), Strategy.RETURN_EMPTY),
    ("handle_database_error", Exception("deadlock detected"), Strategy.RETRY_WITH_BACKOFF),
    ("handle_database_error", TimeoutError(), Strategy.USE_CACHE),
    ("handle_cache_error", ConnectionError("refused"), Strategy.USE_DATABASE),
    ("handle_cache_error", Exception("?"), Strategy.USE_DATABASE),
    ("handle_context_retrieval_error", Exception("?"), Strategy.RETURN_EMPTY),
    ("handle_tool_analytics_error", Exception("?"), Strategy.FAIL_GRACEFULLY),
    ("handle_memory_storage_error", Exception("?"), Strategy.USE_CACHE),
    ("handle_configuration_error", KeyError("x"), Strategy.USE_DEFAULT),
]


@pytest.mark.parametrize(("method", "error", "strategy"), ADVICE)
def test_the_advice_follows_from_the_class(method: str, error: Exception, strategy: Strategy) -> None:
    """While everything is alive."""
    assert getattr(Stage().handler, method)(error, "work") is strategy


def test_the_advice_follows_from_what_is_alive() -> None:
    """A cache whose breaker is open is not advised; nor is the database."""
    handler = Stage().handler
    shut = {name: CircuitBreaker(fresh(name)) for name in ("cache", "database")}
    for name, breaker in shut.items():
        handler.circuit_breakers[name] = breaker
    refused = ConnectionError("connection refused")
    assert handler.handle_database_error(refused, "work") is Strategy.USE_CACHE
    shut["cache"].force_open()
    assert handler.handle_database_error(refused, "work") is Strategy.RETURN_EMPTY
    assert handler.handle_memory_storage_error(Exception("?"), "work") is Strategy.RETRY_WITH_BACKOFF
    assert handler.handle_memory_storage_error(ValueError("?"), "work") is Strategy.RETURN_EMPTY
    assert handler.handle_cache_error(refused, "work") is Strategy.USE_DATABASE
    shut["database"].force_open()
    assert handler.handle_cache_error(refused, "work") is Strategy.RETURN_EMPTY


def test_an_exception_object_is_counted_once() -> None:
    """However many layers see it; by each handler for itself; anew where it has ended its way."""
    one, other, error = Stage().handler, Stage().handler, ConnectionError("refused")
    for handler in (one, one, other):
        handler.handle_database_error(error, "work")
    one.handle_cache_error(pickle.loads(pickle.dumps(error)), "work")
    assert one.get_error_metrics()[Type.DATABASE_CONNECTION].error_count == 1
    assert other.get_error_metrics()[Type.DATABASE_CONNECTION].error_count == 1
    assert one.get_error_metrics()[Type.CACHE_CONNECTION].error_count == 1
    one.forget(error)
    one.handle_database_error(error, "work")
    assert one.get_error_metrics()[Type.DATABASE_CONNECTION].error_count == 2


def test_metrics_say_what_is_known() -> None:
    """Counts, the last error redacted and dated, the rate of the last minute, and operations."""
    stage = Stage()
    for operation in ("load", "load", "store"):
        stage.handler.handle_database_error(ConnectionError("password=secret refused"), operation)
    stage.handler.handle_database_error(CircuitOpenError("database", BreakerState.OPEN, 1.0), "load")
    metrics = stage.handler.get_error_metrics()
    assert list(metrics) == list(ErrorType)
    assert metrics[Type.CACHE_OPERATION] == ErrorMetric()
    assert metrics[Type.DATABASE_CONNECTION] == ErrorMetric(
        error_count=3,
        rejected_count=1,
        last_error_at=datetime.fromtimestamp(WALL, tz=UTC),
        last_error="ConnectionError: password=*** refused",
        rate_per_minute=3.0,
        operations={"load": 2, "store": 1},
        host_count=None,
    )
    stage.now += 61.0
    assert stage.handler.get_error_metrics()[Type.DATABASE_CONNECTION].rate_per_minute == 0.0


def test_a_reset_moves_one_baseline_or_all() -> None:
    """And nothing else."""
    handler = Stage().handler
    for error in (ConnectionError("refused"), Exception("syntax error")):
        handler.handle_database_error(error, "work")
    handler.reset_error_metrics(Type.DATABASE_CONNECTION)
    counts = {kind: one.error_count for kind, one in handler.get_error_metrics().items() if one.error_count}
    assert counts == {Type.DATABASE_QUERY: 1}
    handler.reset_error_metrics()
    assert not any(one.error_count for one in handler.get_error_metrics().values())


def test_operations_are_bounded() -> None:
    """Beyond 256 of a type they are counted as `other`; nothing is lost."""
    handler = Stage().handler
    for number in range(OPERATIONS_MAX + 20):
        handler.handle_database_error(ConnectionError("refused"), f"work {number}")
    metric = handler.get_error_metrics()[Type.DATABASE_CONNECTION]
    assert (metric.error_count, len(metric.operations)) == (OPERATIONS_MAX + 20, OPERATIONS_MAX + 1)
    assert metric.operations["other"] == 20


def test_counting_from_many_threads_is_exact() -> None:
    """No count is lost."""
    handler = Stage().handler

    def count() -> None:
        for _ in range(500):
            handler.handle_database_error(ConnectionError("refused"), "work")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handler.get_error_metrics()[Type.DATABASE_CONNECTION].error_count == 2000


def test_a_forked_child_begins_with_nothing() -> None:
    """What its parent counted is its parent's; and no lock of another thread is held in it."""
    handler = Stage().handler
    handler.handle_database_error(ConnectionError("refused"), "work")
    child = os.fork()
    if child == 0:
        handler.handle_cache_error(ConnectionError("refused"), "work")
        counts = [one.error_count for one in handler.get_error_metrics().values()]
        os._exit(0 if sum(counts) == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert handler.get_error_metrics()[Type.DATABASE_CONNECTION].error_count == 1


# --- logging ------------------------------------------------------------------------------------------


def test_a_line_has_its_context_and_no_secret() -> None:
    """Once per exception object, at WARNING; a refusal at INFO; no traceback, which would tell all."""
    stage = Stage()
    error = ConnectionError("password=secret refused")
    for _ in range(2):
        stage.handler.handle_database_error(error, "load\nuser")
    stage.handler.handle_database_error(CircuitOpenError("database", BreakerState.OPEN, 1.0), "load")
    line, refusal = stage.lines
    assert line.getMessage() == (
        "DATABASE_CONNECTION in load?user: ConnectionError: password=*** refused "
        "[dependency, class builtins.ConnectionError; advice: USE_CACHE]"
    )
    facts = [getattr(line, key) for key in ("error_type", "operation", "origin", "strategy")]
    assert facts == ["DATABASE_CONNECTION", "load?user", "dependency", "USE_CACHE"]
    assert (line.levelno, line.exc_info, refusal.levelno) == (logging.WARNING, None, logging.INFO)


def test_an_outage_does_not_flood_the_log() -> None:
    """Five lines of one kind and operation in ten seconds; then how many were left out."""
    stage = Stage()
    for _ in range(100):
        stage.handler.handle_database_error(ConnectionError("refused"), "load")
    assert len(stage.lines) == 5
    stage.handler.handle_database_error(ConnectionError("refused"), "store")
    stage.now += 10.0
    stage.handler.handle_database_error(ConnectionError("refused"), "load")
    assert len(stage.lines) == 7
    assert stage.lines[-1].getMessage().endswith(" (95 more like it were not logged)")


def test_a_log_handler_that_fails_hurts_nobody() -> None:
    """The error in hand is the one that matters."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise OSError("the disk is full")

    logger = logging.getLogger(fresh("broken"))
    logger.propagate = False
    logger.addHandler(Broken())
    handler = MemoryErrorHandler(logger)
    assert handler.handle_database_error(Exception("syntax error"), "work") is Strategy.RETURN_EMPTY


# --- breakers -----------------------------------------------------------------------------------------


def test_breakers_are_a_mapping_in_which_assigning_is_registering() -> None:
    """One without a name gets this one; one with a name keeps it; what is none is refused."""
    breakers = Stage().handler.circuit_breakers
    name, named = fresh("custom_service"), CircuitBreaker(fresh("theirs"))
    breakers[name] = CircuitBreaker(failure_threshold=5, recovery_timeout=60)
    breakers["ours"] = named
    assert (breakers[name].name, breakers["ours"]) == (name, named)
    assert named.name.startswith("theirs")
    assert list(breakers) == [name, "ours"]
    del breakers["ours"]
    assert len(breakers) == 1
    with pytest.raises(KeyError):
        breakers["ours"]
    with pytest.raises(TypeError, match="must be a CircuitBreaker"):
        breakers["x"] = "closed"  # type: ignore[assignment]  # that is it
    with pytest.raises(SettingsError):
        breakers["no name at all"] = CircuitBreaker()


def test_a_breaker_is_made_on_first_use_and_counts_outages_alone() -> None:
    """Bad queries, pool exhaustion and mistakes do not open it; refused connections do."""
    handler = Stage().handler
    breaker = handler.get_circuit_breaker(fresh("database"))
    assert handler.get_circuit_breaker(breaker.name) is breaker

    @breaker
    def call(error: Exception) -> None:
        raise error

    for error in (Exception("syntax error"), ValueError("x"), Exception("QueuePool limit of size 1 reached")):
        for _ in range(10):
            with pytest.raises(type(error)):
                call(error)
    was_open = breaker.state.is_open
    for _ in range(5):
        with pytest.raises(ConnectionError):
            call(ConnectionError("refused"))
    assert (was_open, breaker.state.is_open) == (False, True)
    with pytest.raises(CircuitOpenError, match="Circuit breaker is OPEN"):
        call(ConnectionError("refused"))


def test_the_health_report() -> None:
    """Healthy while no breaker is OPEN, HALF_OPEN or FORCED_OPEN; everything in JSON values."""
    handler = Stage().handler
    name = fresh("database")
    breaker = handler.get_circuit_breaker(name)
    handler.handle_database_error(ConnectionError("refused"), "work")
    report = handler.get_health_report()
    assert report["is_healthy"] is True
    assert report["error_metrics"]["DATABASE_CONNECTION"]["error_count"] == 1
    closed = {"state": "CLOSED", "is_open": False, "failure_count": 0, "retry_after_s": 0.0}
    assert report["circuit_breakers"] == {name: closed}
    breaker.force_open()
    sick = handler.get_health_report()
    assert (sick["is_healthy"], sick["circuit_breakers"][name]["state"]) == (False, "FORCED_OPEN")
    breaker.state.is_open = False
    breaker.state.failure_count = 0
    healthy = [handler.get_health_report()["is_healthy"]]
    breaker.disable()
    assert [*healthy, handler.get_health_report()["is_healthy"]] == [True, True]


# --- retries ------------------------------------------------------------------------------------------


def test_an_operation_is_retried_until_it_succeeds() -> None:
    """Every failed call is counted; the waits grow."""
    stage, work = Stage(), Failing(2)
    assert stage.handler.retry_operation(work, "work", max_retries=3) == 3
    assert stage.waits == [0.1, 0.2]
    assert stage.handler.get_error_metrics()[Type.DATABASE_CONNECTION].error_count == 2


def test_three_retries_are_at_most_four_calls() -> None:
    """And the last exception is raised unchanged."""
    stage, work = Stage(), Failing(9)
    with pytest.raises(TimeoutError) as caught:
        stage.handler.retry_operation(work, "work", max_retries=3)
    assert work.calls == 4
    assert caught.value is work.raised[-1]
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_what_does_not_pass_is_called_once() -> None:
    """A mistake, and the refusal of an open breaker; so is everything with no retries."""
    for error in (ValueError, lambda _: CircuitOpenError("x", BreakerState.OPEN, 9.0)):
        work = Failing(9, error)  # type: ignore[arg-type]  # a refusal is made of three facts
        with pytest.raises((ValueError, CircuitOpenError)):
            Stage().handler.retry_operation(work, "work")
        assert work.calls == 1
    work = Failing(9)
    with pytest.raises(TimeoutError):
        Stage().handler.retry_operation(work, "work", max_retries=0)
    assert work.calls == 1


def test_the_same_exception_object_raised_again_is_another_error() -> None:
    """Each attempt is counted, also where the function keeps one exception for all times."""
    stage, error = Stage(), TimeoutError()

    def work() -> None:
        raise error

    with pytest.raises(TimeoutError):
        stage.handler.retry_operation(work, "work", max_retries=2)
    assert stage.handler.get_error_metrics()[Type.DATABASE_CONNECTION].error_count == 3


def test_no_attempt_begins_after_the_deadline() -> None:
    """A total time for all attempts."""
    stage = Stage()
    stage.handler.retry_settings = RetrySettings(base_s=4.0, wait_max_s=4.0, deadline_s=10.0)
    work = Failing(9)
    with pytest.raises(TimeoutError):
        stage.handler.retry_operation(work, "work", max_retries=50)
    assert (work.calls, stage.waits) == (3, [4.0, 4.0])


def test_an_async_operation_is_retried_too() -> None:
    """Awaited, with waits that do not block the loop; so is what only makes a coroutine."""
    stage, work = Stage(), Failing(2)
    assert asyncio.run(stage.handler.retry_operation(work.later, "work")) == 3
    again = Failing(9)
    with pytest.raises(TimeoutError) as caught:
        asyncio.run(stage.handler.retry_operation(functools.partial(again.later), "work", 1))
    assert (again.calls, caught.value is again.raised[-1]) == (2, True)
    assert stage.waits == [0.1, 0.2, 0.1]


def test_a_cancelled_operation_is_not_retried() -> None:
    """What is no Exception passes at once."""
    calls = []

    def work() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Stage().handler.retry_operation(work, "work")
    assert len(calls) == 1
