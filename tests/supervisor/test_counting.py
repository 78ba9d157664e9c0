"""Everything is counted once, whatever a worker says and however often it is read."""

from __future__ import annotations

import json
import math

from ipc.vocabulary import OutcomeKind, Tally
from supervisor.counting import (
    COUNTERS_EACH,
    COUNTERS_MAX,
    COUNTERS_OTHER_MAX,
    FORGET_S,
    CounterKey,
    Counting,
)
from supervisor.engine import Engine
from supervisor.messages import OutcomeBatch
from supervisor.metrics import ClassCount
from supervisor.worker import ReadFrom
from tests.supervisor.conversation import FAILURE, SUCCESS, Host, nonce, taken

COUNT = int(OutcomeKind.COUNT)
COUNTER = ("app", "DATABASE_QUERY", "load")


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


def test_counters_are_added_up_over_all_workers_that_ever_were() -> None:
    """Absolute words, each copied once; a restart reads them back; the dead stay counted."""
    host = Host()
    host.settle_in("a", "b")
    for letter in "ab":
        host.declare_counter(letter, 5)
    for value in (4, 4, 6):
        host.say(OutcomeBatch((taken("a", tallies=((5, COUNT, value),)),), ()))
    host.say(OutcomeBatch((taken("b", tallies=((5, COUNT, 10),)),), ()))
    host.leave("b")
    again = Engine.from_plain(json.loads(json.dumps(host.engine.to_plain())))
    for engine in (host.engine, again):
        assert engine.counting.counters[COUNTER] == ClassCount(16, 100.0)
    assert again.workers[nonce("a")].counters == {5: COUNTER}


def test_a_counters_row_counts_nothing_else() -> None:
    """Another word of the row, or an outcome on it, is of no row; and a row cannot be two things."""
    host = Host()
    host.settle_in("a")
    host.declare_counter("a", 5)
    host.say(OutcomeBatch((taken("a", counts=((5, SUCCESS, 0, 2),), tallies=((5, 12, 3),)),), ()))
    assert host.engine.counting.lost.unknown_row == 5
    host.declare_counter("a", 5, "store")
    assert "means something else" in host.events()[0]
    host.declare_counter("a", 0)
    assert "means something else" in host.events()[0]
    host.declare("a", "cache", row=5)
    assert "means something else" in host.events()[0]
    host.declare_class("a", 5, "OSError")
    assert host.engine.workers[nonce("a")].counters == {5: COUNTER}
    assert host.engine.counting.counters[COUNTER].count == 0


class Declared:
    """Counters in use: each declaration is a row of a worker that lives."""

    def __init__(self) -> None:
        self.counting = Counting(own=77)

    def declare(self, operation: str, owner: int = 0, namespace: str = "app") -> CounterKey | None:
        """One more row."""
        key = self.counting.counter((namespace, "K", operation), owner, 1.0)
        if key is not None:
            self.counting.used(key)
        return key


def test_the_counters_of_a_host_are_bounded() -> None:
    """Beyond the limit an operation is counted as `other`; the others stay."""
    host = Declared()
    keys = [host.declare(str(number)) for number in range(COUNTERS_MAX + 5)]
    assert keys[COUNTERS_MAX - 1] == ("app", "K", str(COUNTERS_MAX - 1))
    assert set(keys[COUNTERS_MAX:]) == {("app", "K", "other")}
    many = [host.declare("x", namespace=str(number)) for number in range(COUNTERS_OTHER_MAX + 5)]
    assert many[-1] is None
    assert host.declare("0") == ("app", "K", "0")


def test_one_user_has_a_quarter_of_the_counters_and_some_are_kept_for_root() -> None:
    """Whatever ordinary users declare, others and root still find room; in one namespace, too."""
    host = Declared()
    keys = [host.declare(str(number), 1001, f"n{number}") for number in range(COUNTERS_EACH + 3)]
    assert [key for key in keys if key and key[2] == "other"] == keys[COUNTERS_EACH:]
    assert host.declare("own", 1002, "fresh") == ("fresh", "K", "own")
    for uid in range(2000, 2010):
        for number in range(COUNTERS_EACH):
            host.declare(str(number), uid, str(uid))
    assert host.declare("late", 3000, "late") == ("late", "K", "other")
    assert host.declare("late", 0, "root") == ("root", "K", "late")
    assert host.declare("late", 77, "own") == ("own", "K", "late")


def test_counters_that_nobody_has_make_room_and_go_after_a_day() -> None:
    """Oldest first, of the same user; one that a worker has never goes."""
    host = Declared()
    counting = host.counting
    kept = host.declare("kept", 1001, "a")
    for number in range(COUNTERS_EACH - 1):
        counting.counter(("a", "K", str(number)), 1001, 10.0 + number)
    assert counting.counter(("a", "K", "new"), 1001, 9000.0) == ("a", "K", "new")
    assert ("a", "K", "0") not in counting.counters
    assert ("a", "K", "1") in counting.counters
    counting.forget_old(9000.0 + FORGET_S)
    assert list(counting.counters) == [kept]
    assert counting.forget_due() == math.inf


def test_a_batch_of_a_worker_nobody_knows_is_ignored() -> None:
    """A worker that left in the same turn has been counted by its last drain."""
    host = Host()
    assert host.say(OutcomeBatch((taken("z", counts=((0, SUCCESS, 0, 5),)),), ())) == []
