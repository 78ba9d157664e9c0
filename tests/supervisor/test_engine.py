"""The engine in conversation: outcomes, trials, commands, time, and what leaves it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from ipc.layout import unpack_ramp
from ipc.vocabulary import BreakerSettings
from supervisor.engine import Engine
from supervisor.messages import (
    Answer,
    Happened,
    PermitReturned,
    Publish,
    Reloaded,
    Tick,
    WorkerQuarantined,
)
from tests.supervisor.conversation import FAILURE, SUCCESS, Host, nonce

OF_VERSION_2 = Path(__file__).with_name("version_2.json")
BREAKER_OF_VERSION_2 = 10
CIRCUIT_OF_VERSION_2 = 10
"""Values of a circuit in it."""
QUICK = BreakerSettings(recovery_timeout=1.0, recovery_jitter=0.0, trial_timeout=2.0, successes_to_close=1)


def open_host(*letters: str) -> Host:
    """A host on which one breaker of these workers is OPEN."""
    host = Host()
    host.settle_in(*letters, settings=QUICK)
    host.outcomes(*[(letters[0], FAILURE)] * 5)
    return host


def test_failures_of_all_open_for_all() -> None:
    """Five failures in a row, whoever had them, refuse everywhere in the same turn, with one event."""
    host = Host()
    host.settle_in("a", "b", "c")
    host.outcomes(("a", FAILURE), ("b", FAILURE), ("c", FAILURE), ("a", FAILURE))
    assert host.published() == {}
    host.outcomes(("b", FAILURE))
    assert host.published() == {("a", 0): "OPEN", ("b", 0): "OPEN", ("c", 0): "OPEN"}
    assert host.events("breaker") == ["app/database: CLOSED -> OPEN: 5 failures in a row"]


def test_successes_publish_nothing() -> None:
    """Only words that changed leave."""
    host = Host()
    host.settle_in("a", "b")
    assert host.outcomes(*[("a", SUCCESS), ("b", SUCCESS)] * 20) == []


def test_one_bad_worker_is_refused_alone() -> None:
    """Its peers' rows do not change; the event names it."""
    host = Host()
    host.settle_in("a", "b", "c", "d")
    for _ in range(5):
        host.outcomes(("b", SUCCESS), ("c", SUCCESS), ("d", SUCCESS))
        host.now += 1.0
        host.outcomes(("a", FAILURE))
        if host.published():
            break
        host.now += 1.0
    assert host.published() == {("a", 0): "OPEN"}
    assert host.events("breaker")[0].startswith("app/database for web-a (pid 1000) alone: CLOSED -> OPEN")


def test_time_opens_the_way_to_trials() -> None:
    """At the end of the open time a tick publishes HALF_OPEN with permits; next_time says when."""
    host = open_host("a", "b")
    assert host.engine.next_time() == 101.0
    host.now = host.engine.next_time()
    host.say(Tick())
    assert host.published() == {("a", 0): "HALF_OPEN", ("b", 0): "HALF_OPEN"}


def test_a_trial_closes_for_all() -> None:
    """One permit, one success, and everybody is admitted again."""
    host = open_host("a", "b")
    host.now = 101.5
    permit = host.ask("b")
    assert permit["permit"] is not None
    assert (permit["lease_s"], permit["retry_after_s"]) == (3.0, 0.0)
    host.outcomes(("b", SUCCESS), permit=permit["permit"] & 63)
    assert host.states() == {"a": "CLOSED", "b": "CLOSED"}
    assert host.engine.next_time() == math.inf


def test_the_same_question_gets_the_same_permit() -> None:
    """An answer that was lost is asked for again under the same number."""
    host = open_host("a", "b")
    host.now = 102.0
    first = host.ask("b", ask=4)
    host.now = 102.5
    again = host.ask("b", ask=4)
    assert (again["permit"], again["lease_s"]) == (first["permit"], 2.5)


def test_no_permit_while_open() -> None:
    """The answer says when to ask again."""
    host = open_host("a")
    host.now = 100.25
    assert host.ask("a") == {"permit": None, "generation": 1, "lease_s": 0.0, "retry_after_s": 0.75}


def test_a_permit_that_never_arrived_is_free() -> None:
    """The next asker gets it at once."""
    host = Host()
    host.settle_in("a", "b", settings=BreakerSettings(recovery_timeout=1.0, permitted_trials=1))
    host.outcomes(*[("a", FAILURE)] * 5)
    host.now = 110.0
    permit = host.ask("a")["permit"]
    assert host.ask("b")["permit"] is None
    host.say(PermitReturned(nonce("a"), 0, permit))
    assert host.ask("b", ask=2)["permit"] is not None


def test_a_permit_for_a_row_nobody_declared_is_refused() -> None:
    """The answer is a refusal, not a permit."""
    host = Host()
    host.join("a")
    with pytest.raises(ValueError, match="unpack"):
        host.ask("a", row=5)
    assert host.refusal() == "unknown"


def test_a_dead_workers_permit_goes_to_the_next_asker() -> None:
    """An abandoned trial is no verdict."""
    host = Host()
    host.settle_in("a", "b", settings=BreakerSettings(recovery_timeout=1.0, permitted_trials=1))
    host.outcomes(*[("a", FAILURE)] * 5)
    host.now = 110.0
    host.ask("a")
    host.leave("a")
    assert host.ask("b")["permit"] is not None


def test_a_quarantined_worker_has_no_part_in_decisions() -> None:
    """It gets no permit, its permit is free, and it is told once; its board is still written."""
    host = Host()
    host.settle_in("a", "b", settings=BreakerSettings(recovery_timeout=1.0, permitted_trials=1))
    host.outcomes(*[("b", FAILURE)] * 5)
    host.now = 110.0
    assert host.ask("a")["permit"] is not None
    host.say(WorkerQuarantined(nonce("a"), "its ring is garbage"))
    assert host.events() == ["web-a (pid 1000) is quarantined: its ring is garbage"]
    assert host.ask("a", ask=2)["permit"] is None
    assert host.ask("b")["permit"] is not None
    host.say(WorkerQuarantined(nonce("a"), "again"))
    assert host.effects == []
    host.command("disable")
    assert host.published() == {("a", 0): "DISABLED", ("b", 0): "DISABLED"}


def test_a_command_is_answered_published_and_told() -> None:
    """Who, what, for how long and why, in one event, and the transition in another."""
    host = Host()
    host.settle_in("a")
    host.command("force-open", 600.0)
    assert host.answer() == {"breaker": "app/database", "state": "FORCED_OPEN", "expires_in_s": 600.0}
    assert host.published() == {("a", 0): "FORCED_OPEN"}
    assert host.events("command") == ["root (uid 0): force-open app/database for 600 s: a test"]
    assert len(host.events("breaker")) == 1
    assert host.engine.next_time() == 700.0
    host.now = 700.0
    host.say(Tick())
    assert host.published() == {("a", 0): "HALF_OPEN"}


def test_a_command_for_ever_never_ends_by_itself() -> None:
    """Nothing waits for time."""
    host = Host()
    host.settle_in("a")
    host.command("disable", None)
    assert host.answer()["expires_in_s"] is None
    assert host.engine.next_time() == math.inf
    host.command("enable", 30.0)
    assert host.answer() == {"breaker": "app/database", "state": "CLOSED", "expires_in_s": None}


@pytest.mark.parametrize(
    ("verb", "for_s", "breaker", "code"),
    [
        ("reset", None, "app/nothing", "unknown"),
        ("explode", None, "app/database", "invalid"),
        ("disable", 0.0, "app/database", "invalid"),
        ("disable", -1.0, "app/database", "invalid"),
        ("disable", 1e12, "app/database", "invalid"),
    ],
)
def test_what_is_no_command_changes_nothing(verb: str, for_s: float | None, breaker: str, code: str) -> None:
    """It is refused with a fixed word."""
    host = Host()
    host.settle_in("a")
    host.command(verb, for_s, breaker)
    assert host.refusal() == code
    assert host.states() == {"a": "CLOSED"}


def test_a_clock_that_began_anew_keeps_what_remains() -> None:
    """After a reboot an open breaker stays open for the rest of its time."""
    host = open_host("a")
    engine = Engine.from_plain(json.loads(json.dumps(host.engine.to_plain())))
    engine.shift(-95.0)
    assert engine.next_time() == 6.0
    assert engine.workers[nonce("a")].since == 5.0


@pytest.mark.parametrize("plain", [None, [], {}, {"version": 0}, {"version": 1}])
def test_a_snapshot_of_something_else_is_refused(plain: object) -> None:
    """It raises what the caller expects, instead of loading a part."""
    with pytest.raises((ValueError, TypeError, LookupError)):
        Engine.from_plain(plain)  # type: ignore[arg-type]  # the point of the test


def test_a_snapshot_of_before_counters_is_read() -> None:
    """What version 1 wrote is the same state, without counters."""
    host = open_host("a")
    plain = json.loads(json.dumps(host.engine.to_plain()))
    for breaker in plain["catalogue"][0]:
        circuits = breaker[3][1]
        circuits[0] = circuits[0][:CIRCUIT_OF_VERSION_2]
        del breaker[BREAKER_OF_VERSION_2:]
    old = {**plain, "version": 1, "counting": plain["counting"][:4], "catalogue": plain["catalogue"][:2]}
    old["roster"] = [[worker[:-1] for worker in plain["roster"][0]], plain["roster"][1]]
    assert Engine.from_plain(old).to_plain() == host.engine.to_plain()


def test_a_snapshot_of_before_owners_is_read() -> None:
    """Who made what follows from the workers, if there are any; the rest is unused since it stopped."""
    host = Host()
    host.join("a", "b")
    host.declare("a", "database")
    host.now = 120.0
    host.declare("b", "cache")
    host.declare_counter("a", 7, "kept")
    host.declare_counter("b", 8, "left")
    host.leave("b")
    plain = json.loads(json.dumps(host.engine.to_plain()))
    breakers, configured, watches, *_ = plain["catalogue"]
    counters = [counter[:5] for counter in plain["counting"][4]]
    old = {
        **plain,
        "version": 4,
        "catalogue": [[breaker[:BREAKER_OF_VERSION_2] for breaker in breakers], configured, watches],
        "counting": [*plain["counting"][:4], counters],
    }
    engine = Engine.from_plain(old)
    assert [(one.name, one.number, one.owner) for one in engine.catalogue.numbered] == [
        ("app/database", 0, 500),
        ("app/cache", 1, -1),
    ]
    assert (list(engine.catalogue.idle), engine.catalogue.following) == ([1], 2)
    assert list(engine.counting.idle) == [("app", "DATABASE_QUERY", "left")]
    assert Engine.from_plain(json.loads(json.dumps(engine.to_plain()))).to_plain() == engine.to_plain()


def test_a_snapshot_of_before_probes_is_read() -> None:
    """A file that version 2 wrote is the same host: states, words, what waits for time, and what follows."""
    kept = json.loads(OF_VERSION_2.read_text())
    engine = Engine.from_plain(kept["plain"])
    assert [[one.worker, one.row, one.word] for one in engine.publications()] == kept["words"]
    assert engine.next_time() == kept["next"]
    states = {name: breaker.state.name for name, breaker in engine.catalogue.named.items()}
    assert states == {
        "app/database": "CLOSED",
        "app/cache": "OPEN",
        "app/queue": "HALF_OPEN",
        "app/mail": "FORCED_OPEN",
    }
    assert list(engine.catalogue.named["app/database"].breaker.isolated) == [nonce("a")]
    assert Engine.from_plain(json.loads(json.dumps(engine.to_plain()))).to_plain() == engine.to_plain()
    host = Host(engine, 200.0)
    host.say(Tick())
    assert host.engine.catalogue.named["app/cache"].state.name == "HALF_OPEN"


def test_a_ramp_is_in_the_word_of_a_closing_by_trials_alone() -> None:
    """From the closing on; a new daemon publishes the same word, and nothing is published at its end."""
    host = Host()
    settings = replace(QUICK, ramp_s=8.0)
    host.settle_in("a", "b", settings=settings)
    assert unpack_ramp(host.board[nonce("b"), 0]) == (0.0, 0.0)
    host.outcomes(*[("a", FAILURE)] * 5)
    host.now = 101.5
    host.outcomes(("b", SUCCESS), permit=host.ask("b")["permit"] & 63)
    assert {unpack_ramp(word) for word in host.board.values()} == {(109.5, 8.0)}
    host.now = 104.0
    again = Host(Engine.from_plain(json.loads(json.dumps(host.engine.to_plain()))), 104.0)
    again.start(2)
    words = {(one.worker, one.row): one.word for one in again.engine.publications()}
    assert words == host.board
    again.join("c")
    again.declare("c", settings=settings)
    assert unpack_ramp(again.board[nonce("c"), 0]) == (109.5, 8.0), "it is told to who comes in the middle"
    assert again.engine.next_time() == math.inf
    again.now = 120.0
    assert again.say(Tick()) == []
    again.command("reset")
    assert {unpack_ramp(one.word) for one in again.engine.publications()} == {(0.0, 0.0)}


def test_a_reboot_keeps_the_rest_of_a_ramp() -> None:
    """As remaining time on the new clock."""
    host = open_host("a")
    host.now = 101.5
    host.engine.catalogue.named["app/database"].breaker.configure(replace(QUICK, ramp_s=8.0), 101.5)
    host.outcomes(("a", SUCCESS), permit=host.ask("a")["permit"] & 63)
    engine = Engine.from_plain(json.loads(json.dumps(host.engine.to_plain())))
    engine.shift(-100.0)
    assert [unpack_ramp(one.word) for one in engine.publications()] == [(9.5, 8.0)]


def test_effects_come_in_the_order_of_their_causes() -> None:
    """The answer first, then the events, then the words."""
    host = Host()
    host.settle_in("a")
    kinds = [type(effect) for effect in host.command("disable")]
    assert kinds == [Answer, Happened, Happened, Publish]


def test_a_reload_is_an_event_that_names_who_asked() -> None:
    """A person by name and number, a signal by its name."""
    host = Host()
    (happened,) = host.say(Reloaded(1000, "deploy", "breakers: added cache"))
    assert isinstance(happened, Happened)
    asked = "the configuration was reloaded, asked for by deploy (uid 1000): breakers: added cache"
    assert (happened.kind, happened.text) == ("supervisor", asked)
    assert dict(happened.fields) == {"event": "reloaded", "uid": "1000", "user": "deploy"}
    (happened,) = host.say(Reloaded(-1, "SIGHUP", "nothing is different"))
    assert isinstance(happened, Happened)
    assert happened.text.endswith("asked for by SIGHUP: nothing is different")
