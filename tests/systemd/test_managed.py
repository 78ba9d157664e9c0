"""Managed workers under the unit: in its sandbox, killed with it, watched with it, and stopped with it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.judge import judge
from tests.faults.managed import NAMES, counted
from tests.live.house import alive, wait_for
from tests.systemd.box import SHARED
from tests.systemd.service import UNIT, Service
from tests.systemd.test_service import KILLS, KILLS_S

CALLS: Final = """
[workers.{name}]
target = "tests.live.managed_targets:calls"
args = ["{ledgers}", "{name}", 300]
"""
STUBBORN: Final = """
[workers.stubborn]
target = "tests.live.managed_targets:ignores"
args = ["stubborn"]
stop_timeout_s = 1.0
"""
WRITES: Final = f"ReadWritePaths={SHARED}/ledgers"
"""The one hole in the sandbox: where the workers of these tests keep their accounts."""


def keeping(service: Service, *settings: str, more: str = "") -> Service:
    """Installed as shipped, and started with a worker of each name."""
    service.install(WRITES, *settings)
    write(service, "".join(CALLS.format(name=name, ledgers=f"{SHARED}/ledgers") for name in NAMES) + more)
    service.start()
    calling(service)
    return service


def write(service: Service, text: str) -> None:
    """Another configuration."""
    service.box.write("/etc/breakerd/breakerd.toml", f"# the workers are what matters here\n{text}")


def managed(service: Service) -> dict[str, Any]:
    """Every managed process by its title."""
    told = service.ask("status")["processes"]
    return {one["name"]: one for one in told if "managed" in one}


def calling(service: Service) -> None:
    """Wait until each of them has been counted further."""
    before = {name: counted(service, name) for name in NAMES}
    wait_for("all call", lambda: all(counted(service, name) > before[name] for name in NAMES), 20.0, 0.05)


def dismiss(service: Service) -> Any:
    """Reload without them: they end in order, and everything is counted."""
    write(service, "")
    service.systemctl("reload", UNIT)
    wait_for("all have ended", lambda: not managed(service), 15.0, 0.05)
    return judge(service)


def test_they_run_in_the_sandbox_and_are_counted(service: Service) -> None:
    """As the service's user, by their titles; a daemon's death is nothing to them; their own is made good."""
    keeping(service)
    assert {(one["user"], one["name"]) for one in service.ask("workers")["workers"]} == {
        ("breakerd", name) for name in NAMES
    }
    before = {name: one["pid"] for name, one in managed(service).items()}
    old = service.life()
    os.kill(service.daemon, signal.SIGKILL)
    wait_for("another daemon answers", lambda: service.life()[1] != old[1], 10.0)
    calling(service)
    assert {name: one["pid"] for name, one in managed(service).items()} == before
    service.box.run("kill", "-9", str(before[NAMES[0]]))
    wait_for("it is back", lambda: managed(service)[NAMES[0]]["pid"] not in (0, before[NAMES[0]]), 10.0)
    calling(service)
    assert service.show("NRestarts") == "0"
    assert "mail (pid" in service.journal("-p", "warning")
    dismiss(service)


@pytest.mark.timeout(KILLS_S)
def test_killing_the_whole_unit_with_its_workers_loses_nothing(service: Service) -> None:
    """`systemctl kill -s KILL`: nursery, daemon and workers at once, under load, again and again."""
    keeping(service)
    for _ in range(KILLS):
        old = service.life()
        service.systemctl("kill", "-s", "KILL", UNIT)
        service.wait_back(old)
        calling(service)
    assert dismiss(service)["lost"]["segment_lost"] == 0
    assert service.show("NRestarts") == str(KILLS)
    wait_for("the store is empty", lambda: service.show("NFileDescriptorStore") == "0", 5.0)


@pytest.mark.parametrize("who", ["nursery", "daemon"])
def test_the_watchdog_starts_the_workers_anew_with_everything_else(service: Service, who: str) -> None:
    """Whoever of the two is stopped: systemd ends the unit, no worker outlives it, the next life is exact."""
    keeping(service, "WatchdogSec=2")
    old = service.life()
    workers = [pid for pid in service.processes if pid not in (service.nursery, service.daemon)]
    os.kill(getattr(service, who), signal.SIGSTOP)
    service.wait_back(old)
    calling(service)
    assert "Watchdog timeout" in service.journal()
    assert not any(map(alive, workers))
    assert dismiss(service)["lost"]["segment_lost"] == 0


def test_it_stops_within_its_time_although_a_worker_ignores_every_signal(service: Service) -> None:
    """Killed after its own time-out by the nursery, not by systemd; the others end politely, and count."""
    keeping(service, more=STUBBORN)
    wait_for("it is attached", lambda: len(service.ask("workers")["workers"]) == 3, 10.0)
    began = time.monotonic()
    service.systemctl("stop", UNIT)
    took = time.monotonic() - began
    assert 1.0 <= took < 9.0
    assert (service.show("Result"), service.show("ActiveState")) == ("success", "inactive")
    assert "stop-sigterm" not in service.journal()
    group = Path(service.box.cgroup / "system.slice" / UNIT / "cgroup.procs")
    assert not group.exists() or not group.read_text().split()
    write(service, "")
    service.start()
    judge(service)


def test_a_worker_that_always_fails_is_told_and_harms_nobody(service: Service) -> None:
    """FATAL in the status line of the unit, which stays active; the others go on."""
    keeping(
        service, more='[workers.broken]\ntarget = "tests.live:nothing"\nmax_restarts = 1\nbackoff_s = 0.01\n'
    )
    wait_for("it is given up", lambda: managed(service)["broken"]["state"] == "FATAL", 10.0)
    wait_for("systemctl status says so", lambda: "broken is FATAL" in service.show("StatusText"), 5.0)
    calling(service)
    assert service.show("SubState") == "running"
    dismiss(service)
