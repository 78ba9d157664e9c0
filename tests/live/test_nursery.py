"""The nursery keeps what it holds, also while it cannot start a daemon."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from supervisor.lives import EXIT_FAILED
from tests.live.house import House, alive, spare_descriptors, unlimit_descriptors, wait_for

REAL_TIME: Final = 40
ODDLY: Final = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
os.execv(sys.argv[1], sys.argv[1:])
"""
BROKEN: Final = """
import os, sys
from supervisor.nursery import Nursery
from supervisor.places import places

class Broken(Nursery):
    def _turn(self, ready, now):
        super()._turn(ready, now)
        if os.path.exists("ledgers/break"):
            raise RuntimeError("a fault of its own")

sys.exit(Broken(places(*sys.argv[1:4])).run())
"""


def test_a_daemon_that_cannot_be_started_is_started_later(house: House) -> None:
    """Without a free descriptor nobody can be forked; what was counted and declared is there afterwards."""
    hand = house.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database", times=20)
    wait_for("counted", lambda: house.stats()["totals"]["outcomes"]["success"] == 20, 5.0)
    nursery = house.nursery_pid
    spare_descriptors(nursery, 0)
    house.kill_daemon()
    wait_for("it says so", lambda: "the daemon cannot be started" in house.logged(), 5.0)
    unlimit_descriptors(nursery)
    house.wait_ready()
    hand.order("call", breaker="database", times=20)
    wait_for("goes on", lambda: house.stats()["totals"]["outcomes"]["success"] == 40, 5.0)
    assert set(house.stats()["lost"].values()) == {0}
    assert hand.leave() == 0


def test_a9_the_service_manager_is_told_of_the_end(build: Callable[..., House]) -> None:
    """STOPPING=1 when it is asked to end, by whomever, before anything has ended."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0bkd-end-{os.getpid()}")
        manager.settimeout(5.0)
        house = build("[control]\n", NOTIFY_SOCKET=f"@bkd-end-{os.getpid()}").start()
        house.signal_nursery(signal.SIGTERM)
        said = b""
        while not said.startswith(b"STOPPING=1"):
            said, numbers, *_ = socket.recv_fds(manager, 4096, 8)
            for number in numbers:
                os.close(number)
        assert house.nursery is not None
        assert house.nursery.wait(8.0) == 0


def test_a_file_that_is_broken_later_stops_nobody(build: Callable[..., House]) -> None:
    """The configuration is that of the start: a daemon that dies while it is edited comes back with it."""
    house = build("[breakers.database]\nfailure_threshold = 4\n").start()
    hand = house.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database")
    wait_for("declared", lambda: house.stats()["breakers"], 5.0)
    house.configure("[breakers.database]\nfailure_threshold = -4\n")
    house.wait_reborn(house.kill_daemon())
    assert house.breaker("database")["settings"]["failure_threshold"] == 4
    assert hand.leave() == 0


def test_a_daemon_killed_by_a_signal_without_a_name(house: House) -> None:
    """It is followed by another like any other."""
    old = house.daemon_pid
    os.kill(old, REAL_TIME)
    house.wait_reborn(old)
    assert f"killed by signal {REAL_TIME}" in house.logged()


def test_started_with_the_signals_of_somebody_else(build: Callable[..., House]) -> None:
    """Whoever starts it may ignore SIGCHLD and block SIGTERM: exit codes are told and stops heard anyway."""
    house = build()
    house.prefix = (sys.executable, "-c", ODDLY)
    house.start()
    old = house.daemon_pid
    os.kill(old, signal.SIGSEGV)
    house.wait_reborn(old)
    assert "killed by SIGSEGV" in house.logged()
    assert house.stop() == 0


def test_what_must_not_happen_ends_it_and_all_it_started(build: Callable[..., House]) -> None:
    """A nursery that goes on without its loop would hold the lock, and nobody would start another."""
    house = build()
    table = f'target = "tests.supervisor.ward_targets:stays"\nargs = ["{house.ledgers}"]\n'
    house.configure(f"[workers.web]\n{table}")
    where = [str(house.runtime), str(house.state), str(house.config)]
    for folder in where[:2]:
        os.makedirs(folder)
    broken = subprocess.Popen(
        [sys.executable, "-c", BROKEN, *where], env=house.surroundings(), cwd=house.root
    )
    house.adopt(broken)
    begun = house.ledgers / "begun"
    wait_for("a worker lives", begun.exists, 10.0)
    (house.ledgers / "break").touch()
    assert broken.wait(5.0) == EXIT_FAILED
    worker = json.loads(begun.read_text())["pid"]
    wait_for("its worker is gone", lambda: not alive(worker), 5.0)


def test_a_socket_whose_file_is_gone_is_there_again(house: House) -> None:
    """While the daemon lives and for the next one; whoever is attached goes on."""
    hand = house.hand()
    hand.order("guard", breaker="database")
    hand.order("call", breaker="database", times=5)
    wait_for("counted", lambda: house.stats()["totals"]["outcomes"]["success"] == 5, 5.0)
    socket_file = house.runtime / "breakerd.sock"
    (house.root / "random.py").write_text("raise SystemExit('of this directory')")
    socket_file.unlink()
    wait_for("it is back", socket_file.exists, 5.0)
    assert house.ask("version")
    old = house.daemon_pid
    house.kill_daemon()
    socket_file.unlink()
    wait_for("it is back", socket_file.exists, 5.0)
    house.wait_reborn(old)
    hand.order("call", breaker="database", times=5)
    wait_for("counted", lambda: house.stats()["totals"]["outcomes"]["success"] == 10, 5.0)
    assert "of this directory" not in house.logged()
    assert hand.leave() == 0
