"""breakerd.service under a real systemd: ready, watched, killed, stopped, and nothing lost by any of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from functools import partial
from typing import Final

import pytest

from tests.faults.effort import effort
from tests.faults.judge import judge
from tests.live.house import wait_for
from tests.schemas import problems
from tests.systemd.service import UNIT, Service

KILLS: Final = effort(3, 100)
KILLS_S: Final = 60 + 12 * KILLS
EXPOSURE_MAX: Final = 20
"""Tenths: what systemd-analyze calls the exposure level."""


def test_ready_means_that_it_answers_and_the_status_is_a_live_sentence(service: Service) -> None:
    """`systemctl start` returns when a question is answered; the status follows what happens."""
    service.install().start()
    assert service.ask("version", timeout=1.0)["nursery_pid"] == int(service.show("MainPID"))
    assert service.show("SubState") == "running"
    wait_for("the first sentence", lambda: service.show("StatusText") == "0 breakers, 0 workers", 5.0)
    hand = service.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database")
    wait_for(
        "it counts the worker", lambda: service.show("StatusText") == "1 breaker, 1 worker, all closed", 5.0
    )
    hand.order("call", breaker="database", how="fail", times=5)
    wait_for("it names what is open", lambda: "database is OPEN; 1 br" in service.show("StatusText"), 5.0)


def test_three_descriptors_a_worker_are_stored_and_go_with_it(service: Service) -> None:
    """With the doorbell of their user, which goes with its last worker."""
    service.install().start()

    def stored() -> str:
        return service.show("NFileDescriptorStore")

    assert stored() == "0"
    hands = [service.hand(f"web-{number}") for number in range(2)]
    wait_for("two workers are stored", lambda: stored() == "7", 5.0)
    service.kill_worker(hands[0])
    wait_for("one is forgotten", lambda: stored() == "4", 5.0)
    hands[1].leave()
    wait_for("both are forgotten", lambda: stored() == "0", 5.0)


def test_the_units_are_verified_and_the_service_is_hardened(service: Service) -> None:
    """`systemd-analyze verify` has nothing to say; the exposure is 2.0 at most; the user is its own."""
    service.install()
    done = service.box.run("systemd-analyze", "verify", "--recursive-errors=no", UNIT, "breakerd.socket")
    assert done.stdout + done.stderr == ""
    service.box.run("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", UNIT)
    service.start()
    service.box.run("systemd-analyze", "security", f"--threshold={EXPOSURE_MAX}", UNIT)
    places = ("/run/breakerd/breakerd.sock", "/run/breakerd", "/var/lib/breakerd")
    found = service.box.run("stat", "-c", "%U:%G %a", *places).stdout.splitlines()
    assert found == ["breakerd:breakerd 660", "breakerd:breakerd 750", "breakerd:breakerd 700"]


def test_systemd_never_gives_it_up(service: Service) -> None:
    """A6: however often it dies within however short a time, it is started again."""
    service.install("RestartSec=10ms").start()
    for _ in range(7):  # systemd's own limit is five in ten seconds
        old = service.life()
        service.systemctl("kill", "-s", "KILL", UNIT)
        service.wait_back(old)
    assert (service.show("StartLimitIntervalUSec"), service.show("NRestarts")) == ("0", "7")
    assert service.show("ActiveState") == "active"


@pytest.mark.parametrize("who", ["nursery", "daemon"])
def test_the_watchdog_ends_what_is_stopped_and_its_state_comes_back(service: Service, who: str) -> None:
    """Nobody asks for it: within seconds another life answers, with the counts and the manual state."""
    service.install("WatchdogSec=2").start()
    hand = service.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database", times=7)
    assert hand.order("command", breaker="database", verb="force_open", for_s=600.0)["error"] is None
    old = service.life()
    began = time.monotonic()
    os.kill(getattr(service, who), signal.SIGSTOP)
    service.wait_back(old)
    assert time.monotonic() - began < 10.0
    assert service.show("NRestarts") == "1"
    assert service.show("Result") == "success"  # of the new life
    assert "Watchdog timeout" in service.journal()
    assert service.state("database") == "FORCED_OPEN"
    judge(service)


def test_a_healthy_service_is_left_alone_by_the_watchdog(service: Service) -> None:
    """Twice the watchdog's time under load."""
    service.install("WatchdogSec=2").start()
    hand = service.hand()
    hand.order("load", breaker="database", per_s=500)
    began, old = time.monotonic(), service.life()
    wait_for("four seconds have passed", lambda: time.monotonic() - began > 4.0, 8.0, 0.1)
    assert (service.life(), service.show("NRestarts")) == (old, "0")
    hand.order("unload")
    judge(service)


@pytest.mark.timeout(KILLS_S)
def test_killing_the_whole_unit_under_load_loses_nothing(service: Service) -> None:
    """`systemctl kill -s KILL`: nursery and daemon at once, workers outside of the unit go on."""
    service.install().start()
    hands = [service.hand(f"web-{number}") for number in range(2)]
    for hand in hands:
        hand.order("load", breaker=hand.log.stem, threads=2, per_s=1000, failing_every=7)
    for _ in range(KILLS):
        old = service.life()
        service.systemctl("kill", "-s", "KILL", UNIT)
        service.wait_back(old)
    for hand in hands:
        hand.order("unload")
        assert hand.leave() == 0
    judge(service)
    assert service.show("NRestarts") == str(KILLS)


def counted(service: Service, name: str) -> bool:
    """True if outcomes of that breaker were counted."""
    known = [key for key in service.stats()["breakers"] if key.rpartition("/")[2].startswith(name)]
    return len(known) == 2


@pytest.mark.timeout(KILLS_S)
@pytest.mark.parametrize("with_daemon", [False, True])
def test_nursery_and_worker_killed_together_lose_nothing(service: Service, with_daemon: bool) -> None:
    """R11: what only these two held comes back from systemd's store, and is counted to its end."""
    service.install().start()
    stays = service.hand("stays")
    stays.order("load", breaker="stays", per_s=500, failing_every=5)
    for number in range(KILLS):
        victim = service.hand(f"victim-{number}")
        victim.order("load", breaker=f"victim-{number}", threads=2, per_s=2000, failing_every=7)
        wait_for("it is counted", partial(counted, service, f"victim-{number}"), 5.0)
        old = service.life()
        pids = [service.nursery, service.worker_pid(victim), *([service.daemon] if with_daemon else [])]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # a daemon may have ended with its nursery
                os.kill(pid, signal.SIGKILL)
        service.wait_back(old)
        victim.kill()
    stays.order("unload")
    stays.leave()
    stats = judge(service)
    assert stats["lost"]["segment_lost"] == 0
    wait_for("the store is empty", lambda: service.show("NFileDescriptorStore") == "0", 5.0)


def test_who_is_not_in_the_store_yet_is_not_attached_yet(service: Service) -> None:
    """A nursery that gets no time forwards nothing: then its death and the worker's lose nothing either."""
    service.install().start()
    old = service.life()
    os.kill(service.nursery, signal.SIGSTOP)
    hand = service.hand("early")
    hand.order("guard", breaker="early")
    hand.order("call", breaker="early", times=50)
    for pid in (service.nursery, service.worker_pid(hand), service.daemon):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    service.wait_back(old)
    hand.kill()
    assert "early" not in str(service.stats()["breakers"])
    wait_for("it is told as lost", lambda: not service.ask("workers")["workers"], 5.0)
    assert service.hand("late").order("attempts")
    wait_for("who comes later is attached", lambda: len(service.ask("workers")["workers"]) == 1, 5.0)


def test_a_worker_rings_the_same_bell_after_the_nursery_was_killed(service: Service) -> None:
    """The doorbell comes back from the store: a failure is still seen at once by who never attached anew."""
    service.install().start()
    hand = service.hand()
    hand.order("guard", breaker="database", failure_threshold=3)
    hand.order("call", breaker="database")
    old = service.life()
    service.systemctl("kill", "-s", "KILL", UNIT)
    service.wait_back(old)
    hand.order("call", breaker="database", how="fail", times=3)
    wait_for("it is open", lambda: service.state("database") == "OPEN", 2.0)
    hand.leave()
    judge(service)


@pytest.mark.parametrize("stopped", [False, True])
def test_it_stops_in_order_within_its_time(service: Service, stopped: bool) -> None:
    """SIGTERM, a last checkpoint, nobody killed by systemd; also when the daemon itself does not move."""
    service.install().start()
    hand = service.hand()
    hand.order("load", breaker="database", per_s=500)
    if stopped:
        os.kill(service.daemon, signal.SIGSTOP)
    began = time.monotonic()
    service.systemctl("stop", UNIT)
    assert time.monotonic() - began < (9.0 if stopped else 4.0)
    assert (service.show("Result"), service.show("ActiveState")) == ("success", "inactive")
    assert not service.box.path("/run/breakerd/breakerd.sock").exists()
    hand.order("unload")
    service.start()
    # The worker hands its segment back, which systemd's store lost with the stop, when it next calls.

    def back() -> bool:
        hand.order("call", breaker="database.0")
        return service.show("NFileDescriptorStore") == "4"

    wait_for("the worker is back", back, 10.0, 0.1)
    judge(service)


def test_a_wrong_configuration_is_not_tried_again_and_logged_as_an_error(service: Service) -> None:
    """Exit 78: failed at once, and `journalctl -p err` shows the sentence."""
    service.install()
    service.box.write("/etc/breakerd/breakerd.toml", "[breakers.database]\nfailure_threshold = -3\n")
    assert service.systemctl("start", UNIT, check=False).returncode != 0
    assert (service.show("ActiveState"), service.show("NRestarts")) == ("failed", "0")
    assert service.show("ExecMainStatus") == "78"
    assert "failure_threshold: must be >= 1, got -3" in service.journal("-p", "err")
    service.box.path("/etc/breakerd/breakerd.toml").unlink()
    service.start()
    wait_for("its log is there", lambda: "serving, pid" in service.journal(), 5.0)
    assert "serving, pid" not in service.journal("-p", "notice")
    assert "breakerd serves" not in service.journal("-p", "warning"), "good news is no warning"


def test_what_install_units_wrote_is_taken_away_again(service: Service) -> None:
    """And nothing else."""
    service.install()
    service.box.run("/opt/env/bin/breakerd", "install-units", "--remove")
    names = "( -iname *breakerd* -o -name worker.conf -o -name socket.conf )"
    assert service.box.run("find", "/usr/local", *names.split()).stdout == ""


def test_the_example_drop_in_lets_a_service_of_another_user_attach(service: Service) -> None:
    """The group and the path of the socket are all that it needs; without it, it is local."""
    service.install().start()
    program = "import ipc, time; ipc.connect(name='shop'); time.sleep(60)"
    unit = f'[Service]\nUser=nobody\nExecStart=/opt/env/bin/python -c "{program}"\n'
    service.box.write("/etc/systemd/system/shop.service", unit)
    service.box.run(
        "cp", "/usr/local/share/breakerd/worker.conf", service.drop_in("shop.service", "breakerd.conf")
    )
    service.systemctl("daemon-reload")
    service.systemctl("start", "shop")

    def attached() -> bool:
        return [one["user"] for one in service.ask("workers")["workers"]] == ["nobody"]

    wait_for("it is attached", attached, 10.0)


def test_the_doctor_finds_a_well_kept_service_and_who_may_not_ask(service: Service) -> None:
    """As root nothing is to be done; another user is told which group to join; what systemd set is seen."""
    service.install().start()
    hand = service.hand()
    hand.order("guard", breaker="database")
    done = service.box.run("/opt/env/bin/supervisorctl", "doctor", "--json")
    found = json.loads(done.stdout)
    assert problems("doctor", found) == []
    assert [one for one in found["findings"] if one["status"] != "pass" and one["check"] != "command"] == []
    nobody = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
    told = service.box.run(*nobody, "/opt/env/bin/supervisorctl", "doctor", "--json", check=False)
    assert told.returncode == 3
    findings = json.loads(told.stdout)["findings"]
    failed = {one["check"]: one["action"] for one in findings if one["status"] == "fail"}
    assert "usermod -aG breakerd nobody" in failed["daemon"]
