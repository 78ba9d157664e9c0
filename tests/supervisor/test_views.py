"""What every verb that asks is answered: whole values, and the shape that its schema pins."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ipc.vocabulary import BreakerSettings, OutcomeKind, Tally
from supervisor import views
from supervisor.errors import BadRequest, BreakerNotFound
from supervisor.facts import Facts, ManagedProcess, Refusal, Usage
from supervisor.messages import Configured, OutcomeBatch, WorkerQuarantined
from supervisor.metrics import bucket_mid_s
from tests.schemas import problems
from tests.supervisor.conversation import FACTS, FAILURE, SUCCESS, Host, nonce, taken

WALL = 1_700_000_000.0
VERBS = ("health", "stats", "breakers", "workers", "status", "events", "errors", "version")
PLAIN = BreakerSettings(recovery_jitter=0.0)


def ask(host: Host, verb: str, facts: Facts = FACTS, **more: Any) -> dict[str, Any]:
    """The answer to a verb, as it arrives at the asker, checked against the verb's schema."""
    answer = views.answer(host.engine, {"verb": verb, **more}, facts, host.now, WALL)
    arrived: dict[str, Any] = json.loads(json.dumps(answer, allow_nan=False))
    assert problems(verb, arrived) == []
    return arrived


def busy_host() -> Host:
    """Three workers, two breakers, one open, some errors, one isolated worker, one manual state."""
    host = Host()
    host.start()
    host.settle_in("a", "b", "c", settings=PLAIN)
    host.declare("a", "cache", row=1)
    host.declare_class("a", 2, "TimeoutError")
    host.say(OutcomeBatch((taken("a", tallies=((2, int(OutcomeKind.COUNT), 3),)),), ()))
    host.command("force-open", None, "app/cache")
    for _ in range(6):
        host.outcomes(("b", SUCCESS), ("c", SUCCESS))
        host.now += 1.0
        host.outcomes(("a", FAILURE))
        host.now += 1.0
    return host


# --- shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", VERBS)
def test_an_empty_host_has_an_answer_to_everything(verb: str) -> None:
    """A supervisor that was just started is asked first."""
    ask(Host(), verb)


@pytest.mark.parametrize("verb", VERBS)
def test_a_busy_host_answers_in_the_same_shape(verb: str) -> None:
    """Open, isolated, manual, lost: the shape stays."""
    ask(busy_host(), verb)


@pytest.mark.parametrize(
    "body",
    [
        {"verb": "dance"},
        {},
        {"verb": ["health"]},
        {"verb": "health", "level": "deep"},
        {"verb": "health", "level": ["full"]},
        {"verb": "events", "after": -1},
        {"verb": "events", "limit": "many"},
        {"verb": "events", "after": True},
        {"verb": "breaker"},
        {"verb": "breaker", "name": 7},
        {"verb": "errors", "breaker": ["x"]},
    ],
)
def test_what_is_asked_wrongly_is_refused_by_name(body: dict[str, Any]) -> None:
    """A request is hostile: no value of it makes anything else happen than a refusal."""
    with pytest.raises(BadRequest) as refused:
        views.answer(Host().engine, body, FACTS, 100.0, WALL)
    assert refused.value.code == "bad"


def test_a_breaker_nobody_declared_is_not_found() -> None:
    """The code tells it apart from a bad request."""
    with pytest.raises(BreakerNotFound) as refused:
        ask(Host(), "breaker", name="database")
    assert refused.value.code == "unknown"


# --- counts -------------------------------------------------------------------------------------------


def test_stats_count_everything_once() -> None:
    """Outcomes include what overflowed; totals are the sums of the breakers."""
    host = Host()
    host.start()
    host.settle_in("a")
    host.declare("a", "cache", row=1)
    part = taken(
        "a",
        counts=((0, SUCCESS, 0, 90), (0, FAILURE, 1, 10), (9, SUCCESS, 0, 4)),
        durations=((0, ((40, 98), (80, 2))),),
        tallies=((0, FAILURE, 5), (0, int(Tally.REJECTED), 7), (1, int(Tally.PERMIT_TIMEOUT), 2)),
        gaps=1,
        invalid=2,
    )
    host.say(OutcomeBatch((part,), ()))
    host.now = 150.0
    stats = ask(host, "stats")
    none = dict.fromkeys(stats["totals"]["outcomes"], 0)
    assert stats["breakers"] == {
        "app/database": {
            "outcomes": {**none, "success": 90, "failure": 15},
            "rejected": 7,
            "permit_timeout": 0,
            "ramped": 0,
            "local": 10,
            "overflow": 5,
            "durations": {"p50_s": bucket_mid_s(40), "p90_s": bucket_mid_s(40), "p99_s": bucket_mid_s(80)},
        },
        "app/cache": {
            "outcomes": none,
            "rejected": 0,
            "permit_timeout": 2,
            "ramped": 0,
            "local": 0,
            "overflow": 0,
            "durations": {"p50_s": None, "p90_s": None, "p99_s": None},
        },
    }
    assert stats["totals"] == {
        "outcomes": {**none, "success": 90, "failure": 15},
        "rejected": 7,
        "permit_timeout": 2,
        "ramped": 0,
    }
    lost = {"ring_gap": 1, "ring_invalid": 2, "segment_lost": 0, "unknown_row": 4}
    assert stats["lost"] == {**lost, "refused_row": 0, "checkpoint_lost": 0}
    own = {"incarnation": 1, "workers": 1, "batches": 1, "uptime_s": 60.0}
    assert stats["supervisor"] == {
        **own,
        "accept_full": 0,
        "accept_emfile": 0,
        "refused_hellos": 0,
        "denied_commands": 0,
        "breakers_forgotten": 0,
    }


def test_counts_stay_when_their_worker_has_left() -> None:
    """Totals are of all workers that ever were."""
    host = busy_host()
    before = ask(host, "stats")["totals"]
    for letter in "abc":
        host.leave(letter)
    assert ask(host, "stats")["totals"] == before


def test_errors_are_shown_most_frequent_first_with_their_age() -> None:
    """Count and last sight per class, of one breaker or of all."""
    host = Host()
    host.settle_in("a")
    host.declare_class("a", 1, "TimeoutError")
    host.declare_class("a", 2, "OSError")
    host.declare_class("a", 3, "KeyError")
    host.say(OutcomeBatch((taken("a", tallies=((1, 11, 2), (2, 11, 5))),), ()))
    host.now = 130.0
    expected = [
        {"class": "OSError", "count": 5, "last_seen": "2023-11-14T22:12:50.000+00:00", "age_s": 30.0},
        {"class": "TimeoutError", "count": 2, "last_seen": "2023-11-14T22:12:50.000+00:00", "age_s": 30.0},
        {"class": "KeyError", "count": 0, "last_seen": None, "age_s": None},
    ]
    assert ask(host, "errors")["breakers"] == [{"name": "app/database", "classes": expected}]
    assert ask(host, "errors", breaker="database") == ask(host, "errors")
    assert ask(host, "errors")["counters"] == []


def test_counters_are_shown_by_namespace_kind_and_operation() -> None:
    """Beside the classes; of one namespace if it is named, none where one breaker was asked for."""
    host = Host()
    host.settle_in("a")
    host.join("b", namespace="other")
    for letter, row, operation in (("a", 1, "load"), ("a", 2, "store"), ("b", 0, "load")):
        host.declare_counter(letter, row, operation)
    host.say(
        OutcomeBatch((taken("a", tallies=((1, 11, 2), (2, 11, 5))), taken("b", tallies=((0, 11, 3),))), ())
    )
    shown = [(one["namespace"], one["operation"], one["count"]) for one in ask(host, "errors")["counters"]]
    assert shown == [("app", "store", 5), ("other", "load", 3), ("app", "load", 2)]
    (one,) = ask(host, "errors", counters="other")["counters"]
    assert (one["kind"], one["count"], one["age_s"]) == ("DATABASE_QUERY", 3, 0.0)
    assert ask(host, "errors", breaker="database")["counters"] == []
    with pytest.raises(BadRequest):
        ask(host, "errors", counters=7)


# --- breakers and workers -----------------------------------------------------------------------------


def test_an_isolated_worker_is_shown_at_its_breaker_and_at_itself() -> None:
    """Both views name it; the breaker is closed for the others."""
    host = busy_host()
    shown = ask(host, "breaker", name="database")["breaker"]
    assert shown["state"] == "CLOSED"
    assert [(one["name"], one["pid"], one["state"]) for one in shown["isolated"]] == [("web-a", 1000, "OPEN")]
    assert 0.0 < shown["isolated"][0]["retry_after_s"] <= 30.0
    assert [one["isolated"] for one in ask(host, "workers")["workers"]] == [["app/database"], [], []]


def test_a_manual_state_names_who_why_and_how_long() -> None:
    """For ever is null, and so is when to retry."""
    host = busy_host()
    shown = ask(host, "breaker", name="app/cache")["breaker"]
    assert shown["manual"] == {"uid": 0, "user": "root", "reason": "a test", "expires_in_s": None}
    assert (shown["state"], shown["retry_after_s"]) == ("FORCED_OPEN", None)
    host.command("disable", 60.0, "app/cache")
    host.now += 15.0
    shown = ask(host, "breaker", name="app/cache")["breaker"]
    assert shown["manual"]["expires_in_s"] == 45.0
    assert (shown["state"], shown["retry_after_s"]) == ("DISABLED", 0.0)


def test_an_open_breaker_shows_what_is_left_of_its_time() -> None:
    """State, run, window, generation and how long it is open."""
    host = Host()
    host.settle_in("a", "b", settings=PLAIN)
    host.outcomes(("a", SUCCESS), *[("b", FAILURE)] * 4)
    shown = ask(host, "breaker", name="database")["breaker"]
    assert shown["window"] == {"calls": 5, "failures": 4, "slow": 0}
    assert (shown["failure_count"], shown["state"], shown["workers"]) == (4, "CLOSED", 2)
    host.outcomes(("a", FAILURE))
    host.now += 10.0
    shown = ask(host, "breaker", name="database")["breaker"]
    assert (shown["state"], shown["generation"], shown["opened_total"]) == ("OPEN", 1, 1)
    assert (shown["retry_after_s"], shown["since_s"]) == (20.0, 10.0)
    assert shown["trials"] == {"in_flight": 0, "permitted": 3, "passed": 0}


def test_conflicting_declarations_are_shown_both() -> None:
    """The settings in force and the others, with the workers that declare them."""
    host = Host()
    other = BreakerSettings(failure_threshold=2)
    host.settle_in("a", settings=PLAIN)
    host.settle_in("b", settings=other)
    shown = ask(host, "breaker", name="database")["breaker"]
    assert shown["settings"] == PLAIN.to_json()
    assert shown["conflicts"] == [{"settings": other.to_json(), "workers": ["web-b (pid 1000)"]}]


def test_workers_show_what_the_daemon_knows_of_them() -> None:
    """Figures and ring come from outside; who is not known there is shown without."""
    host = Host()
    host.settle_in("a", "b")
    host.outcomes(("a", SUCCESS), ("a", SUCCESS))
    host.say(WorkerQuarantined(nonce("b"), "garbage"))
    host.now = 105.0
    usage = {1000: Usage(5_000_000, 1.5, 3, 12)}
    facts = replace(FACTS, usage=usage, ring_used={nonce("a"): (12, 16_384)})
    first, second = ask(host, "workers", facts)["workers"]
    assert first == {
        "id": "aaaaaaaa",
        "pid": 1000,
        "name": "web-a",
        "namespace": "app",
        "user": "app",
        "uid": 500,
        "attached_s": 5.0,
        "state": "attached",
        "outcomes": 2,
        "rejected": 0,
        "overflow": 0,
        "ring_used": 12,
        "ring_slots": 16_384,
        "isolated": [],
        "software": "0.1.0",
        "rss_bytes": 5_000_000,
        "cpu_s": 1.5,
        "threads": 3,
        "fds": 12,
    }
    assert (second["state"], second["ring_slots"], "rss_bytes" in second) == ("quarantined", 0, False)


def test_workers_show_who_is_turned_away() -> None:
    """Beside those that are attached, with the dates and what to do."""
    one = Refusal("refused", 1002, "u2", 396, "denied", "name it", 3, 60.0, 99.0)
    (shown,) = ask(Host(), "workers", replace(FACTS, refusals=(one,)))["refused"]
    assert (shown["user"], shown["pid"], shown["count"], shown["age_s"]) == ("u2", 396, 3, 1.0)
    assert shown["text"] == "name it"


# --- the supervisor -----------------------------------------------------------------------------------


def test_status_shows_managed_processes() -> None:
    """After breakerd's own, in the order of the facts: state, last end, what was lost of the log."""
    host = busy_host()
    host.now = 120.0
    facts = replace(
        FACTS,
        managed=(
            ManagedProcess("prober", 1, "prober:1", "RUNNING", 20, 110.0, internal=True),
            ManagedProcess("web", 2, "web:2", "FATAL", 0, 100.0, 5, "exit code 1", False, 3),
        ),
        usage={10: Usage(1, 0.5, 1, None), 20: Usage(2, 0.25, 1, 4)},
    )
    nursery, _, prober, web = ask(host, "status", facts)["processes"]
    assert {"rss_bytes": 1, "cpu_s": 0.5, "threads": 1}.items() <= nursery.items()
    assert "fds" not in nursery
    assert prober == {
        "name": "prober:1",
        "state": "RUNNING",
        "pid": 20,
        "uptime_s": 10.0,
        "description": "",
        "managed": {
            "table": "prober",
            "number": 1,
            "internal": True,
            "since": 110.0,
            "since_s": 10.0,
            "restarts": 0,
            "last_exit": "",
            "log_gaps": 0,
        },
        "rss_bytes": 2,
        "cpu_s": 0.25,
        "threads": 1,
        "fds": 4,
    }
    assert (web["state"], web["pid"], web["uptime_s"]) == ("FATAL", 0, 0.0)
    assert web["description"] == "exit code 1, restarted 5 times"
    assert (web["managed"]["since_s"], web["managed"]["log_gaps"]) == (20.0, 3)


def test_status_shows_the_processes() -> None:
    """The nursery and the daemon, in the columns that users of Supervisor know."""
    host = busy_host()
    facts = replace(FACTS, nursery_started_at=50.0)
    assert ask(host, "status", facts)["processes"] == [
        {"name": "breakerd", "state": "RUNNING", "pid": 10, "uptime_s": 62.0, "description": "nursery"},
        {
            "name": "daemon",
            "state": "RUNNING",
            "pid": 11,
            "uptime_s": 22.0,
            "description": "incarnation 1, 3 attached",
        },
    ]


def test_events_of_one_breaker_or_kind_and_the_newest() -> None:
    """A question may name a breaker or a kind, and may want the newest; `breaker` tells the last changes."""
    host = busy_host()
    host.declare("a", "queue", row=9)
    host.command("disable", breaker="app/queue")
    of_queue = ask(host, "events", breaker="queue")["events"]
    assert {one["breaker"] for one in of_queue} == {"app/queue"}
    assert ask(host, "breaker", name="queue")["changes"] == of_queue
    (command,) = ask(host, "events", kind="command", breaker="queue")["events"]
    assert ask(host, "events", limit=1, newest=True, kind="command")["events"] == [command]
    with pytest.raises(BadRequest, match="kind"):
        ask(host, "events", kind="weather")


def test_events_go_on_where_the_asker_stopped() -> None:
    """`next` is what to ask after; a number that was never given starts from the last one."""
    host = busy_host()
    first = ask(host, "events", limit=2)
    assert [one["number"] for one in first["events"]] == [1, 2]
    assert first["events"][0]["text"] == "breakerd serves, incarnation 1"
    assert first["events"][0]["at"] == "2023-11-14T22:13:08.000+00:00"
    rest = ask(host, "events", after=first["next"])
    assert rest["events"][0]["number"] == 3
    nothing = ask(host, "events", after=rest["next"])
    assert (nothing["events"], nothing["next"]) == ([], rest["next"])
    assert ask(host, "events", after=10_000) == nothing


def test_version_names_both_processes() -> None:
    """Software, protocol and layout, for whoever compares two sides."""
    shown = ask(Host(), "version")
    assert (shown["version"], shown["protocol"], shown["layout"]) == ("0.1.0", 1, 1)
    assert (shown["pid"], shown["nursery_pid"]) == (11, 10)


def test_the_configuration_makes_a_breaker_critical() -> None:
    """It is shown where the breaker is."""
    host = busy_host()
    host.say(Configured((("cache", "{}", True),)))
    assert ask(host, "breaker", name="cache")["breaker"]["critical"] is True
