"""breakerd.socket under a real systemd: the first connection starts the service, the queue outlives it."""

from __future__ import annotations

import os
import signal

from tests.faults.judge import judge
from tests.live.house import wait_for
from tests.systemd.service import SOCKET, UNIT, Service

UNIT_SOCKET = "breakerd.socket"


def test_the_first_connection_starts_it(service: Service) -> None:
    """A worker that attaches finds a supervisor that did not run before."""
    service.install()
    service.systemctl("start", UNIT_SOCKET)
    assert service.show("ActiveState") == "inactive"
    assert service.box.run("stat", "-c", "%U:%G %a", SOCKET).stdout.split() == ["breakerd:breakerd", "660"]
    hand = service.hand()
    assert service.show("ActiveState") == "active"
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database", times=5)
    hand.leave()
    judge(service)


def test_whoever_connects_while_it_is_dead_is_answered_by_the_next_life(service: Service) -> None:
    """The socket is systemd's: it is never refused, and its file is the same."""
    service.install("RestartSec=1s")
    service.systemctl("start", UNIT_SOCKET)
    old = service.life()
    inode = service.box.path(SOCKET).stat().st_ino
    for pid in (service.nursery, service.daemon):
        os.kill(pid, signal.SIGKILL)
    wait_for("it is dead", lambda: service.show("SubState") == "auto-restart", 5.0)
    tool = service.box.run("/opt/env/bin/supervisorctl", "version", "--timeout", "10s")
    assert "nursery_pid" in tool.stdout
    assert service.life() != old
    assert service.box.path(SOCKET).stat().st_ino == inode


def test_a_restart_keeps_the_socket_and_a_stop_leaves_it_listening(service: Service) -> None:
    """Whoever comes after a stop starts it again, and it goes on with what it knew."""
    service.install()
    service.systemctl("start", UNIT_SOCKET)
    hand = service.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database", times=5)
    old = service.life()
    service.systemctl("restart", UNIT)
    service.wait_back(old)
    service.systemctl("stop", UNIT)
    assert (service.show("ActiveState"), service.show("Result")) == ("inactive", "success")
    assert service.show("ActiveState", UNIT_SOCKET) == "active"
    judge(service)
    hand.leave()


def test_a_socket_whose_file_is_gone_is_made_anew(service: Service) -> None:
    """Somebody removed it under systemd's nose: the service listens where its workers look."""
    service.install()
    service.systemctl("start", UNIT_SOCKET)
    service.box.path(SOCKET).unlink()
    service.start()
    assert service.life()[0] == int(service.show("MainPID"))
    assert "restart breakerd.socket" in service.journal("-p", "warning")
