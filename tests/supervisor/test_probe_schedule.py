"""When probes are due, in virtual time."""

from __future__ import annotations

import itertools
from dataclasses import replace

from ipc.circuit import NEVER
from supervisor.facts import ProbeWait
from supervisor.probe_schedule import BY_HAND_MAX, Schedule, Task
from supervisor.probe_watch import Probing
from supervisor.settings_probe import LATE_S, ProbeTable

TABLE = ProbeTable("tcp", address="h:80", interval_s=5.0, interval_max_s=60.0, fall=3, jitter=0.0)


def schedule(**tables: ProbeTable) -> Schedule:
    """A schedule of these tables, without jitter."""
    made = Schedule(lambda: 0.5)
    made.configure(tables or {"a": TABLE}, 0.0)
    return made


def times(made: Schedule, verdicts: str, took_s: float = 0.0) -> list[float]:
    """When the probe `a` is asked, if a free prober is always there and these are the verdicts."""
    found: list[float] = []
    now = 0.0
    words = {"p": "passed", "f": "failed", "e": "error"}
    for letter in verdicts:
        while (task := made.take(now)) is None:
            now += 0.5
            assert now < 1000.0
        found.append(now)
        made.ended(task, words[letter], now, now + took_s)
    return found


def gaps(found: list[float]) -> list[float]:
    """The times between them."""
    return [later - earlier for earlier, later in itertools.pairwise(found)]


def test_a_passing_probe_comes_in_equal_intervals() -> None:
    """From start to start, however long it takes."""
    assert times(schedule(), "pppp", took_s=2.0) == [0.0, 5.0, 10.0, 15.0]


def test_a_probe_that_takes_longer_than_its_interval_comes_at_once() -> None:
    """And never twice at the same time."""
    made = schedule()
    task = made.take(0.0)
    assert task == Task("a", TABLE, 0.0)
    assert made.take(100.0) is None
    made.ended(task, "passed", 0.0, 7.0)
    assert made.take(7.0) == Task("a", TABLE, 7.0)


def test_the_next_verdict_is_awaited_by_its_place_in_the_schedule() -> None:
    """What is left of the interval, the last wait for a prober, and the time that a probe may take."""
    made = schedule()
    task = made.take(3.0)
    assert task is not None
    made.ended(task, "failed", 3.0, 4.0)
    assert made.awaited_s("a", 4.0) == 2.0 * (4.0 + 3.0 + TABLE.timeout_s + LATE_S)
    assert made.awaited_s("a", 100.0) == 2.0 * (3.0 + TABLE.timeout_s + LATE_S)
    assert made.awaited_s("unknown", 4.0) == 0.0


def test_failures_come_slower_and_slower() -> None:
    """From the `fall`-th on, up to the maximum; one pass is as if nothing had been."""
    assert gaps(times(schedule(), "ffffffffpp")) == [5, 5, 10, 20, 40, 60, 60, 60, 5]


def test_what_cannot_be_asked_comes_slower_at_once() -> None:
    """A driver that ends its prober must not end it every few seconds."""
    assert gaps(times(schedule(), "eeeeep")) == [10, 20, 40, 60, 60]


def test_an_opening_takes_the_interval_back() -> None:
    """The next one is due at most one interval later, and the slowing begins anew."""
    made = schedule()
    times(made, "fffffff")
    assert made.take(155.0) is None
    opened = Probing("a", True, 151.0)
    made.follow([opened], 155.0)
    assert made.take(155.5) is None
    task = made.take(156.0)
    assert task == Task("a", TABLE, 156.0)
    made.ended(task, "failed", 156.0, 156.0)
    made.follow([opened], 156.0)
    assert made.take(160.9) is None
    assert made.take(161.0) is not None


def test_a_breaker_that_is_not_open_hurries_nothing() -> None:
    """Nor one of a table without a probe."""
    made = schedule()
    times(made, "fffff")
    made.follow([Probing("a", False, NEVER), Probing("b", True, 30.0)], 40.0)
    assert made.take(79.9) is None
    assert made.take(80.0) is not None


def test_one_that_opened_long_ago_is_due_now_and_has_not_waited() -> None:
    """By a reload, or by the start of a daemon: that its breaker is long open is no want of probers."""
    made = schedule()
    made.configure({"b": replace(TABLE, jitter=1.0)}, 5000.0)
    last = 5000.2 - 5000.1
    made.follow([Probing("b", True, 100.0)], 5000.1)
    assert made.waits(5000.2)["b"] == ProbeWait(last, last)
    task = made.take(5000.2)
    assert task is not None
    assert task.due == 5000.1
    assert made.waits(5000.3)["b"] == ProbeWait(last, last)


def test_jitter_is_a_share_of_the_interval() -> None:
    """Also of the first one, so that a start does not ask everything at once."""
    table = replace(TABLE, jitter=0.2)
    made = schedule(a=table)
    assert made.take(0.4) is None
    task = made.take(0.5)
    assert task is not None
    made.ended(task, "passed", 1.0, 1.0)
    assert made.take(6.4) is None
    assert made.take(6.5) == Task("a", table, 6.5)


def test_the_queue_is_in_the_order_of_due_times() -> None:
    """And what waited is told."""
    tables = {
        name: replace(TABLE, interval_s=seconds) for name, seconds in (("a", 9.0), ("b", 3.0), ("c", 6.0))
    }
    made = schedule(**tables)
    for task in [made.take(0.0) for _ in tables]:
        assert task is not None
        made.ended(task, "passed", 0.0, 0.0)
    assert [task.name for task in iter(lambda: made.take(10.0), None)] == ["b", "c", "a"]
    assert made.waits(10.0) == {"a": ProbeWait(1.0, 1.0), "b": ProbeWait(7.0, 7.0), "c": ProbeWait(4.0, 4.0)}


def test_a_probe_that_waits_now_is_told_of_before_it_is_asked() -> None:
    """Else a queue that stands still would look like one that is empty."""
    made = schedule()
    assert made.waits(2.0) == {"a": ProbeWait(2.0, 2.0)}
    task = made.take(3.0)
    assert task is not None
    made.ended(task, "passed", 3.0, 3.0)
    assert made.waits(4.0) == {"a": ProbeWait(3.0, 3.0)}
    assert made.take(8.0) is not None
    assert made.waits(8.0) == {"a": ProbeWait(0.0, 3.0)}


def test_who_wants_to_see_one_is_served_first() -> None:
    """Whoever wants the same one shares it; what the schedule has under way stays there."""
    made = schedule(a=TABLE, b=TABLE)
    assert made.want("b", 1, 0.0)
    assert made.want("b", 2, 0.5)
    task = made.take(1.0)
    assert task == Task("b", TABLE, 0.0, (1, 2))
    assert [made.take(1.0), made.take(1.0)] == [Task("a", TABLE, 0.0), Task("b", TABLE, 0.0)]
    made.ended(task, "passed", 1.0, 1.0)
    assert made.take(7.0) is None
    made.ended(Task("b", TABLE, 0.0), "passed", 1.0, 1.0)
    assert made.take(6.0) == Task("b", TABLE, 6.0)


def test_one_by_hand_counts_for_the_schedule() -> None:
    """It has just been asked."""
    made = schedule()
    first = made.take(0.0)
    assert first is not None
    made.ended(first, "passed", 0.0, 0.0)
    assert made.want("a", 1, 3.0)
    by_hand = made.take(3.0)
    assert by_hand is not None
    made.ended(by_hand, "passed", 3.0, 3.0)
    assert made.take(7.9) is None
    assert made.take(8.0) is not None


def test_nobody_waits_for_ever_and_not_everybody_at_once() -> None:
    """Tickets come back that were not served in time, or whose probe is gone."""
    made = schedule(**{f"t{number}": TABLE for number in range(BY_HAND_MAX + 1)})
    for number in range(BY_HAND_MAX):
        assert made.want(f"t{number}", number, float(number))
    assert not made.want(f"t{BY_HAND_MAX}", 99, 5.0)
    assert made.want("t0", 100, 50.0)
    assert made.forget(2.0) == (0, 100, 1)
    made.configure({"t5": TABLE}, 60.0)
    assert set(made.forget(0.0)) == set(range(2, BY_HAND_MAX)) - {5}
    assert made.take(60.0) == Task("t5", TABLE, 5.0, (5,))


def test_a_new_configuration_keeps_what_has_not_changed() -> None:
    """A changed table is due at once, a removed one never, and a late answer of either moves nothing."""
    made = schedule(a=TABLE, b=TABLE, c=TABLE)
    tasks = [made.take(0.0) for _ in range(3)]
    changed = replace(TABLE, address="h:81")
    made.configure({"a": TABLE, "b": changed}, 1.0)
    assert made.names() == ("a", "b")
    assert made.take(1.0) == Task("b", changed, 1.0)
    for task in tasks:
        assert task is not None
        made.ended(task, "failed", 0.0, 1.0)
    assert made.take(4.9) is None
    assert made.take(5.0) == Task("a", TABLE, 5.0)


def test_equal_numbers_of_another_kind_are_another_table() -> None:
    """The engine tells tables apart by their digests: so must the schedule, or no verdict would count."""
    whole = replace(TABLE, timeout_s=2)
    made = schedule(a=whole)
    task = made.take(0.0)
    assert task is not None
    made.configure({"a": TABLE}, 0.0)
    again = made.take(0.0)
    assert again is not None
    assert again.table.digest == TABLE.digest != task.table.digest


def test_what_could_not_be_asked_is_the_next_one() -> None:
    """Its prober had just died."""
    made = schedule(a=TABLE, b=TABLE)
    assert made.want("b", 1, 0.0)
    for _ in range(2):
        by_hand, task = made.take(0.0), made.take(0.0)
        assert (by_hand, task) == (Task("b", TABLE, 0.0, (1,)), Task("a", TABLE, 0.0))
        for one in (task, by_hand):
            assert one is not None
            made.put_back(one)


def test_after_a_failure_of_the_actor_nothing_is_under_way() -> None:
    """What was being asked is due as before."""
    made = schedule(a=TABLE, b=TABLE)
    assert made.take(0.0) is not None
    made.release()
    assert [made.take(0.0), made.take(0.0)] == [Task("a", TABLE, 0.0), Task("b", TABLE, 0.0)]
