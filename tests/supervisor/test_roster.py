"""Who is attached, what its rows mean, and what becomes of the dead."""

from __future__ import annotations

import json

import pytest

from ipc.layout import ALONE
from ipc.vocabulary import BreakerSettings, OutcomeKind, Tally
from supervisor.catalogue import BREAKERS_EACH
from supervisor.engine import Engine
from supervisor.health import _alone
from supervisor.messages import (
    BreakerDeclared,
    OutcomeBatch,
    Publish,
    Retire,
    WorkerForgotten,
    WorkerJoined,
)
from supervisor.roster import WORKERS_MAX
from tests.supervisor.conversation import FAILURE, SUCCESS, Host, nonce, state_name, taken
from tests.supervisor.crowd import Crowd

QUICK = BreakerSettings(recovery_timeout=1.0, recovery_jitter=0.0, trial_timeout=2.0, successes_to_close=1)


def open_host(*letters: str) -> Host:
    """A host on which one breaker of these workers is OPEN."""
    host = Host()
    host.settle_in(*letters, settings=QUICK)
    host.outcomes(*[(letters[0], FAILURE)] * 5)
    return host


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
    """The row says that its process decides alone, and what it counts is told apart from unknown rows."""
    host = Host()
    host.join("a")
    effects = host.say(BreakerDeclared(nonce("a"), 0, name, "{}"))
    assert Publish(nonce("a"), 0, ALONE) in effects
    assert host.engine.catalogue.named == {}
    host.outcomes(("a", SUCCESS))
    assert host.engine.counting.lost.unknown_row == 0
    assert host.engine.counting.lost.refused_row == 1


def test_a_full_host_says_whose_breakers_it_has_not_taken() -> None:
    """Health warns while such a worker lives; its tallies and classes are accounted, also after a restart."""
    host = Crowd()
    host.come("a", 1001, "one")
    host.fill("a", BREAKERS_EACH)
    host.come("b", 1001, "two")
    assert Publish(nonce("b"), 3, ALONE) in host.declare("b", "billing", row=3)
    host.declare_class("b", 4, "OSError", breaker_row=3)
    again = Engine.from_plain(json.loads(json.dumps(host.engine.to_plain())))
    for engine in (host.engine, again):
        refused = [one for one in _alone(engine) if one.status == "warn"]
        assert [(one.name, one.value) for one in refused] == [("supervisor:alone", 1)]
        assert "billing of b (pid 1001)" in refused[0].output
        assert engine.workers[nonce("b")].refused == {3: "billing", 4: ""}
        # A daemon that begins says it again: the one before may have ended before it did.
        assert engine.publications(nonce("b")) == [Publish(nonce("b"), 3, ALONE)]
    tallies = ((3, int(OutcomeKind.FAILURE), 7), (3, int(Tally.REJECTED), 5), (4, int(OutcomeKind.COUNT), 7))
    host.say(OutcomeBatch((taken("b", tallies=tallies),), ()))
    lost = host.engine.counting.lost
    assert (lost.refused_row, lost.unknown_row) == (7, 0)
    assert host.engine.workers[nonce("b")].outcomes == 7
    host.leave("b")
    assert not list(_alone(host.engine))


DEEP = '{"failure_rate":' + "[" * 800 + "]" * 800 + "}"


@pytest.mark.parametrize("settings", ["", "[]", '{"failure_threshold": 0}', '{"hue": 1}', "{" * 9000, DEEP])
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


def test_a_host_full_of_workers_says_so() -> None:
    """The worker beyond the limit is refused with `full`, and stays local."""
    host = Host()
    for number in range(WORKERS_MAX + 1):
        host.engine.handle(WorkerJoined(f"{number:032x}", 1, 0, 0, "root", "", "app", ""), 100.0, 0.0)
    host.join("a")
    assert host.refusal() == "full"
    assert len(host.engine.workers) == WORKERS_MAX
