"""The verbs that show what the supervisor knows."""

from __future__ import annotations

import pytest

from tests.schemas import problems
from tests.supervisor.ctl import answers
from tests.supervisor.ctl.conftest import Ctl, Stage


def words(line: str) -> list[str]:
    """The words of a line."""
    return line.split()


def test_status_has_the_columns_of_supervisor(stage: Stage, ctl: Ctl) -> None:
    """Name, state and description stand where Supervisor's own status has them."""
    stage.script["status"] = answers.status()
    ran = ctl("status")
    assert ran.code == 0
    assert ran.lines == [
        "breakerd                         RUNNING   pid 123, uptime 0:01:02",
        "daemon                           RUNNING   pid 124, uptime 1 day, 2:03:04",
    ]


def test_status_fails_when_a_process_does_not_run(stage: Stage, ctl: Ctl) -> None:
    """Exit code 3 as Supervisor's, and the reason in place of the uptime."""
    stage.script["status"] = answers.status("FATAL")
    ran = ctl("status")
    assert ran.code == 3
    assert ran.lines[1] == "daemon                           FATAL     ended with 1"


def test_breakers_one_a_line(stage: Stage, ctl: Ctl) -> None:
    """State first, numbers behind it, what else there is in words."""
    quiet = answers.breaker(
        name="blog/cache",
        state="CLOSED",
        isolated=[],
        retry_after_s=0.0,
        critical=True,
        manual=answers.MANUAL,
    )
    stage.script["breakers"] = {"schema": 1, "breakers": [answers.breaker(), quiet]}
    assert [line.split(maxsplit=10) for line in ctl("breakers").lines] == [
        words("BREAKER STATE SINCE IN-A-ROW CALLS FAILED SLOW RETRY WORKERS ISOLATED NOTE"),
        words("shop/database OPEN 12s 5 40 31 2 18s 4 1 -"),
        [
            *words("blog/cache CLOSED 12s 5 40 31 2 - 4 0"),
            "critical; by deploy (uid 1000) for another 9m: migration",
        ],
    ]


def test_workers_one_a_line(stage: Stage, ctl: Ctl) -> None:
    """Who, since when, how much."""
    stage.script["workers"] = answers.workers()
    row = words("abababab 4711 shop web-1 deploy attached 1h02m 117 55 0 3/16384 shop/database")
    assert ctl("workers").lines[1].split() == row


def test_who_is_turned_away_is_shown_below_the_workers(stage: Stage, ctl: Ctl) -> None:
    """Also where nobody is attached: then it is the whole news."""
    refused = {"user": "u2", "pid": 396, "count": 3, "age_s": 4.0, "reason": "denied", "text": "name it"}
    stage.script["workers"] = {"schema": 1, "workers": [], "refused": [refused]}
    lines = ctl("workers").lines
    assert lines[0] == "no worker is attached"
    assert lines[2] == "REFUSED"
    assert lines[4].split()[:2] == ["u2", "396"]
    assert lines[4].endswith("name it")


def test_wide_workers_have_what_each_costs(stage: Stage, ctl: Ctl) -> None:
    """A blank where it is not known; without --wide it is not even asked for."""
    answer = answers.workers()
    other = {**answer["workers"][0], "id": "cdcdcdcd"}
    costs = {"rss_bytes": 52_848_230, "cpu_s": 12.345, "threads": 7}
    stage.script["workers"] = {"schema": 1, "workers": [{**answer["workers"][0], **costs, "fds": 31}, other]}
    lines = ctl("workers", "--wide").lines
    assert lines[0].split()[-5:] == words("RSS CPU THREADS FDS ISOLATED")
    assert lines[1].split()[-5:] == words("50.4M 12.35s 7 31 shop/database")
    assert lines[2].split()[-5:] == words("- - - - shop/database")
    narrow = ctl("workers")
    assert "RSS" not in narrow.out
    assert stage.asked == [{"verb": "workers", "wide": True}, {"verb": "workers"}]
    assert problems("workers", ctl("workers", "--wide", "--json").json) == []


def test_status_has_managed_processes(stage: Stage, ctl: Ctl) -> None:
    """In Supervisor's columns: what runs with its pid, the rest with the reason; exit code 3 for these."""
    stage.script["status"] = answers.status_of(
        answers.managed("web:1", "RUNNING", 77),
        answers.managed(
            "web:2", "RUNNING", 78, restarts=2, description="restarted 2 times, last exit code 1"
        ),
        answers.managed("mail", "STARTING", 79),
        answers.managed("old", "FATAL", description="exit code 1, restarted 5 times"),
        answers.managed("idle", "STOPPED", description="not started"),
    )
    ran = ctl("status")
    assert [line.split(maxsplit=2) for line in ran.lines[2:]] == [
        ["web:1", "RUNNING", "pid 77, uptime 0:01:02"],
        ["web:2", "RUNNING", "pid 78, uptime 0:01:02, restarted 2 times, last exit code 1"],
        ["mail", "STARTING", "pid 79"],
        ["old", "FATAL", "exit code 1, restarted 5 times"],
        ["idle", "STOPPED", "not started"],
    ]
    assert ran.code == 3
    asked = ctl("status", "--json")
    assert problems("status", asked.json) == []
    assert stage.asked == [{"verb": "status"}, {"verb": "status", "wide": True}]


def test_stats_have_every_kind_and_what_was_lost(stage: Stage, ctl: Ctl) -> None:
    """The numbers of each breaker, their sum, and losses by their names."""
    stage.script["stats"] = answers.stats()
    lines = ctl("stats").lines
    assert lines[1].split() == words("shop/database 100 7 0 1 2 3 4 55 1 0 12us 12.3ms 1.5s")
    assert lines[2].split() == words("TOTAL 100 7 0 1 2 3 4 55 1 0 - - -")
    assert lines[3] == "lost: 3 ring_invalid"
    assert lines[4] == "supervisor: 4 workers, 99 batches, up 1m02s, incarnation 2"


def test_errors_have_the_most_frequent_first(stage: Stage, ctl: Ctl) -> None:
    """Class, count, age and date; one breaker's if it is named."""
    stage.script["errors"] = answers.errors()
    lines = ctl("errors", "database").lines
    assert lines[1].split() == words("shop/database OperationalError 12 4.25s 2026-11-24T21:57:03.120+00:00")
    assert lines[2].split() == words("shop/database TimeoutError 3 - -")
    counted = "shop/store_conversation DATABASE_CONNECTION 7 4.25s 2026-11-24T21:57:03.120+00:00"
    assert lines[-1].split() == words(counted)
    ctl("errors")
    assert stage.asked == [{"verb": "errors", "breaker": "database"}, {"verb": "errors"}]


def test_events_are_the_last_ones(stage: Stage, ctl: Ctl) -> None:
    """The number that was asked for, oldest first, also as JSON."""
    stage.script["events"] = answers.events(*range(1, 61))
    assert len(ctl("events").lines) == 50
    ran = ctl("events", "2", "--json")
    assert [event["number"] for event in ran.json["events"]] == [59, 60]
    line = ctl("events", "1").lines[0]
    assert line.split(maxsplit=2) == [
        "2026-11-24T21:57:03.120+00:00",
        "breaker",
        "shop/database: CLOSED -> OPEN: 5 failures in a row",
    ]


@pytest.mark.parametrize(
    ("verb", "empty", "text"),
    [
        ("breakers", {"breakers": []}, "no breaker is known yet"),
        ("workers", {"workers": []}, "no worker is attached"),
        ("errors", {"breakers": [], "counters": []}, "no call has failed"),
        ("events", {"events": [], "next": 0}, "nothing has happened"),
    ],
)
def test_nothing_is_said_in_words(
    stage: Stage, ctl: Ctl, verb: str, empty: dict[str, object], text: str
) -> None:
    """An empty list is a sentence and a success."""
    stage.script[verb] = {"schema": 1, **empty}
    ran = ctl(verb)
    assert ran.code == 0
    assert ran.out.startswith(text)


def test_json_of_every_listing_is_true_to_its_schema(stage: Stage, ctl: Ctl) -> None:
    """What the supervisor said, unchanged."""
    stage.script = {
        "status": answers.status(),
        "breakers": {"schema": 1, "breakers": [answers.breaker(manual=answers.MANUAL)]},
        "workers": answers.workers(),
        "stats": answers.stats(),
        "errors": answers.errors(),
        "events": answers.events(1, 2),
    }
    for verb, answer in stage.script.items():
        ran = ctl(verb, "--json")
        assert ran.json == answer
        assert problems(verb, ran.json) == []
