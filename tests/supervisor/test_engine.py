"""The engine in conversation: what it is told, and what it answers, publishes and counts."""

from __future__ import annotations

import json
import math

import pytest

from ipc.vocabulary import BreakerSettings, OutcomeKind, Tally
from supervisor.catalogue import BREAKERS_MAX
from supervisor.engine import Engine
from supervisor.errors import BreakerNotFound
from supervisor.messages import (
    Answer,
    BreakerDeclared,
    Configured,
    Happened,
    OutcomeBatch,
    PermitReturned,
    Publish,
    Retire,
    Tick,
    WorkerForgotten,
    WorkerJoined,
    WorkerQuarantined,
)
from supervisor.roster import WORKERS_MAX
from supervisor.worker import ReadFrom
from tests.supervisor.conversation import FAILURE, SUCCESS, Host, nonce, state_name, taken

QUICK = BreakerSettings(recovery_timeout=1.0, recovery_jitter=0.0, trial_timeout=2.0, successes_to_close=1)


def open_host(*letters: str) -> Host:
    """A host on which one breaker of these workers is OPEN."""
    host = Host()
    host.settle_in(*letters, settings=QUICK)
    host.outcomes(*[(letters[0], FAILURE)] * 5)
    return host


# --- workers ------------------------------------------------------------------------------------------


def test_a_worker_joins_once_however_often_it_says_hello() -> None:
    """The same nonce is the same worker; the second answer says so, and no second event is told."""
    host = Host()
    host.join("a")
    assert host.answer() == {"status": "new"}
    assert host.events("worker") == ["web-a (pid 1000) of user app joined namespace app"]
    host.join("a")
    assert host.answer() == {"status": "resumed"}
    assert host.events() == []
    assert len(host.engine.workers) == 1


def test_another_process_cannot_take_a_nonce() -> None:
    """The pidfd's inode tells two processes apart that name the same nonce."""
    host = Host()
    host.say(WorkerJoined(nonce("a"), 1, 77, 0, "root", "one", "app", ""))
    host.say(WorkerJoined(nonce("a"), 2, 78, 0, "root", "two", "app", ""))
    assert host.refusal() == "refused"
    assert host.engine.workers[nonce("a")].pid == 1


def test_a_dead_worker_becomes_a_tomb_and_then_nothing() -> None:
    """Retire is told with the fold; the tomb stays until the nursery has dropped the descriptors."""
    host = Host()
    host.settle_in("a")
    host.outcomes(("a", SUCCESS))
    effects = host.leave("a")
    assert [effect for effect in effects if isinstance(effect, Retire)] == [Retire(nonce("a"))]
    assert list(host.engine.tombs) == [nonce("a")]
    host.join("a")
    assert host.refusal() == "refused"
    host.say(WorkerForgotten(nonce("a")))
    assert host.engine.tombs == {}
    assert host.engine.catalogue.named["app/database"].metrics.outcomes[SUCCESS] == 1


def test_a_worker_nobody_knows_is_retired_all_the_same() -> None:
    """The daemon may hold descriptors of a worker whose joining was never committed."""
    assert Host().leave("a") == [Retire(nonce("a"))]


def test_a_lost_segment_is_counted() -> None:
    """What was in a ring that is gone with all its holders is told as a loss."""
    host = Host()
    host.join("a")
    host.leave("a", segment_lost=True)
    assert host.engine.counting.lost.segment_lost == 1


def test_after_a_reboot_nobody_of_before_is_alive() -> None:
    """The first daemon of a new boot buries every worker of the old one, without a word to the nursery."""
    host = Host()
    host.start(incarnation=1, boot=7)
    host.settle_in("a", "b")
    effects = host.start(incarnation=2, boot=8)
    assert not any(isinstance(effect, Retire) for effect in effects)
    assert (host.engine.workers, host.engine.tombs) == ({}, {})
    assert host.engine.counting.lost.segment_lost == 2


def test_a_new_daemon_of_the_same_boot_keeps_everybody() -> None:
    """A daemon that was killed comes back to the same workers and publishes every row again."""
    host = Host()
    host.start(incarnation=1)
    host.settle_in("a", "b")
    host.start(incarnation=2)
    assert len(host.engine.workers) == 2
    shown = {(one.worker[0], one.row): state_name(one.word) for one in host.engine.publications()}
    assert shown == {("a", 0): "CLOSED", ("b", 0): "CLOSED"}


# --- rows ---------------------------------------------------------------------------------------------


def test_a_declared_row_is_published_at_once() -> None:
    """The first word of a row is CLOSED, generation 0."""
    host = Host()
    host.join("a")
    host.declare("a", row=3)
    assert host.published() == {("a", 3): "CLOSED"}
    assert host.engine.row_name(nonce("a"), 3) == "app/database"
    assert host.engine.row_name(nonce("a"), 4) is None


def test_a_late_comer_sees_the_breaker_as_it_is() -> None:
    """A worker that declares an open breaker is refused by it from its first call on."""
    host = open_host("a")
    host.join("b")
    host.declare("b")
    assert host.published() == {("b", 0): "OPEN"}


def test_one_name_in_two_namespaces_is_two_breakers() -> None:
    """Two applications of one host both call theirs `database`."""
    host = Host()
    host.join("a", namespace="shop")
    host.join("b", namespace="blog")
    host.declare("a")
    host.declare("b")
    host.outcomes(*[("a", FAILURE)] * 5)
    assert host.states() == {"a": "OPEN", "b": "CLOSED"}


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "ns/name"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    """What arrives on the row is counted as of no row."""
    host = Host()
    host.join("a")
    host.say(BreakerDeclared(nonce("a"), 0, name, "{}"))
    assert host.engine.catalogue.named == {}
    host.outcomes(("a", SUCCESS))
    assert host.engine.counting.lost.unknown_row == 1


@pytest.mark.parametrize("settings", ["", "[]", '{"failure_threshold": 0}', '{"hue": 1}', "{" * 9000])
def test_settings_that_cannot_be_used_still_guard(settings: str) -> None:
    """A worker with unusable settings is protected by those in force, else by the defaults."""
    host = Host()
    host.join("a")
    host.say(BreakerDeclared(nonce("a"), 0, "database", settings))
    assert host.published() == {("a", 0): "CLOSED"}
    assert host.engine.catalogue.named["app/database"].breaker.settings == BreakerSettings()


def test_a_row_keeps_its_first_meaning() -> None:
    """A row that says something else later is refused; its first breaker is credited."""
    host = Host()
    host.join("a")
    host.declare("a", "database")
    host.declare("a", "cache")
    assert host.engine.row_name(nonce("a"), 0) == "app/database"
    assert "refused" in host.events("worker")[0]


def test_classes_are_counted_by_their_own_rows() -> None:
    """A cumulative word of a class's row adds to the class and remembers when."""
    host = Host()
    host.settle_in("a")
    host.declare_class("a", 1, "TimeoutError")
    host.declare_class("a", 2, "Stray", breaker_row=9)
    for value in (2, 2, 5, 3):
        tallies = ((1, int(OutcomeKind.COUNT), value), (2, int(OutcomeKind.COUNT), value))
        host.say(OutcomeBatch((taken("a", tallies=tallies),), ()))
    counted = host.engine.catalogue.named["app/database"].metrics.classes
    assert {name: (one.count, one.last_seen) for name, one in counted.items()} == {"TimeoutError": (5, 100.0)}
    assert host.engine.counting.lost.unknown_row == 5


# --- counting -----------------------------------------------------------------------------------------


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


# --- decisions ----------------------------------------------------------------------------------------


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


# --- commands -----------------------------------------------------------------------------------------


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


def test_names_are_resolved_and_ambiguity_lists_the_candidates() -> None:
    """Both forms are taken; a short name that two namespaces have is an error."""
    host = Host()
    host.join("a", namespace="shop")
    host.join("b", namespace="blog")
    for letter in "ab":
        host.declare(letter, "database")
    host.declare("a", "cache", row=1)
    assert host.engine.resolve("cache") == host.engine.resolve("shop/cache") == "shop/cache"
    with pytest.raises(BreakerNotFound, match="blog/database, shop/database") as ambiguous:
        host.engine.resolve("database")
    assert ambiguous.value.code == "ambiguous"
    with pytest.raises(BreakerNotFound) as unknown:
        host.engine.resolve("shop/queue")
    assert unknown.value.code == "unknown"


# --- settings -----------------------------------------------------------------------------------------

OLD, NEW = BreakerSettings(failure_threshold=5), BreakerSettings(failure_threshold=2)


def configured(*tables: tuple[str, BreakerSettings | None, bool]) -> Configured:
    """The configuration file's word."""
    return Configured(
        tuple(
            (name, "{}" if one is None else json.dumps(one.to_json()), critical)
            for name, one, critical in tables
        )
    )


def in_force(host: Host) -> BreakerSettings:
    """The settings of the one breaker."""
    return host.engine.catalogue.named["app/database"].breaker.settings


def test_the_file_comes_before_the_workers_and_the_full_name_first() -> None:
    """`[breakers."app/database"]` before `[breakers.database]` before a declaration."""
    host = Host()
    host.settle_in("a", settings=OLD)
    host.say(configured(("database", NEW, False)))
    assert in_force(host) == NEW
    exact = BreakerSettings(failure_threshold=9)
    host.say(configured(("database", NEW, False), ("app/database", exact, True)))
    assert in_force(host) == exact
    assert host.engine.catalogue.named["app/database"].critical
    host.say(configured())
    assert in_force(host) == OLD
    assert not host.engine.catalogue.named["app/database"].critical


def test_a_file_that_only_calls_a_breaker_critical_leaves_its_settings() -> None:
    """An empty table decides nothing else."""
    host = Host()
    host.say(configured(("database", None, True)))
    host.settle_in("a", settings=NEW)
    assert in_force(host) == NEW
    assert host.engine.catalogue.named["app/database"].critical


def test_a_rolling_deploy_ends_with_the_new_settings() -> None:
    """A differing declaration is told once, and takes over when the last worker with the old one has left."""
    host = Host()
    host.settle_in("a", "b", settings=OLD)
    host.settle_in("c", settings=NEW)
    assert host.events("breaker") == ["app/database: 1 workers declare other settings"]
    assert in_force(host) == OLD
    host.leave("a")
    assert in_force(host) == OLD
    host.outcomes(("c", FAILURE))
    host.leave("b")
    assert in_force(host) == NEW
    assert host.events("breaker") == [
        "app/database: new settings from its workers",
        "app/database: its workers agree again",
    ]
    host.outcomes(("c", FAILURE))
    assert host.states()["c"] == "OPEN", "the run from before the change still counts"


def test_settings_stay_when_everybody_has_left() -> None:
    """A breaker without workers keeps what it had."""
    host = Host()
    host.settle_in("a", settings=NEW)
    host.leave("a")
    assert in_force(host) == NEW


# --- limits and time ----------------------------------------------------------------------------------


def test_a_host_full_of_workers_says_so() -> None:
    """The worker beyond the limit is refused with `full`, and stays local."""
    host = Host()
    for number in range(WORKERS_MAX + 1):
        host.engine.handle(WorkerJoined(f"{number:032x}", 1, 0, 0, "root", "", "app", ""), 100.0, 0.0)
    host.join("a")
    assert host.refusal() == "full"
    assert len(host.engine.workers) == WORKERS_MAX


def test_a_host_full_of_breakers_says_so() -> None:
    """The declaration beyond the limit is an event, and its row shows nothing."""
    host = Host()
    host.join("a", "b", "c", "d", "e")
    for number in range(BREAKERS_MAX + 1):
        told = BreakerDeclared(nonce("abcde"[number // 1024]), number % 1024, f"b{number}", "{}")
        effects = host.engine.handle(told, 100.0, 0.0)
    assert [type(effect) for effect in effects] == [Happened]
    assert len(host.engine.catalogue.named) == BREAKERS_MAX
    assert host.engine.row_name(nonce("e"), 0) is None


def test_events_are_numbered_without_a_gap_and_the_oldest_forgotten() -> None:
    """A thousand are remembered; who asks for the ones after a number gets the next of them."""
    host = Host()
    host.settle_in("a")
    numbers: list[int] = []
    for _ in range(600):
        for verb in ("disable", "enable"):
            numbers += [one.number for one in host.command(verb) if isinstance(one, Happened)]
    assert numbers == list(range(numbers[0], numbers[0] + 2400))
    last = numbers[-1]
    assert [event.number for _, event in host.engine.chronicle.after(last - 2, 10)] == [last - 1, last]
    assert [event.number for _, event in host.engine.chronicle.after(0, 3)] == [
        last - 999,
        last - 998,
        last - 997,
    ]
    assert host.engine.chronicle.after(last, 5) == []


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


def test_effects_come_in_the_order_of_their_causes() -> None:
    """The answer first, then the events, then the words."""
    host = Host()
    host.settle_in("a")
    kinds = [type(effect) for effect in host.command("disable")]
    assert kinds == [Answer, Happened, Happened, Publish]
