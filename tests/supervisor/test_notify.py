"""What systemd is told: datagrams in order, descriptors with them, and never a wait."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import notify
from supervisor.notify import Notifier


class Manager:
    """The service manager's end: everything that it was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.end.bind(str(path))
        self.end.setblocking(False)
        self._speaking: list[Notifier] = []

    def notifier(self, watchdog_s: float = 0.0) -> Notifier:
        """Somebody who speaks to it."""
        self._speaking.append(Notifier(str(self.path), watchdog_s))
        return self._speaking[-1]

    def close(self) -> None:
        """The end of both."""
        self.heard()
        self.end.close()
        for one in self._speaking:
            one.close()

    def heard(self) -> list[tuple[str, int]]:
        """(text, number of descriptors) of every datagram so far."""
        found: list[tuple[str, int]] = []
        while True:
            try:
                data, rights, _, _ = self.end.recvmsg(4096, socket.CMSG_SPACE(32))
            except BlockingIOError:
                return found
            numbers = array.array("i")
            for _, _, payload in rights:
                numbers.frombytes(payload)
            for number in numbers:
                os.close(number)
            found.append((data.decode(), len(numbers)))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """A service manager."""
    made = Manager(tmp_path / "notify")
    yield made
    made.close()


def test_without_systemd_nothing_is_said() -> None:
    """Every call is harmless."""
    notifier, given = notify.take({}, 7)
    notifier.ready()
    notifier.status("well")
    notifier.beat(1.0, 0.0)
    notifier.store("1", (0,))
    assert (notifier.active, notifier.period_s, given) == (False, float("inf"), notify.Given())


def test_a_life_as_it_is_told(manager: Manager) -> None:
    """Ready once asked, a status once per change, in one line and cut."""
    notifier = manager.notifier()
    notifier.ready()
    notifier.status("one\nline")
    notifier.status("one line")
    notifier.status("x" * 1000)
    notifier.stopping()
    heard = [text for text, _ in manager.heard()]
    assert heard[:2] == ["READY=1", "STATUS=one line"]
    assert heard[2] == "STATUS=" + "x" * notify.STATUS_MAX
    assert heard[3].startswith("STOPPING=1\nSTATUS=ending")


def test_a_reload_as_it_is_told(manager: Manager) -> None:
    """Begun once, over once, also where a new daemon ends it; over without a beginning is nothing."""
    notifier = manager.notifier()
    notifier.reloaded()
    notifier.reloading(1_234_567)
    notifier.reloading(2_000_000)
    notifier.reloaded()
    notifier.reloaded()
    notifier.reloading(3_000_000)
    notifier.ready()
    notifier.reloaded()
    heard = [text for text, _ in manager.heard()]
    assert heard == [
        "RELOADING=1\nMONOTONIC_USEC=1234",
        "READY=1",
        "RELOADING=1\nMONOTONIC_USEC=3000",
        "READY=1",
    ]


def test_the_watchdog_is_fed_only_while_the_pulse_is_fresh(manager: Manager) -> None:
    """Four times in its time, and not at all once the pulse is older than half of it."""
    notifier = manager.notifier(watchdog_s=8.0)
    for now in range(100, 108):
        notifier.beat(float(now), age_s=3.9)
    assert manager.heard() == [("WATCHDOG=1", 0)] * 4
    for now in range(108, 120):
        notifier.beat(float(now), age_s=4.0)
    assert manager.heard() == []


def test_descriptors_are_stored_under_a_name_and_removed_by_it(manager: Manager) -> None:
    """One datagram with all of them, not watched for their end."""
    notifier = manager.notifier()
    notifier.store("a", (0, 1, 2))
    notifier.unstore("a")
    assert manager.heard() == [("FDSTORE=1\nFDNAME=a\nFDPOLL=0", 3), ("FDSTOREREMOVE=1\nFDNAME=a", 0)]


def test_what_systemd_has_no_room_for_waits_in_order_with_its_descriptors(manager: Manager) -> None:
    """A store and its removal never change places, also if the descriptors were closed meanwhile."""
    notifier = manager.notifier(watchdog_s=1.0)
    for number in range(2000):
        notifier.status(f"{number}")
    pending = os.dup(0)
    notifier.store("late", (pending,))
    os.close(pending)
    notifier.unstore("late")
    heard: list[tuple[str, int]] = []
    for beat in range(2000):
        heard += manager.heard()
        notifier.beat(float(beat), 0.0)
    told = [text for text, _ in heard if "WATCHDOG" not in text]
    assert told[:2000] == [f"STATUS={number}" for number in range(2000)]
    assert [one for one in heard if "late" in one[0]] == [
        ("FDSTORE=1\nFDNAME=late\nFDPOLL=0", 1),
        ("FDSTOREREMOVE=1\nFDNAME=late", 0),
    ]


def test_a_manager_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """The service goes on without it."""
    notifier = Notifier(str(tmp_path / "nobody"))
    notifier.ready()
    notifier.beat(1.0, 0.0)
    notifier.close()
    notifier.ready()


def test_what_is_meant_for_this_process_is_taken_out_of_the_environment() -> None:
    """No child speaks for its parent; what was meant for another pid is not used either."""
    environ = {
        "NOTIFY_SOCKET": "@abstract",
        "WATCHDOG_USEC": "2000000",
        "WATCHDOG_PID": "7",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "8",
        "LISTEN_FDNAMES": "x",
        "PATH": "/bin",
    }
    notifier, given = notify.take(environ, 7)
    assert environ == {"PATH": "/bin"}
    assert (notifier.watchdog_s, notifier.period_s, given) == (2.0, 0.5, notify.Given())
    assert notifier.active
    notifier.close()
    assert notify.take({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "9"}, 7)[0].watchdog_s == 0.0


@pytest.mark.parametrize("text", ["", "-1", "x", "1.5"])
def test_numbers_that_are_none_count_as_absent(text: str) -> None:
    """Whatever stands in the environment, the service starts."""
    notifier, given = notify.take({"WATCHDOG_USEC": text, "LISTEN_PID": "7", "LISTEN_FDS": text}, 7)
    assert (notifier.watchdog_s, given) == (0.0, notify.Given())
