"""The rules of restarting in virtual time: the table walked whole, and whole courses of life."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.policy import (
    LIVING,
    WARD_TABLE,
    Act,
    Course,
    WardEvent,
    WardState,
    backoff_s,
    ward_diagram,
)
from supervisor.settings_workers import WorkerTable

STOPPED, STARTING, RUNNING = WardState.STOPPED, WardState.STARTING, WardState.RUNNING
BACKOFF, STOPPING = WardState.BACKOFF, WardState.STOPPING
EXITED, FATAL = WardState.EXITED, WardState.FATAL
Does = Callable[[Course, float], Act]

TABLE = WorkerTable(
    "web",
    "m:f",
    max_restarts=2,
    restart_window_s=10.0,
    backoff_s=1.0,
    backoff_max_s=3.0,
    backoff_jitter=0.5,
    start_s=2.0,
    stop_timeout_s=5.0,
)

MOVES = {
    (STOPPED, WardEvent.START): STARTING,
    (EXITED, WardEvent.START): STARTING,
    (FATAL, WardEvent.START): STARTING,
    (BACKOFF, WardEvent.START): STARTING,
    (BACKOFF, WardEvent.DUE): STARTING,
    (STARTING, WardEvent.SETTLED): RUNNING,
    (STARTING, WardEvent.STOP): STOPPING,
    (RUNNING, WardEvent.STOP): STOPPING,
    (BACKOFF, WardEvent.STOP): STOPPED,
    (EXITED, WardEvent.STOP): STOPPED,
    (FATAL, WardEvent.STOP): STOPPED,
    (STOPPING, WardEvent.GONE): STOPPED,
    **{(state, WardEvent.AGAIN): BACKOFF for state in LIVING},
    **{(state, WardEvent.DONE): EXITED for state in LIVING},
    **{(state, WardEvent.BEYOND): FATAL for state in LIVING},
}


@pytest.mark.parametrize("event", WardEvent)
@pytest.mark.parametrize("state", WardState)
def test_every_pair_leads_where_it_must(state: WardState, event: WardEvent) -> None:
    """The table has every pair, and each leads to the state written down here by hand, else stays."""
    assert WARD_TABLE[state, event] is MOVES.get((state, event), state)


def test_the_table_is_total_and_nobody_is_trapped() -> None:
    """7 x 8 pairs, and every state can be reached from every other."""
    assert len(WARD_TABLE) == 56
    for state in WardState:
        reached = {state}
        while (
            more := reached | {WARD_TABLE[one, event] for one in reached for event in WardEvent}
        ) != reached:
            reached = more
        assert reached == set(WardState)


def test_the_diagram_shows_every_move() -> None:
    """Each way out of each state has its line."""
    assert ward_diagram().splitlines()[:6] == [
        "STOPPED",
        "  └── start ──> STARTING",
        "STARTING",
        "  ├── settled ──> RUNNING",
        "  ├── again ──> BACKOFF",
        "  ├── done ──> EXITED",
    ]
    moves = sum(WARD_TABLE[pair] is not pair[0] for pair in WARD_TABLE)
    assert ward_diagram().count(" | ") + ward_diagram().count(" ──> ") == moves


start, stop, restart = Course.start, Course.stop, Course.restart
kill, overrun, time = Course.replace, Course.overran, Course.turn


def ends_well(course: Course, now: float) -> Act:
    """Exit code 0."""
    return course.ended(now, True, 0.0)


def ends_badly(course: Course, now: float) -> Act:
    """A signal, or another exit code."""
    return course.ended(now, False, 0.0)


def changed(course: Course, now: float) -> Act:
    """A new configuration with another table."""
    return course.adopt(replace(course.table, args=(5,)), now)


STORIES: dict[str, tuple[dict[str, Any], list[tuple[float, Does, Act, WardState]]]] = {
    "a good life": (
        {},
        [
            (0.0, start, Act.FORK, STARTING),
            (1.9, time, Act.NOTHING, STARTING),
            (2.0, time, Act.NOTHING, RUNNING),
            (3.0, start, Act.NOTHING, RUNNING),
            (9.0, stop, Act.TERMINATE, STOPPING),
            (10.0, stop, Act.NOTHING, STOPPING),
            (11.0, ends_well, Act.NOTHING, STOPPED),
        ],
    ),
    "it ignores SIGTERM": (
        {},
        [
            (0.0, start, Act.FORK, STARTING),
            (1.0, stop, Act.TERMINATE, STOPPING),
            (5.9, time, Act.NOTHING, STOPPING),
            (6.0, time, Act.KILL, STOPPING),
            (99.0, time, Act.NOTHING, STOPPING),
            (99.0, ends_badly, Act.NOTHING, STOPPED),
        ],
    ),
    "permanent: restarted however it ends, each time later, then given up": (
        {},
        [
            (0.0, start, Act.FORK, STARTING),
            (0.5, ends_well, Act.NOTHING, BACKOFF),
            (1.4, time, Act.NOTHING, BACKOFF),
            (1.5, time, Act.FORK, STARTING),
            (2.0, ends_badly, Act.NOTHING, BACKOFF),
            (3.9, time, Act.NOTHING, BACKOFF),
            (4.0, time, Act.FORK, STARTING),
            (6.0, time, Act.NOTHING, RUNNING),
            (6.1, ends_badly, Act.NOTHING, FATAL),
            (500.0, time, Act.NOTHING, FATAL),
            (500.0, start, Act.FORK, STARTING),
            (501.0, ends_badly, Act.NOTHING, BACKOFF),
        ],
    ),
    "escalate: the same ends everything": (
        {"beyond": "escalate"},
        [
            (0.0, start, Act.FORK, STARTING),
            (0.0, ends_badly, Act.NOTHING, BACKOFF),
            (1.0, time, Act.FORK, STARTING),
            (1.0, ends_badly, Act.NOTHING, BACKOFF),
            (3.0, time, Act.FORK, STARTING),
            (3.0, ends_badly, Act.ESCALATE, FATAL),
        ],
    ),
    "a restart that has left the window counts no more": (
        {},
        [
            (0.0, start, Act.FORK, STARTING),
            (0.0, ends_badly, Act.NOTHING, BACKOFF),
            (1.0, time, Act.FORK, STARTING),
            (5.0, ends_badly, Act.NOTHING, BACKOFF),
            (7.0, time, Act.FORK, STARTING),
            (10.1, ends_badly, Act.NOTHING, BACKOFF),
            (12.1, time, Act.FORK, STARTING),
            (15.0, ends_badly, Act.NOTHING, FATAL),
        ],
    ),
    "transient: only after a bad end": (
        {"restart": "transient"},
        [
            (0.0, start, Act.FORK, STARTING),
            (0.5, ends_badly, Act.NOTHING, BACKOFF),
            (1.5, time, Act.FORK, STARTING),
            (1.6, ends_well, Act.NOTHING, EXITED),
            (2.0, stop, Act.NOTHING, STOPPED),
        ],
    ),
    "temporary: never": (
        {"restart": "temporary"},
        [
            (0.0, start, Act.FORK, STARTING),
            (0.5, ends_badly, Act.NOTHING, EXITED),
            (1.0, restart, Act.FORK, STARTING),
            (1.0, overrun, Act.TERMINATE, STOPPING),
            (1.5, ends_well, Act.NOTHING, EXITED),
        ],
    ),
    "over a limit: a bad end, however it ends": (
        {"restart": "transient"},
        [
            (0.0, start, Act.FORK, STARTING),
            (1.0, overrun, Act.TERMINATE, STOPPING),
            (1.5, overrun, Act.NOTHING, STOPPING),
            (2.0, ends_well, Act.NOTHING, BACKOFF),
            (3.0, time, Act.FORK, STARTING),
            (3.5, ends_well, Act.NOTHING, EXITED),
        ],
    ),
    "stopped while it is ended for a limit": (
        {},
        [
            (0.0, start, Act.FORK, STARTING),
            (1.0, overrun, Act.TERMINATE, STOPPING),
            (1.5, stop, Act.NOTHING, STOPPING),
            (2.0, ends_well, Act.NOTHING, STOPPED),
        ],
    ),
    "killed for its work: another at once, as often as it takes": (
        {},
        [
            (0.0, start, Act.FORK, STARTING),
            *[
                step
                for n in range(5)
                for step in (
                    (n + 0.5, kill, Act.KILL, STOPPING),
                    (n + 0.6, kill, Act.NOTHING, STOPPING),
                    (n + 0.9, ends_badly, Act.FORK, STARTING),
                )
            ],
            (9.0, stop, Act.TERMINATE, STOPPING),
            (9.5, kill, Act.NOTHING, STOPPING),
            (9.9, ends_badly, Act.NOTHING, STOPPED),
            (9.9, kill, Act.NOTHING, STOPPED),
        ],
    ),
    "restarted by an operator: not counted, and another order wins": (
        {},
        [
            (0.0, restart, Act.FORK, STARTING),
            (2.0, restart, Act.TERMINATE, STOPPING),
            (2.5, ends_badly, Act.FORK, STARTING),
            (3.0, restart, Act.TERMINATE, STOPPING),
            (3.1, stop, Act.NOTHING, STOPPING),
            (3.2, start, Act.NOTHING, STOPPING),
            (3.5, ends_badly, Act.FORK, STARTING),
            (4.0, ends_badly, Act.NOTHING, BACKOFF),
            (4.1, restart, Act.FORK, STARTING),
            (4.2, ends_badly, Act.NOTHING, BACKOFF),
            (4.3, stop, Act.NOTHING, STOPPED),
            (9.9, time, Act.NOTHING, STOPPED),
        ],
    ),
    "another table: restarted": (
        {},
        [
            (0.0, start, Act.FORK, STARTING),
            (2.0, changed, Act.TERMINATE, STOPPING),
            (2.5, ends_well, Act.FORK, STARTING),
        ],
    ),
    "another table: what was stopped stays so": (
        {},
        [
            (0.0, changed, Act.NOTHING, STOPPED),
            (0.0, start, Act.FORK, STARTING),
            (0.5, stop, Act.TERMINATE, STOPPING),
            (0.6, changed, Act.NOTHING, STOPPING),
            (0.7, ends_well, Act.NOTHING, STOPPED),
        ],
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    """At each instant what happens, what is to be done, and the state after it."""
    more, steps = STORIES[name]
    course = Course(replace(TABLE, **more), 0.0)
    for now, does, act, state in steps:
        assert (now, does(course, now), course.state) == (now, act, state)


def test_a_table_that_is_changed_frees_what_was_given_up() -> None:
    """The change is taken for the repair, and counts anew."""
    course = Course(replace(TABLE, max_restarts=0), 0.0)
    course.start(0.0)
    states = []
    for now in (0.5, 1.5):
        course.ended(now, False, 0.0)
        states.append((course.state, course.adopt(TABLE, now)))
    assert states == [(FATAL, Act.FORK), (BACKOFF, Act.FORK)]


@pytest.mark.parametrize(("restarts", "seconds"), [(1, 1.0), (2, 2.0), (3, 3.0), (1000, 3.0)])
def test_the_wait_doubles_up_to_its_limit(restarts: int, seconds: float) -> None:
    """Jitter comes on top, and is passed in."""
    assert backoff_s(TABLE, restarts, 0.0) == seconds
    assert backoff_s(TABLE, restarts, 0.5) == seconds * 1.25


def test_the_chance_of_an_end_is_in_the_wait_for_the_next() -> None:
    """So that many that died of one cause do not come back at once."""
    due = []
    for chance in (0.0, 0.5):
        course = Course(TABLE, 0.0)
        course.start(0.0)
        course.ended(1.0, False, chance)
        due.append(course.until)
    assert due == [2.0, 2.25]


CHOICES: dict[str, Does] = {
    "start": start,
    "stop": stop,
    "restart": restart,
    "kill": kill,
    "overrun": overrun,
    "ends well": ends_well,
    "ends badly": ends_badly,
    "time": time,
    "changed": changed,
}


@given(
    st.sampled_from(["permanent", "transient", "temporary"]),
    st.lists(st.tuples(st.sampled_from(sorted(CHOICES)), st.floats(0.0, 8.0)), max_size=60),
)
def test_whatever_happens(kind: str, happenings: list[tuple[str, float]]) -> None:
    """There is a process exactly in the living states; never two; one that was stopped stays stopped."""
    course = Course(replace(TABLE, restart=kind), 0.0)
    now, lives, wanted = 0.0, False, False
    for name, passes in happenings:
        now += passes
        if name.startswith("ends") and not lives:
            continue
        act = CHOICES[name](course, now)
        if name.startswith("ends"):
            lives = False
        if act is Act.FORK:
            assert not lives
            lives = True
        assert act not in (Act.TERMINATE, Act.KILL) or lives
        assert lives == course.living
        assert course.state is not STOPPING or lives
        wanted = name in ("start", "restart") or (wanted and name != "stop")
        assert wanted or course.state in (STOPPED, STOPPING)
        assert (kind, course.state) != ("temporary", BACKOFF)
        assert course.until <= now + 8.0 or course.state not in (STARTING, BACKOFF)
