"""Everything is counted once, whatever a worker says and however often it is read."""

from __future__ import annotations

from ipc.vocabulary import Tally
from supervisor.messages import (
    OutcomeBatch,
)
from supervisor.worker import ReadFrom
from tests.supervisor.conversation import FAILURE, SUCCESS, Host, nonce, taken


def test_every_outcome_is_counted_whether_judged_or_not() -> None:
    """Local outcomes are counted and never judged."""
    host = Host()
    host.settle_in("a")
    host.say(OutcomeBatch((taken("a", counts=((0, FAILURE, 1, 40), (0, SUCCESS, 0, 2))),), ()))
    metrics = host.engine.catalogue.named["app/database"].metrics
    assert (metrics.outcomes[FAILURE], metrics.outcomes[SUCCESS], metrics.local) == (40, 2, 40)
    assert host.states() == {"a": "CLOSED"}


def test_cumulative_words_are_copied_never_added_twice() -> None:
    """The same absolute value again, a smaller one, or a hostile one changes nothing."""
    host = Host()
    host.settle_in("a")
    for value in (7, 7, 3, 1 << 48, -1, 9):
        host.say(OutcomeBatch((taken("a", tallies=((0, int(Tally.REJECTED), value),)),), ()))
    metrics = host.engine.catalogue.named["app/database"].metrics
    assert metrics.tallies[Tally.REJECTED] == 9
    assert host.engine.workers[nonce("a")].rejected == 9


def test_overflow_is_counted_and_told() -> None:
    """Outcomes that found the ring full are outcomes; that they have no order is remembered."""
    host = Host()
    host.settle_in("a")
    host.say(OutcomeBatch((taken("a", tallies=((0, SUCCESS, 11),)),), ()))
    worker = host.engine.workers[nonce("a")]
    assert (worker.outcomes, worker.overflow) == (11, 11)
    assert host.engine.counting.disorder_at == 100.0


def test_reading_continues_where_the_batch_ended() -> None:
    """A new daemon reads on from what was counted, with the cumulative words that were seen."""
    host = Host()
    host.settle_in("a")
    part = taken("a", position=300, epoch=99, holes=((17, 99),), declared=64, tallies=((0, 12, 4),))
    host.say(OutcomeBatch((part,), ()))
    assert host.engine.reading(nonce("a")) == ReadFrom(300, 99, ((17, 99),), 64, ((0, 12, 4),))


def test_a_batch_of_a_worker_nobody_knows_is_ignored() -> None:
    """A worker that left in the same turn has been counted by its last drain."""
    host = Host()
    assert host.say(OutcomeBatch((taken("z", counts=((0, SUCCESS, 0, 5),)),), ())) == []
