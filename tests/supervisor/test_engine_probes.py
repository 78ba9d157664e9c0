"""Probes in conversation with the engine: what their words do to breakers, and what they do not."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from ipc.vocabulary import BreakerSettings
from supervisor.engine import Engine
from supervisor.messages import PermitReturned, ProbeRule, Tick
from supervisor.probe_watch import Probing
from tests.supervisor.conversation import FAILURE, SUCCESS, Host, nonce
from tests.supervisor.test_catalogue import configured

SETTINGS = BreakerSettings(
    recovery_timeout=30.0, recovery_jitter=0.0, trial_timeout=2.0, successes_to_close=1
)
RULE = ProbeRule("database", 2, 3, preventive=False, patience_s=68.0)
PREVENTIVE = replace(RULE, preventive=True)


def probed_host(*letters: str, rule: ProbeRule = RULE) -> Host:
    """A host with a probe and one breaker, which is CLOSED."""
    host = Host()
    host.probes(rule)
    host.settle_in(*letters, settings=SETTINGS)
    return host


def opened(*letters: str, rule: ProbeRule = RULE) -> Host:
    """The same, and the breaker opened at 100.0 s for 30 s."""
    host = probed_host(*letters, rule=rule)
    host.outcomes(*[(letters[0], FAILURE)] * 5)
    assert set(host.states().values()) == {"OPEN"}
    return host


def wait(host: Host, seconds: float) -> str:
    """Time passes, the engine is told; the state of the first worker."""
    host.now += seconds
    host.say(Tick())
    return host.states()["a"]


def test_a_probe_that_fails_keeps_it_open_beyond_its_time() -> None:
    """As long as it goes on saying so, and its patience after its last word."""
    host = opened("a", "b")
    for _ in range(20):
        assert wait(host, 10.0) == "OPEN"
        host.probed("failed", 0.1)
    assert host.engine.next_time() == 300.0 + 68.0
    assert wait(host, 67.9) == "OPEN"
    assert wait(host, 0.1) == "HALF_OPEN"
    cause = "OPEN -> HALF_OPEN: the open time is over, and its probe says nothing"
    assert host.events("breaker") == [f"app/database: {cause}"]


def test_the_word_says_until_when_it_is_kept() -> None:
    """Workers are told the time by which somebody tries again, whatever happens."""
    host = opened("a")
    breaker = host.engine.catalogue.named["app/database"]
    assert breaker.retry_after_s("", host.now) == 30.0
    host.now += 10.0
    host.probed("failed")
    assert breaker.retry_after_s("", host.now) == 68.0
    host.now += 60.0
    host.probed("passed")
    assert breaker.retry_after_s("", host.now) == 68.0


def test_passes_end_the_first_open_time_at_once() -> None:
    """Two that were begun after the opening; then trials decide, and a pass never closes."""
    host = opened("a", "b")
    host.now += 5.0
    host.probed("passed", 0.1)
    assert host.states()["a"] == "OPEN"
    host.now += 5.0
    host.probed("passed", 0.1)
    assert host.states() == {"a": "HALF_OPEN", "b": "HALF_OPEN"}
    assert host.events("breaker") == ["app/database: OPEN -> HALF_OPEN: its probe passes"]
    for _ in range(9):
        host.now += 5.0
        host.probed("passed")
        assert host.states()["a"] == "HALF_OPEN"
    permit = host.ask("b")["permit"]
    host.outcomes(("b", SUCCESS), permit=permit & 63)
    assert host.states() == {"a": "CLOSED", "b": "CLOSED"}


def test_a_pass_that_was_begun_before_the_opening_does_not_count() -> None:
    """It speaks of another time; but the probe is at work, and is waited for."""
    host = probed_host("a")
    host.probed("passed")
    host.now += 9.0
    host.outcomes(*[("a", FAILURE)] * 5)
    host.now += 1.0
    host.probed("passed", 1.5)
    host.now += 1.0
    host.probed("passed", 0.5)
    assert host.states()["a"] == "OPEN"
    assert wait(host, 40.0) == "OPEN", "its open time is over and it waits for the probe"
    host.probed("passed", 0.5)
    assert host.states()["a"] == "HALF_OPEN"


def test_a_probe_that_was_wrong_once_waits_for_the_timer_too() -> None:
    """After a failed recovery the open time has grown, and passes do not shorten it."""
    host = opened("a")
    for _ in range(2):
        host.now += 1.0
        host.probed("passed")
    permit = host.ask("a")["permit"]
    host.outcomes(("a", FAILURE), permit=permit & 63)
    assert host.states()["a"] == "OPEN"
    for _ in range(59):
        host.now += 1.0
        host.probed("passed")
        assert host.states()["a"] == "OPEN"
    assert wait(host, 1.0) == "HALF_OPEN"
    cause = "its probe passes, and the open time is over"
    assert host.events("breaker") == [f"app/database: OPEN -> HALF_OPEN: {cause}"]


def test_a_failure_takes_back_what_passes_had_promised() -> None:
    """While the grown open time lasts, it is the last verdicts that count when it is over."""
    host = opened("a")
    for _ in range(2):
        host.probed("passed")
    host.outcomes(("a", FAILURE), permit=host.ask("a")["permit"] & 63)
    for verdict in ("passed", "passed", "failed"):
        host.now += 15.0
        host.probed(verdict)
    assert wait(host, 20.0) == "OPEN"
    for _ in range(2):
        host.probed("passed")
    assert host.states()["a"] == "HALF_OPEN"


def test_without_a_verdict_the_timer_decides() -> None:
    """A probe that never spoke, or could never be asked, keeps nothing open."""
    host = opened("a")
    host.now += 10.0
    host.probed("error")
    assert host.events() == ["database: its probe could not be asked: connection refused"]
    assert host.engine.next_time() == 130.0
    assert wait(host, 20.0) == "HALF_OPEN"


def test_one_probe_speaks_for_every_namespace_but_the_ones_with_a_table_of_their_own() -> None:
    """Each breaker counts from its own opening; an exact table without a probe has none."""
    host = Host()
    host.say(configured(("database", SETTINGS, False), ("own/database", SETTINGS, False)))
    host.probes(RULE)
    for letter, namespace in (("a", "shop"), ("b", "blog"), ("c", "own")):
        host.join(letter, namespace=namespace)
        host.declare(letter)
    host.outcomes(*[("a", FAILURE)] * 5)
    host.outcomes(*[("c", FAILURE)] * 5)
    host.now += 1.0
    host.probed("passed", 0.5)
    host.outcomes(*[("b", FAILURE)] * 5)
    host.now += 1.0
    host.probed("passed", 0.5)
    assert host.states() == {"a": "HALF_OPEN", "b": "OPEN", "c": "OPEN"}
    host.now += 1.0
    host.probed("passed", 0.5)
    assert host.states() == {"a": "HALF_OPEN", "b": "HALF_OPEN", "c": "OPEN"}
    assert host.engine.catalogue.probing() == (Probing("database", open=False, opened_at=-math.inf),)


def test_an_exact_tables_probe_is_for_its_breaker_alone() -> None:
    """And the others go by the timer."""
    host = Host()
    host.say(configured(("shop/database", SETTINGS, False)))
    host.probes(replace(RULE, table="shop/database", rise=1))
    for letter, namespace in (("a", "shop"), ("b", "blog")):
        host.join(letter, namespace=namespace)
        host.declare(letter, settings=SETTINGS)
        host.outcomes(*[(letter, FAILURE)] * 5)
    host.now += 1.0
    host.probed("passed", table="shop/database")
    assert host.states() == {"a": "HALF_OPEN", "b": "OPEN"}


def test_late_words_of_a_probe_that_was_removed_or_changed_decide_nothing() -> None:
    """They are told apart by their digest, and are never credited to another probe of that name."""
    host = opened("a", rule=replace(RULE, digest="old"))
    host.now += 1.0
    host.probed("passed", digest="old")
    host.probes(replace(RULE, digest="new"))
    host.now += 1.0
    assert host.probed("failed", digest="old") == []
    host.probed("passed", digest="old")
    host.probed("passed", digest="new")
    assert host.states()["a"] == "OPEN"
    host.probes(replace(RULE, table="elsewhere", digest="new"))
    assert host.probed("failed", digest="new") == []
    assert host.probed("failed", table="nowhere") == []
    assert host.engine.next_time() == 130.0, "nobody speaks for it now: the timer decides"


def test_a_removed_probe_keeps_nothing_open() -> None:
    """The reload that takes it away ends an open time that is over, in the same turn."""
    host = opened("a")
    host.now += 29.0
    host.probed("failed")
    assert wait(host, 11.0) == "OPEN"
    host.probes()
    assert host.states()["a"] == "HALF_OPEN"


def test_a_reload_that_changes_nothing_keeps_the_run() -> None:
    """One pass before and one after it are two."""
    host = opened("a")
    host.now += 1.0
    host.probed("passed")
    host.say(configured())
    host.probes(RULE)
    host.now += 1.0
    host.probed("passed")
    assert host.states()["a"] == "HALF_OPEN"


def test_a_preventive_probe_opens_before_traffic_finds_out() -> None:
    """After so many failures in a row that were begun since it closed; the cause is what came back."""
    host = probed_host("a", "b", rule=PREVENTIVE)
    for _ in range(2):
        host.now += 5.0
        host.probed("failed", 0.1)
    assert host.states() == {"a": "CLOSED", "b": "CLOSED"}
    host.now += 5.0
    host.probed("failed", 0.1, chance=0.5)
    assert host.states() == {"a": "OPEN", "b": "OPEN"}
    cause = "its probe failed 3 times: connection refused"
    assert host.events("breaker") == [f"app/database: CLOSED -> OPEN: {cause}"]
    host.command("reset")
    host.now += 1.0
    for _ in range(2):
        host.probed("failed", 0.5)
    host.probed("failed", 2.0)
    assert host.states()["a"] == "CLOSED", "one of them was begun before it was closed by hand"
    host.probed("failed", 0.5)
    assert host.states()["a"] == "OPEN"


def test_without_preventive_failures_open_nothing() -> None:
    """Traffic decides."""
    host = probed_host("a")
    for _ in range(9):
        host.now += 5.0
        host.probed("failed")
    assert host.states()["a"] == "CLOSED"


def test_metrics_only_counts_what_a_probe_would_have_opened() -> None:
    """An event and a counter, no more often than it could have happened."""
    host = probed_host("a", rule=PREVENTIVE)
    host.command("metrics-only")
    breaker = host.engine.catalogue.named["app/database"].breaker
    for _ in range(4):
        host.now += 5.0
        host.probed("failed")
    assert (host.states()["a"], breaker.would_open_total) == ("METRICS_ONLY", 1)
    for _ in range(6):
        host.now += 5.0
        host.probed("failed")
    assert breaker.would_open_total == 2


@pytest.mark.parametrize("verb", ["force-open", "disable", "metrics-only"])
def test_no_word_of_a_probe_ends_a_manual_state(verb: str) -> None:
    """Whatever it says; enable leads out of FORCED_OPEN to trials at once."""
    host = probed_host("a", rule=PREVENTIVE)
    host.command(verb)
    before = host.states()
    for verdict in ("passed", "failed", "error") * 3 + ("failed",) * 9:
        host.now += 5.0
        host.probed(verdict)
    assert host.states() == before
    host.command("enable")
    assert host.states()["a"] == ("HALF_OPEN" if verb == "force-open" else "CLOSED")


def test_an_isolated_worker_follows_the_timer() -> None:
    """A probe speaks of the dependency, and that is well."""
    host = probed_host("a", "b", "c", "d")
    for _ in range(8):
        host.now += 0.5
        host.probed("failed")
        host.outcomes(("b", SUCCESS), ("c", SUCCESS), ("d", SUCCESS))
        host.now += 0.5
        host.outcomes(("a", FAILURE))
    assert host.states() == {"a": "OPEN", "b": "CLOSED", "c": "CLOSED", "d": "CLOSED"}
    host.probed("passed")
    host.probed("passed")
    assert host.states()["a"] == "OPEN"
    host.probed("failed")
    assert wait(host, 30.0) == "HALF_OPEN"


def test_a_new_daemon_goes_on_with_the_run() -> None:
    """The snapshot holds the run, the patience and what was told."""
    host = opened("a")
    host.now += 10.0
    host.probed("failed")
    host.now += 5.0
    host.probed("passed")
    again = Host(Engine.from_plain(json.loads(json.dumps(host.engine.to_plain()))), host.now)
    again.start(2)
    again.say(configured())
    again.probes(RULE)
    again.now += 40.0
    again.say(Tick())
    assert again.engine.catalogue.named["app/database"].state.name == "OPEN"
    again.probed("passed")
    assert again.engine.catalogue.named["app/database"].state.name == "HALF_OPEN"
    assert again.events("breaker")[0] == "database: its probe passes again"


def test_a_new_namespace_is_gated_by_what_its_probe_said_before() -> None:
    """A breaker that is declared after the last verdict waits for the next one like the others."""
    host = Host()
    host.probes(RULE)
    host.probed("failed")
    host.settle_in("a", settings=replace(SETTINGS, recovery_timeout=1.0))
    host.outcomes(*[("a", FAILURE)] * 5)
    assert wait(host, 60.0) == "OPEN"
    assert wait(host, 8.0) == "HALF_OPEN"


def test_the_schedule_learns_when_breakers_opened() -> None:
    """Per table: whether one is OPEN, and when the last of them opened."""
    host = Host()
    host.probes(RULE, replace(RULE, table="cache"))
    assert host.engine.catalogue.probing() == (
        Probing("database", open=False, opened_at=-math.inf),
        Probing("cache", open=False, opened_at=-math.inf),
    )
    for letter, namespace in (("a", "shop"), ("b", "blog")):
        host.join(letter, namespace=namespace)
        host.declare(letter, settings=SETTINGS)
        host.now += 1.0
        host.outcomes(*[(letter, FAILURE)] * 5)
    assert host.engine.catalogue.probing()[0] == Probing("database", open=True, opened_at=102.0)
    host.say(PermitReturned(nonce("a"), 0, 1))
    host.command("reset", breaker="blog/database")
    assert host.engine.catalogue.probing()[0] == Probing("database", open=True, opened_at=101.0)
