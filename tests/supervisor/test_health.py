"""Pass, warn or fail: what makes a host which, and the sentence that says so."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from ipc.vocabulary import BreakerSettings
from supervisor import health
from supervisor.catalogue import BREAKERS_EACH
from supervisor.facts import Facts, ManagedProcess, ProbeWait, Refusal
from supervisor.messages import Configured, OutcomeBatch, ProbeRule, WorkerQuarantined
from tests.schemas import problems
from tests.supervisor.conversation import FACTS, FAILURE, SUCCESS, Host, nonce, taken
from tests.supervisor.crowd import Crowd


def report(host: Host, level: str = "full", facts: Facts = FACTS) -> dict[str, Any]:
    """The report as it arrives at the asker."""
    told: dict[str, Any] = json.loads(json.dumps(health.report(host.engine, facts, level, host.now)))
    assert problems("health", told) == []
    return told


def status(host: Host, level: str = "full", facts: Facts = FACTS) -> str:
    """Pass, warn or fail."""
    return str(report(host, level, facts)["status"])


def settled() -> Host:
    """Two workers on one breaker, all well."""
    host = Host()
    host.settle_in("a", "b")
    return host


def test_a_quiet_host_passes_at_every_level() -> None:
    """The whole report, once."""
    host = settled()
    assert report(host, "live") == {
        "schema": 1,
        "status": "pass",
        "version": "1",
        "releaseId": "0.1.0",
        "serviceId": "breakerd",
        "description": "circuit breakers and metrics of the worker processes of this host",
        "checks": {},
        "level": "live",
    }
    assert report(host, "ready")["checks"] == {
        "supervisor:checkpoint": [{"status": "pass", "output": "", "observedValue": "written"}]
    }
    full = report(host)
    assert full["status"] == "pass"
    assert full["checks"]["breaker:app/database"] == [
        {"status": "pass", "output": "", "observedValue": "CLOSED"}
    ]
    assert full["checks"]["supervisor:workers"][0]["observedValue"] == 2


def test_what_a_probe_said_last_is_a_check_of_its_own() -> None:
    """Failing or not to be asked is a warning, and so is silence; a pass and no word yet are not."""
    host = settled()
    host.probes(ProbeRule("database", 2, 3, preventive=False, patience_s=20.0))
    told = []
    for verdict in ("", "passed", "failed", "error", "passed"):
        if verdict:
            host.probed(verdict)
        [check] = report(host)["checks"]["breaker:app/database:probe"]
        told.append((check["status"], check["observedValue"], check["output"]))
    host.now += 21.0
    [check] = report(host)["checks"]["breaker:app/database:probe"]
    assert check["output"] == "the probe of app/database has said nothing for 21 s"
    assert status(host) == check["status"] == "warn"
    assert told == [
        ("pass", "not asked yet", ""),
        ("pass", "passed", ""),
        ("warn", "failed", "the probe of app/database fails: connection refused"),
        ("warn", "error", "the probe of app/database could not be asked: connection refused"),
        ("pass", "passed", ""),
    ]
    host.probes()
    assert "breaker:app/database:probe" not in report(host)["checks"]


def test_an_opening_that_waits_for_its_probe_says_so() -> None:
    """The time that it names is the latest."""
    host = settled()
    host.probes(ProbeRule("database", 2, 3, preventive=False, patience_s=20.0))
    host.probed("failed")
    host.outcomes(*[("a", FAILURE)] * 5)
    host.now += 10.0
    [check] = report(host)["checks"]["breaker:app/database"]
    assert check["output"].endswith(" s at the latest, its probe decides")


def test_an_open_breaker_is_a_warning() -> None:
    """It is what a breaker is for; the sentence says since when and until when."""
    host = settled()
    host.outcomes(*[("a", FAILURE)] * 5)
    host.now += 10.0
    told = report(host)
    assert told["status"] == "warn"
    assert told["output"] == "app/database is OPEN since 10.0 s, trials in 20.0 s"
    assert status(host, "ready") == "pass"


def test_an_open_breaker_is_a_failure_where_it_is_critical() -> None:
    """The configuration decides; half-open it is a warning again."""
    host = settled()
    host.say(Configured((("database", "{}", True),)))
    assert status(host) == "pass"
    host.outcomes(*[("a", FAILURE)] * 5)
    assert status(host) == "fail"
    host.now += 40.0
    host.command("metrics-only")
    assert status(host) == "warn"
    host.command("force-open")
    assert status(host) == "fail"
    assert report(host)["output"] == "app/database is FORCED_OPEN since 0.0 s by uid 0 (a test)"


def test_no_other_user_makes_the_host_fail_by_a_name() -> None:
    """The table of a short name speaks for known namespaces, root and the own user."""
    for uid, namespace, known, expected in (
        (1002, "u2", "", "warn"),
        (1002, "u2", "u2", "fail"),
        (0, "root", "", "fail"),
        (77, "own", "", "fail"),
    ):
        host = Crowd()
        host.say(Configured((("database", "{}", True),)))
        host.come("a", uid, namespace)
        host.declare("a", "database")
        host.outcomes(*[("a", FAILURE)] * 5)
        facts = replace(FACTS, namespaces=frozenset(filter(None, [known])))
        assert status(host, facts=facts) == expected
        host.leave("a")
        assert status(host, facts=facts) == "pass"
    host.say(Configured((("own/database", "{}", True),)))
    assert status(host) == "fail"


def test_a_breaker_without_workers_keeps_no_host_at_warn() -> None:
    """Nobody calls, so nothing ends its state: open or half-open it is told, and all is well."""
    host = settled()
    host.outcomes(*[("a", FAILURE)] * 5)
    assert status(host) == "warn"
    host.leave("a")
    assert status(host) == "warn"
    host.leave("b")
    told = report(host)
    assert told["status"] == "pass"
    assert told["checks"]["breaker:app/database"][0]["output"].endswith("no worker has it")
    assert health.sentence(host.engine, FACTS) == "1 breaker, 0 workers"
    host.command("force-open")
    assert status(host) == "warn"


def test_breakers_that_are_refused_or_many_are_a_warning() -> None:
    """Those in use count; what no worker has makes room by itself."""
    host = Crowd()
    host.come("a", 1001, "one")
    host.fill("a", BREAKERS_EACH)
    assert status(host) == "pass"
    host.come("b", 1001, "two")
    host.declare("b", "more")
    assert "uid 1001 has 1024 breakers" in report(host)["output"]
    host.now += 61.0
    assert "more of b (pid" in report(host)["output"]  # it is decided alone for as long as its worker lives
    host.leave("b")
    assert status(host) == "pass"
    for number, letter in enumerate("cde"):
        host.come(letter, 0, "root")
        host.fill(letter, 1000, number * 1000)
    assert report(host)["output"] == "4024 of 4096 breakers are in use"
    host.leave("a")
    assert status(host) == "pass"


def test_an_isolated_worker_is_a_warning() -> None:
    """The breaker is closed, one worker is not well."""
    host = Host()
    host.settle_in("a", "b", "c", "d")
    for _ in range(6):
        host.outcomes(("b", SUCCESS), ("c", SUCCESS), ("d", SUCCESS))
        host.now += 1.0
        host.outcomes(("a", FAILURE))
        host.now += 1.0
    told = report(host)
    assert told["status"] == "warn"
    assert told["output"] == "app/database is OPEN for worker web-a (pid 1000) alone"


def test_conflicting_settings_are_a_warning_until_they_agree() -> None:
    """A rolling deploy warns while it rolls; the configuration file ends every conflict."""
    host = Host()
    host.settle_in("a")
    host.settle_in("b", settings=BreakerSettings(failure_threshold=2))
    assert status(host) == "warn"
    host.leave("a")
    assert status(host) == "pass"
    host.settle_in("c")
    assert status(host) == "warn"
    host.say(Configured((("database", json.dumps(BreakerSettings().to_json()), False),)))
    assert status(host) == "pass"


def test_what_was_lost_is_a_warning_for_a_minute() -> None:
    """Overflow and lost order are told, and forgotten."""
    host = settled()
    host.say(OutcomeBatch((taken("a", tallies=((0, SUCCESS, 3),)),), ()))
    host.now += 59.0
    assert report(host)["output"] == (
        "3 outcomes of web-a (pid 1000) found its ring full: counted without order, 59 s ago"
    )
    host.now += 1.0
    assert status(host) == "pass"


def test_a_quarantined_worker_is_a_warning_while_it_is_attached() -> None:
    """The reason is told."""
    host = settled()
    host.say(WorkerQuarantined(nonce("a"), "its ring is garbage"))
    host.now += 100.0
    assert report(host)["output"] == "worker web-a (pid 1000) is quarantined: its ring is garbage"
    host.leave("a")
    assert status(host) == "pass"


def test_refused_workers_are_a_warning_that_says_what_to_do() -> None:
    """Half of a fleet that is alone is not well; a command that was denied once is a slip."""
    text = 'user u2 may not join the namespace shop; [namespaces.shop] users = ["u1", "u2"]'
    away = Refusal("refused", 1002, "u2", 396, "denied", text, 3, 60.0, 99.0)
    slip = Refusal("denied", 1003, "u3", 397, "commander", "reset shop/db", 9, 60.0, 99.0)
    told = report(settled(), facts=replace(FACTS, refusals=(away,)))
    assert told["status"] == "warn"
    assert told["output"] == f"user u2 is refused 3 times in 40 s, last pid 396: {text}"
    assert status(settled(), facts=replace(FACTS, refusals=(slip,))) == "pass"
    assert status(settled(), facts=replace(FACTS, refusals=(replace(slip, count=10),))) == "warn"


def test_a_checkpoint_that_cannot_be_written_is_a_failure() -> None:
    """Then the supervisor is not ready, but it lives."""
    facts = replace(FACTS, checkpoint_problem="no space left on device")
    host = settled()
    assert [status(host, level, facts) for level in ("live", "ready", "full")] == ["pass", "fail", "fail"]
    assert report(host, "ready", facts)["output"] == (
        "the checkpoint cannot be written: no space left on device"
    )


def test_a_disk_copy_that_cannot_be_written_is_a_warning() -> None:
    """Nothing is lost unless the host goes down."""
    facts = replace(FACTS, disk_problem="state_enospc")
    assert [status(settled(), level, facts) for level in ("ready", "full")] == ["pass", "warn"]


def test_a_refused_reload_is_a_warning() -> None:
    """Until a good one; systemd is told as well."""
    facts = replace(FACTS, configuration_problem="file: breakers.x: unknown")
    told = report(settled(), facts=facts)
    text = "the configuration file could not be reloaded: file: breakers.x: unknown"
    assert (told["status"], told["output"]) == ("warn", text)
    assert told["checks"]["supervisor:configuration"] == [
        {"status": "warn", "output": text, "observedValue": "refused"}
    ]
    sentence = health.sentence(settled().engine, facts)
    assert sentence == "reload refused: file: breakers.x: unknown; 1 breaker, 2 workers, all closed"
    assert report(settled())["checks"]["supervisor:configuration"][0]["status"] == "pass"


def test_a_failed_actor_is_a_warning_for_a_minute() -> None:
    """Its restarts stay visible."""
    host = settled()
    facts = replace(FACTS, restarts=(("intake", 2), ("control", 0)), failed_at=(("intake", 95.0),))
    told = report(host, "full", facts)
    assert told["output"] == "the actor intake failed and was restarted"
    host.now = 155.0
    told = report(host, "full", facts)
    assert told["status"] == "pass"
    assert told["checks"]["supervisor:actor:intake"][0]["observedValue"] == 2


def test_probes_that_find_no_free_prober_are_a_warning() -> None:
    """Which one, how long, and of how many; a short wait is a figure."""
    waits = {"cache": ProbeWait(0.5, 60.0), "database": ProbeWait(7.0, 60.0)}
    facts = replace(FACTS, probe_waits=waits, probers=("prober:1", "prober:2"))
    told = report(settled(), facts=facts)
    assert told["checks"]["supervisor:probe_wait"] == [
        {
            "status": "warn",
            "output": "the probe of database waits 7 s for one of 2 probers",
            "observedValue": "7.00 s",
        }
    ]
    assert told["status"] == "warn"
    well = report(settled(), facts=replace(facts, probe_waits={"cache": waits["cache"]}))
    assert well["checks"]["supervisor:probe_wait"][0]["observedValue"] == "0.50 s"
    assert well["status"] == "pass"
    assert "supervisor:probe_wait" not in report(settled())["checks"]


def test_the_worst_comes_first() -> None:
    """Whoever reads one line reads the failure."""
    host = settled()
    host.outcomes(*[("a", FAILURE)] * 5)
    facts = replace(FACTS, checkpoint_problem="read-only", degraded=("degraded: state_quarantined",))
    told = report(host, "full", facts)
    assert told["status"] == "fail"
    assert told["output"].startswith("the checkpoint cannot be written: read-only; degraded: state_q")


def managed(title: str, state: str, **more: Any) -> ManagedProcess:
    """One managed process."""
    return ManagedProcess(title.partition(":")[0], 1, title, state, since=90.0, **more)


def test_a_managed_worker_that_fails_is_a_warning() -> None:
    """Given up or between two attempts; one that was stopped, or has ended as it should, is well."""
    host = settled()
    for state in ("RUNNING", "STARTING", "STOPPING", "STOPPED", "EXITED"):
        facts = replace(FACTS, managed=(managed("web", state),))
        assert status(host, facts=facts) == "pass"
        (check,) = report(host, facts=facts)["checks"]["managed:web"]
        assert check == {"status": "pass", "output": "", "observedValue": state}
    for state, why in (("FATAL", "it is given up"), ("BACKOFF", "it ended and is started again")):
        one = managed("web", state, restarts=2, last_exit="exit code 1")
        told = report(host, facts=replace(FACTS, managed=(one,)))
        assert told["status"] == "warn"
        assert told["output"] == f"web is {state} since 10.0 s: {why}, exit code 1, restarted 2 times"


def test_lost_lines_of_a_log_are_shown() -> None:
    """They are no warning: what is lost is lost."""
    told = report(settled(), facts=replace(FACTS, managed=(managed("web", "RUNNING", log_gaps=7),)))
    assert told["status"] == "pass"
    (check,) = told["checks"]["managed:web:log"]
    assert check == {"status": "pass", "output": "7 lines of its log are lost", "observedValue": 7}


def test_the_sentence_names_who_is_given_up() -> None:
    """Three of them by name."""
    host = settled()
    one = replace(FACTS, managed=(managed("web", "FATAL"), managed("mail", "BACKOFF")))
    assert health.sentence(host.engine, one) == "web is FATAL; 1 breaker, 2 workers, all closed"
    five = replace(FACTS, managed=tuple(managed(f"web:{number}", "FATAL") for number in range(5)))
    told = health.sentence(host.engine, five)
    assert told == "web:0, web:1, web:2 and 2 more are FATAL; 1 breaker, 2 workers, all closed"


def test_one_sentence_tells_systemd_what_is_wrong_first() -> None:
    """Counts when all is well; names, then how many more."""
    assert health.sentence(Host().engine, FACTS) == "0 breakers, 0 workers"
    host = settled()
    assert health.sentence(host.engine, FACTS) == "1 breaker, 2 workers, all closed"
    host.outcomes(*[("a", FAILURE)] * 5)
    facts = replace(FACTS, disk_problem="the disk is full")
    assert health.sentence(host.engine, facts) == (
        "the disk is full; app/database is OPEN; 1 breaker, 2 workers"
    )
    for row, name in enumerate(("cache", "smtp", "search", "queue"), 1):
        host.declare("a", name, row=row)
        host.command("force-open", None, f"app/{name}")
    told = health.sentence(host.engine, FACTS)
    assert told.endswith("; 2 more are not closed; 5 breakers, 2 workers")


def test_lines_of_the_log_that_were_lost_are_a_warning_for_a_minute() -> None:
    """Whoever reads the log should know that it is not whole; how many it were stays."""
    host = settled()
    facts = replace(FACTS, log_dropped=(3, host.now))
    host.now += 59.0
    told = health.report(host.engine, facts, "full", host.now)
    assert (told["status"], told["output"]) == ("warn", "3 lines of the log could not be written")
    host.now += 1.0
    told = health.report(host.engine, facts, "full", host.now)
    assert (told["status"], told["checks"]["supervisor:log"][0]["observedValue"]) == ("pass", 3)


def test_a_nursery_that_hangs_is_a_warning_that_says_what_to_do() -> None:
    """The daemon serves on, and nobody would notice until it ends."""
    assert report(settled(), facts=replace(FACTS, nursery_silent_s=2.0))["status"] == "pass"
    facts = replace(FACTS, nursery_silent_s=12.3)
    told = report(settled(), facts=facts)
    assert told["status"] == "warn"
    assert f"the nursery (pid {FACTS.nursery_pid}) gave no sign for 12 s" in told["output"]
    assert "gave no sign for 12 s" in health.sentence(settled().engine, facts)
