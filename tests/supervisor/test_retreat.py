"""Stopping all in order: who is asked when, and that nobody is killed who was not asked. In virtual time."""

from __future__ import annotations

from dataclasses import replace

from supervisor.policy import NEVER, Act, Course, WardState
from supervisor.retreat import Retreat
from supervisor.settings_workers import WorkerTable

STOPPED = WardState.STOPPED
TABLE = WorkerTable("web", "app:run")


def living(*names: str) -> list[Course]:
    """Courses that run."""
    courses = [Course(replace(TABLE, name=name), 0.0) for name in names]
    for course in courses:
        course.start(0.0)
    return courses


def told(acts: list[tuple[Course, Act]]) -> list[tuple[str, Act]]:
    """Who has to do what."""
    return [(course.table.name, act) for course, act in acts if act is not Act.NOTHING]


def test_a_retreat_is_in_reverse_and_waits_for_each() -> None:
    """The next group is asked when the last of the one before is gone."""
    groups = [living("first"), living("second-1", "second-2"), living("third")]
    retreat = Retreat(groups)
    assert told(retreat.turn(1.0)) == [("third", Act.TERMINATE)]
    assert told(retreat.turn(2.0)) == []
    groups[2][0].ended(3.0, True, 0.0)
    assert told(retreat.turn(3.0)) == [("second-1", Act.TERMINATE), ("second-2", Act.TERMINATE)]
    groups[1][1].ended(4.0, True, 0.0)
    assert told(retreat.turn(4.0)) == []
    groups[1][0].ended(4.0, True, 0.0)
    assert told(retreat.turn(4.0)) == [("first", Act.TERMINATE)]
    groups[0][0].ended(5.0, False, 0.0)
    assert (told(retreat.turn(5.0)), retreat.over) == ([], True)
    assert {course.state for group in groups for course in group} == {STOPPED}


def test_a_retreat_does_not_wait_for_what_does_not_live() -> None:
    """Who waits, was given up or is stopped is simply stopped."""
    waits, gone = living("waits", "gone")
    waits.ended(0.5, False, 0.0)
    retreat = Retreat([[waits], [gone], [Course(TABLE, 0.0)]])
    assert told(retreat.turn(1.0)) == [("gone", Act.TERMINATE)]
    gone.ended(2.0, True, 0.0)
    assert told(retreat.turn(2.0)) == []
    assert (retreat.over, waits.state) == (True, STOPPED)


def test_a_retreat_whose_time_is_over_kills_all_at_once() -> None:
    """Also those whose turn has not come; nobody waits for ever."""
    groups = [living("first"), living("second"), living("third")]
    retreat = Retreat(groups, until=4.0)
    retreat.turn(1.0)
    assert retreat.until == 4.0
    assert told(retreat.turn(4.0)) == [("first", Act.KILL), ("second", Act.KILL), ("third", Act.KILL)]
    assert told(retreat.turn(4.1)) == []
    for (course,) in groups:
        assert course.until == NEVER
        course.ended(5.0, False, 0.0)
    retreat.turn(5.0)
    assert retreat.over


def test_whose_turn_has_not_come_is_asked_before_the_time_is_over() -> None:
    """One that takes all the time does not have the others killed in the middle of their work."""
    groups = [living("first"), living("second"), living("third"), living("fourth")]
    retreat = Retreat(groups, until=20.0, hurry=15.0)
    assert told(retreat.turn(0.0)) == [("fourth", Act.TERMINATE)]
    groups[3][0].ended(1.0, True, 0.0)
    assert told(retreat.turn(1.0)) == [("third", Act.TERMINATE)]
    assert retreat.until == 15.0
    assert told(retreat.turn(14.9)) == []
    assert told(retreat.turn(15.0)) == [("second", Act.TERMINATE), ("first", Act.TERMINATE)]
    assert retreat.until == 20.0
    groups[0][0].ended(15.1, True, 0.0)
    assert told(retreat.turn(15.2)) == []
    groups[1][0].ended(15.3, True, 0.0)
    assert (told(retreat.turn(15.4)), retreat.over) == ([], False)
    assert told(retreat.turn(20.0)) == [("third", Act.KILL)]
    groups[2][0].ended(20.1, False, 0.0)
    retreat.turn(20.1)
    assert (retreat.over, retreat.until) == (True, NEVER)


def test_the_hurry_begins_with_a_turn() -> None:
    """However late it is."""
    retreat = Retreat([living("first"), living("second")], until=20.0, hurry=15.0)
    assert told(retreat.turn(16.0)) == [("second", Act.TERMINATE), ("first", Act.TERMINATE)]
