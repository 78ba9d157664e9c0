"""Breakers by their names, and which settings are in force."""

from __future__ import annotations

import json

import pytest

from ipc.rows import declaration
from ipc.vocabulary import BreakerSettings
from supervisor.catalogue import BREAKERS_EACH, BREAKERS_KEPT, BREAKERS_MAX
from supervisor.errors import BreakerNotFound
from supervisor.messages import (
    BreakerDeclared,
    Command,
    Configured,
    Forget,
    ProbeRule,
)
from tests.supervisor.conversation import FAILURE, Host, nonce
from tests.supervisor.crowd import Crowd


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
    assert host.events("breaker") == ["app/database: 1 of its workers declare other settings"]
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


def test_a_newer_worker_may_say_more_than_this_supervisor_knows() -> None:
    """What is known of its settings is in force, and what is not is an event."""
    host = Host()
    host.join("a")
    told = json.dumps({"failure_threshold": 2, "of_the_future": 3})
    host.say(BreakerDeclared(nonce("a"), 0, "database", told))
    assert in_force(host) == NEW
    text = (
        "web-a (pid 1000) declares database with settings that only a newer supervisor knows: of_the_future"
    )
    assert host.events() == [text]


def test_an_older_worker_says_nothing_of_a_ramp_and_has_none() -> None:
    """And a newer one that wants none does not mention it, so that an older supervisor takes all it says."""
    host = Host()
    host.join("a")
    host.say(BreakerDeclared(nonce("a"), 0, "database", '{"failure_threshold":2}'))
    assert in_force(host) == NEW
    assert in_force(host).ramp_s == 0.0
    assert b"ramp_s" not in declaration("database", NEW)
    assert b'"ramp_s":30.0' in declaration("database", BreakerSettings(ramp_s=30.0))


def test_settings_stay_when_everybody_has_left() -> None:
    """A breaker without workers keeps what it had."""
    host = Host()
    host.settle_in("a", settings=NEW)
    host.leave("a")
    assert in_force(host) == NEW


def test_a_host_full_of_breakers_says_so() -> None:
    """The declaration beyond the limit is an event, and its row shows nothing."""
    host = Crowd()
    for letter in "abcde":
        host.come(letter, 0, "root")
    for number, letter in enumerate("abcd"):
        host.fill(letter, 1024, number * 1024)
    host.declare("e", "late")
    assert "4096 breakers exist, which is the limit" in host.refused
    assert len(host.names) == len(host.engine.catalogue.numbered) == BREAKERS_MAX
    assert host.engine.row_name(nonce("e"), 0) is None


def test_no_user_and_no_namespace_takes_the_whole_host() -> None:
    """A user has a quarter, however many processes and namespaces; some room is kept for root."""
    host = Crowd()
    host.come("a", 1001, "one")
    host.fill("a", BREAKERS_EACH)
    host.come("b", 1001, "two")
    host.declare("b", "more")
    assert f"uid 1001 has {BREAKERS_EACH} breakers" in host.refused
    host.come("c", 1002, "one")
    host.declare("c", "more")
    assert f"namespace one has {BREAKERS_EACH} breakers" in host.refused
    for number, letter in enumerate("def"):
        host.come(letter, 1003 + number, letter)
        host.fill(letter, BREAKERS_EACH)
    assert len(host.names) == BREAKERS_MAX - BREAKERS_KEPT
    host.come("0", 0, "root")
    host.come("1", 77, "own")
    for letter in "01":
        host.declare(letter, "kept")
    assert host.names[-2:] == ["root/kept", "own/kept"]


def test_unused_breakers_make_room_oldest_first_and_numbers_are_never_given_again() -> None:
    """What five dead processes left does not refuse the sixth; what is open, set by hand or tabled stays."""
    host = Crowd()
    host.say(configured(("b1", None, False)))
    host.come("a", 1001, "one")
    host.fill("a", BREAKERS_EACH)
    host.say(Command("one/b0", "disable", None, "", 0, "root"))
    host.outcomes(*[("a", FAILURE)] * 5, row=2)
    numbers = {breaker.number for breaker in host.engine.catalogue.numbered}
    host.leave("a")
    assert host.engine.catalogue.named["one/b2"].state.name == "OPEN"
    host.come("b", 1001, "one")
    host.declare("b", "new")
    assert [name for name in ("one/b0", "one/b1", "one/b2", "one/b3", "one/new") if name in host.names] == [
        "one/b0",
        "one/b1",
        "one/b2",
        "one/new",
    ]
    assert host.engine.catalogue.named["one/new"].number not in numbers
    assert host.engine.catalogue.forgotten_count == 1


def test_a_short_name_is_that_of_the_only_breaker_with_workers() -> None:
    """A name that somebody left behind makes no command ambiguous at 3 a.m.; the full one still finds it."""
    host = Crowd()
    host.come("a", 1001, "payments")
    host.come("b", 1002, "shop")
    for letter in "ab":
        host.declare(letter, "queue")
    host.leave("a")
    assert host.engine.resolve("queue") == "shop/queue"
    assert host.engine.resolve("payments/queue") == "payments/queue"
    host.leave("b")
    with pytest.raises(BreakerNotFound, match="payments/queue, shop/queue"):
        host.engine.resolve("queue")


def test_a_namespace_is_his_who_used_it_first_while_breakers_of_it_are_known() -> None:
    """Also when no worker is left: between two deploys nobody else takes it."""
    host = Crowd()
    host.come("a", 1001, "shop")
    host.declare("a", "queue")
    host.leave("a")
    assert host.engine.catalogue.owner_of("shop") == 1001
    host.say(Forget("", 0, "root"))
    assert host.engine.catalogue.owner_of("shop") is None


def test_a_probe_is_found_by_the_names_of_its_table_and_of_its_breakers() -> None:
    """An exact table without a probe has none, whatever the one for every namespace says."""
    host = Host()
    host.say(Configured((("database", "", False), ("blog/database", "", False))))
    host.probes(ProbeRule("database", 1, 1, False, 20.0))
    for letter, namespace in (("a", "shop"), ("b", "blog")):
        host.join(letter, namespace=namespace)
        host.declare(letter, "database")
    found = host.engine.catalogue
    assert found.probe_of("database") == found.probe_of("shop/database") == "database"
    assert found.probe_of("blog/database") == ""
    with pytest.raises(BreakerNotFound):
        found.probe_of("nothing")
