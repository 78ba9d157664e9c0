"""What one user of the socket does to another, with real users: nothing of it is felt."""

from __future__ import annotations

import array
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from ipc import control, wire
from ipc.errors import ControlError
from tests.live.house import House, wait_for

STRANGER = 54_321
LINGER_S = 20
SOON_S = 1.0

pytestmark = pytest.mark.needs_root


@contextmanager
def stranger(house: House, does: Callable[[], object]) -> Iterator[int]:
    """A process of an ordinary member of the socket's group that does this, then waits; its end of a pipe."""
    group = os.stat(house.socket).st_gid
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([group])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            os.write(writing, repr(does()).encode())
            time.sleep(60.0)
        except Exception as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        yield reading
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reading)


def slowest_s(house: House) -> float:
    """How long the slowest of ten answers takes, s."""
    took = []
    for _ in range(10):
        asked_at = time.monotonic()
        house.ask("version")
        took.append(time.monotonic() - asked_at)
    return max(took)


@pytest.mark.fault("D7")
def test_d7_sockets_that_linger_stop_nobody(house: House) -> None:
    """Sent with requests that may have none, with hellos, and left unread in a connection that is closed."""

    def lingering() -> socket.socket:
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = socket.create_connection(server.getsockname())
            far, _ = server.accept()
            keep.append(far)
            client.setblocking(False)
            try:
                while True:
                    client.send(b"x" * 65_536)
            except BlockingIOError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER_S))
            return client

    keep: list[socket.socket] = []

    def attack() -> int:
        requests = (wire.request(1, "version"), wire.request(1, "hello", version=1), b"garbage" * 9, b"b")
        for data in requests * 3:
            end = socket.socket(socket.AF_UNIX)
            end.connect(house.socket)
            sent = lingering()
            end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sent.fileno()]))])
            sent.close()
            keep.append(end)
        return len(requests)

    "".encode("idna")  # read here: the stranger may read no module of ours
    daemon = house.daemon_pid
    with stranger(house, attack) as told:
        assert os.read(told, 100) == b"4"
        assert slowest_s(house) < SOON_S
    assert slowest_s(house) < SOON_S
    assert house.daemon_pid == daemon


@pytest.mark.fault("D7")
def test_d7_a_nonce_in_a_strangers_hands_opens_nothing(house: House) -> None:
    """It asks for permits in the worker's name and says hello as the worker: refused, told, no effect."""
    hand = house.hand()
    hand.order("guard", breaker="database", failure_threshold=3, failure_rate=None, recovery_timeout=0.1)
    hand.order("call", breaker="database", how="fail", times=3)
    wait_for("half-open", lambda: house.breaker("database")["state"] == "HALF_OPEN", 3.0)
    nonce = hand.order("nonce")["nonce"]

    def attack() -> list[str]:
        codes = []
        for ask in range(5):
            try:
                control.ask(house.socket, "permit", 2.0, nonce=nonce, row=0, ask=ask)
            except ControlError as error:
                codes.append(str(getattr(error, "code", "")))
        exchange = control.Exchange(house.socket)
        fields = {"version": 1, "layout": 1, "nonce": nonce, "clock": time.monotonic_ns()}
        exchange.send("hello", (os.pidfd_open(os.getpid()),), **fields)
        control.wait_readable(exchange.connection, 2.0)
        try:
            codes.append(str(exchange.receive()))
        except ControlError as error:
            codes.append(str(getattr(error, "code", "")))
        return codes

    with stranger(house, attack) as told:
        assert os.read(told, 1000).decode() == repr(["unknown"] * 5 + ["refused"])
    events = house.ask("events", kind="denied")["events"]
    assert [f"uid {STRANGER}," in one["text"] for one in events] == [True]
    assert nonce not in str(
        [house.ask(verb) for verb in ("events", "workers", "breakers", "health", "status")]
    )
    assert house.breaker("database")["trials"]["in_flight"] == 0
    hand.order("call", breaker="database", how="ok", times=3)
    wait_for("closed", lambda: house.breaker("database")["state"] == "CLOSED", 3.0)


@pytest.mark.fault("D7")
def test_d7_thousands_of_unread_questions_delay_nobody(house: House) -> None:
    """As many connections as it may have, hundreds of requests on each, none of the answers read."""
    keep: list[socket.socket] = []

    def attack() -> int:
        for _ in range(250):
            end = socket.socket(socket.AF_UNIX)
            end.setblocking(False)
            end.connect(house.socket)
            with_all = b"".join(wire.request(number, "events") for number in range(1, 290))
            try:
                end.send(with_all)
            except BlockingIOError:
                continue
            keep.append(end)
        return 250

    with stranger(house, attack) as told:
        assert os.read(told, 100) == b"250"
        assert slowest_s(house) < SOON_S
