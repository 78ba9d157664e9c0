"""`systemctl reload breakerd` under a real systemd: the new file, or the old one and a failed command."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Final

from tests.faults.judge import judge
from tests.live.house import wait_for
from tests.systemd.service import UNIT, Service

FILE: Final = "/etc/breakerd/breakerd.toml"
GOOD: Final = "[breakers.database]\nfailure_threshold = {}\n"
WRONG: Final = "[breakers.database]\nfailure_threshold = 0\n[supervisor]\ntick_s = 5\n"


def begin(service: Service) -> None:
    """A service with a file, and a worker outside of it that calls all the time."""
    service.install()
    service.box.write(FILE, GOOD.format(4))
    service.start()
    hand = service.hand()
    hand.order("guard", breaker="database", failure_threshold=9)
    hand.order("load", breaker="database", shared=True, threads=2, per_s=1000, failing_every=7)
    wait_for("it is declared", lambda: service.stats()["breakers"], 5.0)


def threshold(service: Service) -> int:
    """The setting in force."""
    return int(service.ask("breaker", name="database")["breaker"]["settings"]["failure_threshold"])


def in_force(service: Service, wanted: int) -> bool:
    """True if that is the setting in force."""
    return threshold(service) == wanted


def test_a_good_file_is_in_force_and_a_wrong_one_fails_with_its_mistakes(service: Service) -> None:
    """Under load from outside nothing restarts and nothing is lost; status and journal say what is wrong."""
    begin(service)
    lives = service.life()
    assert threshold(service) == 4
    for wanted in range(5, 10):
        service.box.write(FILE, GOOD.format(wanted))
        service.systemctl("reload", UNIT)
        assert threshold(service) == wanted
    service.box.write(FILE, WRONG)
    assert service.systemctl("reload", UNIT, check=False).returncode != 0
    assert (service.show("ActiveState"), service.show("SubState")) == ("active", "running")
    assert threshold(service) == 9
    for mistake in ("database.failure_threshold: must be >= 1, got 0", "tick_s: must be <= 0.1, got 5"):
        lines = [line for line in service.journal().splitlines() if mistake in line]
        assert f"{FILE}: breakers.{mistake}" in lines or f"{FILE}: supervisor.{mistake}" in lines
        assert mistake in service.journal("-p", "err")
    wait_for("the status says so", lambda: "reload refused: /etc" in service.show("StatusText"), 5.0)
    service.box.write(FILE, GOOD.format(8))
    service.systemctl("reload", UNIT)
    wait_for("it is well again", lambda: "refused" not in service.show("StatusText"), 5.0)
    assert service.show("StatusText").endswith("1 breaker, 1 worker, all closed")
    assert service.life() == lives
    service.hands[0].order("unload")
    judge(service)


def test_a_signal_is_told_to_systemd_from_its_beginning_to_its_end(service: Service) -> None:
    """Reloading as long as the daemon does not move; over when it does, or when the next one has done it."""
    begin(service)
    for wanted, number in ((5, signal.SIGCONT), (6, signal.SIGKILL)):
        daemon = service.daemon
        service.box.write(FILE, GOOD.format(wanted))
        os.kill(daemon, signal.SIGSTOP)
        service.systemctl("kill", "-s", "HUP", "--kill-who=main", UNIT)
        wait_for("it is reloading", lambda: service.show("ActiveState") == "reloading", 5.0)
        os.kill(daemon, number)
        wait_for("the new file is in force", partial(in_force, service, wanted), 10.0)
        wait_for("it is running", lambda: service.show("SubState") == "running", 5.0)
    service.box.write(FILE, WRONG)
    service.systemctl("kill", "-s", "HUP", "--kill-who=main", UNIT)
    wait_for("the status says so", lambda: "reload refused: /etc" in service.show("StatusText"), 5.0)
    wait_for("it is running", lambda: service.show("SubState") == "running", 5.0)
    assert (threshold(service), service.show("NRestarts")) == (6, "0")
    service.hands[0].order("unload")
    judge(service)
