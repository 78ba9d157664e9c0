"""Limits of the configuration against those that a worker has declared."""

from __future__ import annotations

import pytest

from ipc import layout as at
from ipc.breaker import Breaker
from ipc.ring import Part
from ipc.vocabulary import BreakerSettings, OutcomeKind
from supervisor.decode import Counted, judge
from supervisor.host_breaker import HostBreaker
from supervisor.limits import Limits, limits_of
from supervisor.worker import Row, Worker
from tests.supervisor.test_decode import EPOCH, NOW, word

S, F = OutcomeKind.SUCCESS, OutcomeKind.FAILURE
SLOW_S, SLOW_F = OutcomeKind.SLOW_SUCCESS, OutcomeKind.SLOW_FAILURE
CANCELLED, LATE = OutcomeKind.CANCELLED, OutcomeKind.CANCELLED_LATE


@pytest.mark.parametrize(
    ("kind", "took", "limits", "told"),
    [
        (S, 0.03, Limits(0.02, None, None), SLOW_S),
        (S, 0.01, Limits(0.02, None, None), S),
        (F, 7.0, Limits(0.02, None, None), SLOW_F),
        (SLOW_S, 0.03, Limits(0.5, None, None), S),
        (SLOW_F, 0.03, Limits(None, None, None), F),
        (CANCELLED, 0.3, Limits(None, 0.2, 1.0), LATE),
        (CANCELLED, 3.0, Limits(None, 0.2, 1.0), CANCELLED),
        (CANCELLED, 3.0, Limits(None, 2.0, None), LATE),
        (LATE, 3.0, Limits(None, 5.0, 1.0), CANCELLED),
        (LATE, 3.0, Limits(None, None, 1.0), CANCELLED),
        (OutcomeKind.IGNORED, 9.0, Limits(0.02, 0.0, 1.0), OutcomeKind.IGNORED),
    ],
)
def test_a_kind_by_the_limits_in_force(
    kind: OutcomeKind, took: float, limits: Limits, told: OutcomeKind
) -> None:
    """Slow and late follow the duration; a call that its own caller has ended stays so."""
    assert limits.kind(kind, took) is told


def test_words_are_told_anew() -> None:
    """Fast and slow words of such a row are counted and judged by the limits; other rows are left alone."""
    limits = {0: Limits(0.05, 0.2, 1.0)}
    ring = [
        word(S, took=0.1),
        word(S, took=0.01),
        word(F, took=0.1),
        word(CANCELLED, took=0.24),
        word(S, row=1, took=0.1),
        word(SLOW_S, took=2.0, long=True),
    ]
    one = Counted("w0", 0, NOW, limits)
    one.scan([Part(at.BLOCK + 1, EPOCH, ring)])
    judged = judge([one], [{0: "a", 1: "b"}], NOW)
    assert one.counts == {(0, SLOW_S, 0): 2, (0, S, 0): 1, (0, SLOW_F, 0): 1, (0, LATE, 0): 1, (1, S, 0): 1}
    kinds = sorted((seen.row, seen.kind) for seen in judged for _ in range(seen.count))
    assert kinds == [(0, S), (0, SLOW_S), (0, SLOW_S), (0, SLOW_F), (0, LATE), (1, S)]


def test_only_rows_with_other_limits_are_told_anew() -> None:
    """Settings in force that differ in something else, and class rows, cost nothing."""
    worker = Worker("b", 1, 0, 0, "root", "b", "root", "0", 0.0)
    in_force = [
        BreakerSettings(cancelled_is_failure_s=1.0),
        BreakerSettings(failure_threshold=9, cancelled_is_failure_s=1.0),
        BreakerSettings(slow_call_s=0.3, cancelled_is_failure_s=1.0),
        BreakerSettings(cancelled_is_failure_s=None),
    ]
    for number, settings in enumerate(in_force):
        breaker = HostBreaker(number, "app", f"b{number}", Breaker(settings, 0.0))
        breaker.declare("b", BreakerSettings(cancelled_is_failure_s=1.0))
        worker.rows[number] = Row(breaker)
        worker.rows[10 + number] = Row(breaker, "OSError")
    assert limits_of(worker) == {2: Limits(0.3, 1.0, 1.0), 3: Limits(None, None, 1.0)}
